package cdc

import (
	"fmt"
	"slices"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// accountColumns tells of what the account table lacks.
func (e *examination) accountColumns(plan *catalog.Plan) (missing []string) {
	a := e.cfg.Catalog.Account
	if plan.Account == nil {
		return nil
	}
	for _, column := range []struct{ name, key string }{{a.ID, "id"}, {a.URL, "url"}, {a.Parent, "parent"}, {a.Secret, "secret"}} {
		if column.name == "" || plan.Relation.Column(column.name) >= 0 {
			continue
		}
		missing = append(missing, column.name)
		text := fmt.Sprintf("account table %s %s (account.%s of the catalog)", a.Table, e.lacks(column.name), column.key)
		with := func(other string) string { return "account: {" + column.key + ": " + other + "}" }
		named := doctor.Steps{{Kind: doctor.Catalog, Text: "account: {" + column.key + ": COLUMN}",
			Note: "with its name in the table, in a file for --catalog"}, setupAgain()}
		switch column.key {
		case "id":
			e.r.Fail(checkColumns, e.renamed(plan.Relation, []string{column.name}, with, named), "%s: nobody's changes are known to be theirs", text)
		case "url":
			e.r.Fail(checkColumns, e.renamed(plan.Relation, []string{column.name}, with, addColumn(a.Table, column.name,
				"or name the column that holds it in the catalog file, as account.url")), "%s: nobody is sent anything", text)
		default:
			named[0].Text, named[0].Note = "account: {"+column.key+": null}", "it is taken out of the catalog file; or give it its name there"
			e.r.Warn(checkColumns, e.renamed(plan.Relation, []string{column.name}, with, named), "%s: it is left out", text)
		}
	}
	return missing
}

// resultColumns tells of what the table of asynchronous results lacks. Its
// columns' names are fixed.
func (e *examination) resultColumns(plan *catalog.Plan) (missing []string) {
	if plan.Results == nil {
		return nil
	}
	for _, name := range []string{"user_id", "schema", "type", "status", "verbose"} {
		if plan.Relation.Column(name) < 0 {
			missing = append(missing, name)
			e.r.Fail(checkColumns, e.renamed(plan.Relation, []string{name}, func(string) string { return "results: …" }, addColumn(plan.Relation.Table(), name, "")),
				"table %s of results %s", plan.Relation.Table(), e.lacks(name))
		}
	}
	return missing
}

// ownerColumn tells of a table whose rows are nobody's.
func (e *examination) ownerColumn(plan *catalog.Plan) []string {
	name := plan.Schema.Owner.Column
	if plan.Relation.Column(name) >= 0 {
		return nil
	}
	with := func(column string) string {
		other, schema := *plan, *plan.Schema
		other.Schema, schema.Owner.Column = &schema, column
		return entry(&other)
	}
	e.r.Fail(checkColumns, e.renamed(plan.Relation, []string{name}, with, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
		Note: "with the column that holds the owner, in a file for --catalog"}, setupAgain()}),
		"table %s %s, and it says whose the rows are: nothing of it is sent", plan.Relation.Table(), e.lacks(name))
	return []string{name}
}

// renamed gives a column its name back, where one is missing and one is there
// that the catalog does not name; otherwise it is of no use. One that is there and
// does not come keeps its name: the table is right as it is.
func (e *examination) renamed(relation *schemas.Relation, missing []string, with func(column string) string, otherwise doctor.Steps) doctor.Steps {
	for _, name := range missing {
		if _, there := e.unsent[name]; there {
			return e.sendAgain(relation.Table(), name, with)
		}
	}
	var unnamed []string
	for _, column := range relation.Columns {
		if !slices.Contains(columnsOf(e.cfg.Catalog, relation.Table()), column.Name) {
			unnamed = append(unnamed, column.Name)
		}
	}
	if len(missing) != 1 || len(unnamed) != 1 {
		return otherwise
	}
	return doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "ownership of the table",
		Text: fmt.Sprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", relation.Table(), schemas.QuoteIdent(unnamed[0]), schemas.QuoteIdent(missing[0])),
		Note: "if that is the column; or give it its new name in the catalog file"}}
}

func addColumn(table schemas.TableName, name, note string) doctor.Steps {
	return doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "ownership of the table", Note: note,
		Text: fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s pg_catalog.text", table, schemas.QuoteIdent(name))}}
}

func setupAgain() doctor.Step { return acceptGap("once walhook was set up")[0] }
