package source

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// keyFault says why the stream has no key of a table's records, and how to give them
// one.
type keyFault struct {
	problem string
	unsent  []string // columns of the primary key that are not sent
	steps   doctor.Steps
}

// undistinguished is the consequence of a table without a key.
const undistinguished = "walhook cannot identify its records, keep their order, or find owners through them"

const (
	// uniqueColumnsSQL lists the sets of columns that identify a table's rows: its
	// primary key first, then the shortest.
	uniqueColumnsSQL = `
		SELECT array_agg(a.attname::text ORDER BY a.attnum), bool_or(i.indisprimary) FROM pg_index i
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0 : i.indnkeyatts - 1])
		WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
		GROUP BY i.indexrelid HAVING bool_and(a.attnotnull) ORDER BY bool_or(i.indisprimary) DESC, count(*), 1`

	// generatedFromSQL lists the generated columns of a table, the columns that each is
	// computed from, and whether all of those are NOT NULL.
	generatedFromSQL = `
		SELECT g.attname::text, coalesce(array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attnum IS NOT NULL), '{}'),
			coalesce(bool_and(a.attnotnull), true), g.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000
		FROM pg_attribute g
		` + computedFromSQL + `
		LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE g.attrelid = $1 AND g.attnum > 0 AND NOT g.attisdropped AND g.attgenerated <> ''
		GROUP BY g.attnum, g.attname, g.attgenerated`
)

// generatedFrom says what a generated column is computed from.
type generatedFrom struct {
	columns     []string
	notNull     bool
	publishable bool // the server can send it
}

// findKey finds that a table's records have no key in the stream, and which columns could
// be one.
func (t *tableState) findKey(ctx context.Context, q querier, cfg Config, plan *catalog.Plan) error {
	if plan == nil || plan.Schema == nil || len(plan.Schema.Key) > 0 || len(plan.KeyColumns()) > 0 {
		return nil
	}
	var uniques [][]string
	var primary []string
	rows, err := q.Query(ctx, uniqueColumnsSQL, t.oid)
	if err == nil {
		var columns []string
		var isPrimary bool
		_, err = pgx.ForEachRow(rows, []any{&columns, &isPrimary}, func() error {
			if isPrimary {
				primary = slices.Clone(columns)
			} else {
				uniques = append(uniques, slices.Clone(columns))
			}
			return nil
		})
	}
	generated := map[string]generatedFrom{}
	if err == nil {
		rows, err = q.Query(ctx, generatedFromSQL, t.oid)
	}
	if err == nil {
		var name string
		var from generatedFrom
		_, err = pgx.ForEachRow(rows, []any{&name, &from.columns, &from.notNull, &from.publishable}, func() error {
			generated[name] = generatedFrom{slices.Clone(from.columns), from.notNull, from.publishable}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read the key of %s: %w", t.name, err)
	}
	sent := func(column string) bool { return plan.Relation.Column(column) >= 0 }
	uniques = slices.DeleteFunc(uniques, func(columns []string) bool {
		return slices.ContainsFunc(columns, func(column string) bool { return !sent(column) })
	})
	if len(primary) == 0 {
		t.key = t.noKey(plan, uniques)
		return nil
	}
	unsent := slices.DeleteFunc(slices.Clone(primary), sent)
	if len(unsent) == 0 {
		return nil // it changed meanwhile
	}
	// The columns that a generated one is computed from identify rows as it does.
	decided, able := slices.DeleteFunc(slices.Clone(primary), func(c string) bool { return !sent(c) }), true
	for _, column := range unsent {
		from, ok := generated[column]
		able = able && ok && from.notNull && !slices.ContainsFunc(from.columns, func(c string) bool { return !sent(c) })
		for _, c := range from.columns {
			if !slices.Contains(decided, c) {
				decided = append(decided, c)
			}
		}
	}
	if able && len(decided) > 0 {
		uniques = append([][]string{decided}, uniques...)
	}
	t.key = t.cutKey(cfg, plan, unsent, generated, uniques)
	return nil
}

// noKey makes the fault of a table without a primary key.
func (t *tableState) noKey(plan *catalog.Plan, uniques [][]string) *keyFault {
	columns := []string{"id"}
	switch {
	case len(uniques) > 0:
		columns = slices.Clone(uniques[0])
	case plan.Relation.Column("id") < 0 && len(plan.Relation.Columns) > 0:
		columns = []string{plan.Relation.Columns[0].Name}
	}
	for i := range columns {
		columns[i] = schemas.QuoteIdent(columns[i])
	}
	return &keyFault{
		problem: fmt.Sprintf("table %s has no primary key, and the catalog names none for %s: %s", t.name, plan.Schema.Name, undistinguished),
		steps: doctor.Steps{{Kind: doctor.SQL, On: onSource, Needs: "ownership of the table",
			Text: fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (%s)", t.name, strings.Join(columns, ", ")),
			Note: "if these columns are unique; it locks the table exclusively while it builds an index"}},
	}
}

// cutKey makes the fault of a table whose primary key has columns that are not sent. If
// other columns identify its rows too, the catalog can name them; otherwise the columns
// must be sent.
func (t *tableState) cutKey(cfg Config, plan *catalog.Plan, unsent []string, generated map[string]generatedFrom, uniques [][]string) *keyFault {
	fault := &keyFault{unsent: unsent, problem: fmt.Sprintf("the source does not send columns of the primary key of table %s (%s: generated, or left out by a column list): nothing of %s is sent",
		t.name, strings.Join(unsent, ", "), plan.Schema.Name)}
	for _, column := range unsent {
		if generated[column].publishable {
			fault.steps = doctor.Ask(onSource, "ownership of the publication", publishGeneratedSQL(cfg.Publication))
			return fault
		}
	}
	if cfg.Catalog.IsParent(plan.Schema) { // its children refer to it by one column
		uniques = slices.DeleteFunc(uniques, func(columns []string) bool { return len(columns) != 1 })
	}
	if len(uniques) > 0 {
		named := *plan.Schema
		named.Key = uniques[0]
		with := *plan
		with.Schema = &named
		fault.steps = doctor.Steps{{Kind: doctor.Catalog, Text: entry(&with),
			Note: "with a unique key of columns that are sent, in a file for --catalog"}, setupAgain()}
		return fault
	}
	for _, column := range unsent {
		if _, ok := generated[column]; !ok {
			fault.steps = append(fault.steps, publishAgain(cfg.Publication, t.name, "without the column list")...)
			break
		}
		fault.steps = append(fault.steps, doctor.Step{Kind: doctor.SQL, On: onSource, Needs: "ownership of the table",
			Text: fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION", t.name, schemas.QuoteIdent(column)),
			Note: "then the column is sent, and a trigger or the application must fill it; PostgreSQL 18 and newer can send it as it is"})
	}
	return fault
}

// publishAgain publishes a table without column list and row filter. It drops and adds the
// table in one transaction: a reader that looks in between would find it missing.
func publishAgain(publication string, table schemas.TableName, note string) doctor.Steps {
	return doctor.Steps{{Kind: doctor.SQL, On: onSource, Needs: "ownership of the publication and of the table", Note: note,
		Text: fmt.Sprintf("BEGIN; ALTER PUBLICATION %[1]s DROP TABLE %[2]s; ALTER PUBLICATION %[1]s ADD TABLE %[2]s; COMMIT",
			schemas.QuoteIdent(publication), table)}}
}

// fix says in one line how to give the table a key.
func (f *keyFault) fix() string {
	texts := make([]string, len(f.steps))
	for i, step := range f.steps {
		texts[i] = step.Text
	}
	return strings.Join(texts, "; then ")
}
