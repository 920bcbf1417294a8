package cdc

import (
	"context"
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
	relation, err := readRelation(ctx, e.s, t.name)
	if err != nil || relation == nil { // gone since
		if err != nil {
			e.s.Unseen(e.r, err, checkColumns)
		}
		return
	}
	if a := e.cfg.Catalog.Account; a.Table == t.name {
		e.accountColumns(a, relation)
	}
	schema := e.cfg.Catalog.SchemaOf(t.name)
	if schema == nil {
		return
	}
	if relation.Column(schema.Owner.Column) < 0 {
		e.r.Fail(checkColumns, doctor.Steps{{Kind: doctor.Catalog, Text: entry(schema, relation), Note: "with the column that holds the owner, in a file for --catalog"}, setupAgain()},
			"table %s has no column %q, which says whose its rows are: nothing of it is sent", t.name, schema.Owner.Column)
	}
	e.keys(ctx, t, schema, relation)
	e.fields(t, schema, relation)
}

func (e *examination) accountColumns(a schemas.AccountTable, relation *schemas.Relation) {
	for _, column := range []struct {
		name, key string
		needed    bool
	}{{a.ID, "id", true}, {a.URL, "url", true}, {a.Parent, "parent", false}, {a.Secret, "secret", false}} {
		if column.name == "" || relation.Column(column.name) >= 0 {
			continue
		}
		text := "account: {" + column.key + ": COLUMN}"
		mend := doctor.Steps{{Kind: doctor.Catalog, Text: text, Note: "with its name in the table, in a file for --catalog"}, setupAgain()}
		if column.needed {
			// Its type is the catalog's to say: any text will do for a URL.
			if column.key == "url" {
				mend = doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "ownership of the table",
					Text: fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s text", a.Table, schemas.QuoteIdent(column.name)),
					Note: "or name the column that holds it in the catalog file, as account.url"}}
			}
			e.r.Fail(checkColumns, mend, "account table %s has no column %q (account.%s of the catalog)", a.Table, column.name, column.key)
			continue
		}
		if column.key == "parent" {
			mend[0].Text, mend[0].Note = "account: {parent: null}", "take it out of the catalog file, or give it its name"
		}
		e.r.Warn(checkColumns, mend, "account table %s has no column %q (account.%s of the catalog): it is left out", a.Table, column.name, column.key)
	}
}

func setupAgain() doctor.Step { return acceptGap("once walhook was set up")[0] }

const uniqueIndexSQL = `
	SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i
	JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
	WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
		AND i.indnatts = i.indnkeyatts
	GROUP BY i.indexrelid HAVING bool_and(a.attnotnull) ORDER BY count(*), 1 LIMIT 1`

// keys tells of a schema whose records cannot be told apart.
func (e *examination) keys(ctx context.Context, t tableState, schema *schemas.Schema, relation *schemas.Relation) {
	plan := e.cfg.Catalog.Bind(relation)
	if n := len(plan.KeyColumns()); n > 0 && n >= len(schema.Key) {
		return
	}
	var missing []string
	for _, column := range schema.Key {
		if relation.Column(column) < 0 {
			missing = append(missing, column)
		}
	}
	const what = "records cannot be told apart, their order is not kept and nobody owned through them is found"
	if len(missing) > 0 {
		e.r.Fail(checkKeys, doctor.Steps{{Kind: doctor.Catalog, Text: entry(schema, relation), Note: "with the key's columns, in a file for --catalog"}, setupAgain()},
			"table %s has no column %s of the key of %s: %s", t.name, strings.Join(missing, ", "), schema.Name, what)
		return
	}
	columns := []string{"id"}
	var unique []string
	err := e.s.QueryRow(ctx, uniqueIndexSQL, t.oid).Scan(&unique)
	switch {
	case err == nil:
		columns = unique
	case err != pgx.ErrNoRows:
		e.s.Unseen(e.r, err, checkKeys)
		return
	case relation.Column("id") < 0:
		columns = []string{relation.Columns[0].Name}
	}
	for i := range columns {
		columns[i] = schemas.QuoteIdent(columns[i])
	}
	e.r.Fail(checkKeys, doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "ownership of the table",
		Text: fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (%s)", t.name, strings.Join(columns, ", ")),
		Note: "if these tell its rows apart; it keeps everybody out while it builds an index"}},
		"table %s has no primary key, and the catalog names none for %s: %s", t.name, schema.Name, what)
}

// fields tells of fields that are absent from every event.
func (e *examination) fields(t tableState, schema *schemas.Schema, relation *schemas.Relation) {
	var missing []string
	for _, field := range schema.Fields {
		if relation.Column(field.Column) < 0 && field.Column != schema.Owner.Column {
			missing = append(missing, schemas.QuoteIdent(field.Column))
		}
	}
	if len(missing) > 0 {
		e.r.Warn(checkFields, doctor.Steps{{Kind: doctor.Catalog, Text: entry(schema, relation), Note: "in a file for --catalog: the fields are left out; or map them, as field: column"}},
			"table %s has no column %s: absent from every %s", t.name, strings.Join(missing, ", "), schema.Name)
	}
}

// entry is a schema's entry of a catalog file with the fields that the table
// has.
func entry(s *schemas.Schema, relation *schemas.Relation) string {
	var fields []string
	plain := true
	for _, f := range s.Fields {
		if relation.Column(f.Column) >= 0 {
			plain = plain && f.Name == f.Column
			fields = append(fields, quoteYAML(f.Name)+": "+quoteYAML(f.Column))
		}
	}
	list := "{" + strings.Join(fields, ", ") + "}"
	if plain {
		for i, text := range fields {
			fields[i], _, _ = strings.Cut(text, ": ")
		}
		list = "[" + strings.Join(fields, ", ") + "]"
	}
	owner := quoteYAML(s.Owner.Column)
	if s.Owner.Schema != "" {
		owner = fmt.Sprintf("{column: %s, schema: %s}", owner, quoteYAML(s.Owner.Schema))
	}
	key := ""
	if len(s.Key) > 0 {
		quoted := slices.Clone(s.Key)
		for i := range quoted {
			quoted[i] = quoteYAML(quoted[i])
		}
		key = "key: [" + strings.Join(quoted, ", ") + "], "
	}
	return fmt.Sprintf("schemas: {%s: {table: %s, %sowner: %s, fields: %s}}", quoteYAML(s.Name), quoteYAML(s.Table.String()), key, owner, list)
}

// quoteYAML writes a name as YAML takes it.
func quoteYAML(name string) string {
	if schemas.QuoteIdent(name) == name && !slices.Contains([]string{"y", "n", "yes", "no", "on", "off"}, name) {
		return name
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.") == "" && strings.Contains(name, ".") {
		return name // a table's qualified name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
