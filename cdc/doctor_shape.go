package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

// lookAtShape compares the columns of one table with those that the catalog
// names.
func (e *examination) lookAtShape(ctx context.Context, t tableState) {
	relation, err := readRelation(ctx, e.s, e.cfg.Publication, t.name)
	if err != nil || relation == nil { // gone since
		if err != nil {
			e.s.Unseen(e.r, err, checkColumns)
		}
		return
	}
	plan := e.cfg.Catalog.Bind(relation)
	if plan == nil {
		return
	}
	told := e.accountColumns(plan)
	told = append(told, e.resultColumns(plan)...)
	if plan.Schema != nil {
		told = append(told, e.ownerColumn(plan)...)
		told = append(told, e.keys(ctx, t, plan)...)
		told = append(told, e.fields(plan, told)...)
	}
	e.ruleColumns(plan, told)
}

const uniqueIndexSQL = `
	SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i
	JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
	WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
		AND i.indnatts = i.indnkeyatts
	GROUP BY i.indexrelid HAVING bool_and(a.attnotnull) ORDER BY count(*), 1 LIMIT 1`

// keys tells of a schema whose records cannot be told apart.
func (e *examination) keys(ctx context.Context, t tableState, plan *schemas.Plan) (missing []string) {
	if n := len(plan.KeyColumns()); n > 0 && n >= len(plan.Schema.Key) {
		return nil
	}
	for _, column := range plan.Schema.Key {
		if plan.Relation.Column(column) < 0 {
			missing = append(missing, column)
		}
	}
	const what = "records cannot be told apart, their order is not kept and nobody owned through them is found"
	if len(missing) > 0 {
		e.r.Fail(checkKeys, e.renamed(plan.Relation, missing, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
			Note: "with the key's columns, in a file for --catalog"}, setupAgain()}),
			"table %s has no column %s of the key of %s: %s", t.name, strings.Join(missing, ", "), plan.Schema.Name, what)
		return missing
	}
	if plan.Relation.KeyCut && len(plan.Schema.Key) == 0 {
		e.r.Fail(checkKeys, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
			Note: "with key: naming columns that are sent and tell its rows apart, in a file for --catalog"}, setupAgain()},
			"the primary key of table %s has columns that the source does not send (generated ones, or those that a column list leaves out): nothing of %s is sent",
			t.name, plan.Schema.Name)
		return nil
	}
	columns := []string{"id"}
	var unique []string
	err := e.s.QueryRow(ctx, uniqueIndexSQL, t.oid).Scan(&unique)
	switch {
	case err == nil:
		columns = unique
	case !errors.Is(err, pgx.ErrNoRows):
		e.s.Unseen(e.r, err, checkKeys)
		return nil
	case plan.Relation.Column("id") < 0:
		columns = []string{plan.Relation.Columns[0].Name}
	}
	for i := range columns {
		columns[i] = schemas.QuoteIdent(columns[i])
	}
	e.r.Fail(checkKeys, doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "ownership of the table",
		Text: fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (%s)", t.name, strings.Join(columns, ", ")),
		Note: "if these tell its rows apart; it keeps everybody out while it builds an index"}},
		"table %s has no primary key, and the catalog names none for %s: %s", t.name, plan.Schema.Name, what)
	return nil
}

// fields tells of fields that are absent from every event, besides those that
// were told of already.
func (e *examination) fields(plan *schemas.Plan, told []string) (missing []string) {
	for _, field := range plan.Schema.Fields {
		if plan.Relation.Column(field.Column) < 0 && !slices.Contains(told, field.Column) {
			missing = append(missing, field.Column)
		}
	}
	if len(missing) > 0 {
		e.r.Warn(checkFields, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
			Note: "in a file for --catalog: the fields are left out; or map them, as field: column"}},
			"table %s has no column %s: absent from every %s", plan.Relation.Table(), strings.Join(missing, ", "), plan.Schema.Name)
	}
	return missing
}

// ruleColumns tells of columns that only the rules of the catalog ask for.
func (e *examination) ruleColumns(plan *schemas.Plan, told []string) {
	var missing []string
	for _, column := range plan.Missing {
		if !slices.Contains(told, column) && !slices.Contains(missing, column) {
			missing = append(missing, column)
		}
	}
	if len(missing) > 0 {
		e.r.Warn(checkFields, e.renamed(plan.Relation, missing, doctor.Steps{{Kind: doctor.Catalog, Text: "derive: …",
			Note: "name the column as it is, or take out the rules that ask for it"}}),
			"table %s has no column %s, which rules under derive ask for", plan.Relation.Table(), strings.Join(missing, ", "))
	}
}
