package source

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// gapSource reads, under the snapshot that ends a gap, the keys and accounts of all
// records, and then the rows of those that were missed. It is a [catalog.GapSource].
type gapSource struct {
	rows *Rows
	each func(ctx context.Context, tx pgx.Tx, sql string, f func([][]byte) error) error // shows progress
}

// Plan is the catalog bound to a schema's table.
func (g *gapSource) Plan(schema string) *catalog.Plan {
	table := g.rows.tables[schema]
	if table == nil || table.refused != "" {
		return nil
	}
	if _, ok := g.rows.chain(table); !ok {
		return nil
	}
	return table.plan
}

// records calls f with every record of a schema, and says which of them the publication's
// row filter hides. The account of one whose parent is not in the source is not known
// here: then its parent's key is.
func (g *gapSource) records(ctx context.Context, schema string, f func(catalog.Record) error) error {
	table := g.rows.tables[schema]
	chain, _ := g.rows.chain(table)
	plan, last := table.plan, chain[len(chain)-1]
	keys := plan.KeyColumns()
	var columns []int
	for i, column := range plan.Relation.Columns {
		if slices.Contains(keys, column.Name) || column.Name == plan.Schema.Owner.Column {
			columns = append(columns, i)
		}
	}
	from := new(strings.Builder)
	names, hidden := []string{table.xmin() + ` AS "walhook xmin"`}, "false"
	for _, i := range columns {
		names = append(names, schemas.QuoteIdent(plan.Relation.Columns[i].Name))
	}
	if where := table.published(); where != "" {
		hidden = "coalesce(" + where + ", false) IS FALSE" // a filter is passed if it is true
	}
	fmt.Fprintf(from, `(SELECT %s, %s AS "walhook hidden" FROM %s) AS t0`, strings.Join(names, ", "), hidden, plan.Schema.Table)
	found := "true"
	for i, child := range chain[:len(chain)-1] {
		found = fmt.Sprintf("t%d.%s IS NOT NULL", i+1, schemas.QuoteIdent(chain[i+1].plan.KeyColumns()[0]))
		fmt.Fprintf(from, " LEFT JOIN %s AS t%d ON %s", chain[i+1].plan.Schema.Table, i+1, joins(child.plan, chain[i+1].plan, i))
	}
	owner := last.plan.Relation
	ownerAt := owner.Column(last.plan.Schema.Owner.Column)
	selected := []string{fmt.Sprintf("t%d.%s", len(chain)-1, schemas.QuoteIdent(last.plan.Schema.Owner.Column)), found, `t0."walhook xmin"`, `t0."walhook hidden"`}
	for _, i := range columns {
		selected = append(selected, "t0."+schemas.QuoteIdent(plan.Relation.Columns[i].Name))
	}
	return g.each(ctx, g.rows.tx, "SELECT "+strings.Join(selected, ", ")+" FROM "+from.String(), func(values [][]byte) error {
		var row Row
		row.read(plan, columns, values[4:])
		one := catalog.Record{OwnerEdge: schemas.OwnerEdge{Schema: schema}, Hidden: string(values[3]) == "t"}
		var ok bool
		if one.Key, ok = plan.Key(row.Tuple); !ok {
			return nil // the stream sends nobody such a row
		}
		xmin, err := strconv.ParseUint(string(values[2]), 10, 32)
		if err != nil {
			return fmt.Errorf("read a row's xmin: %w", err)
		}
		one.Xmin = uint32(xmin)
		switch parent, carried := plan.OwnerKey(row.Tuple); {
		case !carried:
			return nil // nor one whose owner is not comparable
		case string(values[1]) == "f" && !plan.OwnerNull(row.Tuple):
			one.Orphan, one.Parent = true, parent
		case values[0] != nil:
			account, ok := owner.AccountIDs.NormalOf(owner.Columns[ownerAt].Equality, Legible(values[0]))
			if !ok {
				return nil
			}
			one.Account = string(account)
		}
		return f(one)
	})
}

// joins is the condition that joins the i-th table of a chain to its parent's.
func joins(child, parent *catalog.Plan, i int) string {
	key := parent.Relation.Columns[parent.Relation.Column(parent.KeyColumns()[0])]
	column := child.Relation.Columns[child.Relation.Column(child.Schema.Owner.Column)]
	left, right := fmt.Sprintf("t%d.%s", i+1, schemas.QuoteIdent(key.Name)), fmt.Sprintf("t%d.%s", i, schemas.QuoteIdent(column.Name))
	if !comparableTypes(key, column) {
		left, right = textOf(left, key), textOf(right, column)
	}
	return left + " OPERATOR(pg_catalog.=) " + right
}

// Rows calls f with the whole rows of a schema.
func (g *gapSource) Rows(ctx context.Context, schema string, since schemas.Visible, changed bool, f func(key string, row schemas.Tuple) error) error {
	table := g.rows.tables[schema]
	columns := rowColumns(g.rows.cfg.Catalog.Schema(schema), table.plan, g.rows.cfg.Catalog)
	var selected []string
	for _, i := range columns {
		selected = append(selected, "t0."+schemas.QuoteIdent(table.plan.Relation.Columns[i].Name))
	}
	sql := "SELECT " + strings.Join(selected, ", ") + " FROM " + table.from(columns) + " AS t0"
	if changed {
		sql += " WHERE " + writtenSince(since)
	}
	return g.each(ctx, g.rows.tx, sql, func(values [][]byte) error {
		var row Row
		row.read(table.plan, columns, values)
		key, ok := table.plan.Key(row.Tuple)
		if !ok {
			return nil
		}
		return f(key, row.Tuple)
	})
}

const columnTypesSQL = `
	SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped`

// KeyRows makes rows of keys. The normal form of a char(n), or of a number that is not
// whole, is not what the table shows, so the server casts it.
func (g *gapSource) KeyRows(ctx context.Context, schema string, keys [][][]byte) ([]schemas.Tuple, error) {
	plan := g.rows.tables[schema].plan
	relation := plan.Relation
	var at []int
	var casts []int // indexes into at
	for _, name := range plan.KeyColumns() {
		i := relation.Column(name)
		whole := slices.Contains([]uint32{20, 21, 23, 26}, relation.Columns[i].Type) // int8, int2, int4, oid
		if e := relation.Columns[i].Equality; e == schemas.EqualPadded || e == schemas.EqualNumber && !whole {
			casts = append(casts, len(at))
		}
		at = append(at, i)
	}
	if len(casts) > 0 && len(keys) > 0 {
		if err := g.cast(ctx, relation, at, casts, keys); err != nil {
			return nil, err
		}
	}
	rows := make([]schemas.Tuple, len(keys))
	for n, texts := range keys {
		rows[n] = make(schemas.Tuple, len(relation.Columns))
		for j, i := range at {
			rows[n][i] = schemas.Value{State: schemas.Text, Text: texts[j]}
		}
	}
	return rows, nil
}

// cast replaces texts of keys by those that the table's types give.
func (g *gapSource) cast(ctx context.Context, relation *schemas.Relation, at, casts []int, keys [][][]byte) error {
	types := map[string]string{}
	rows, err := g.rows.tx.Query(ctx, columnTypesSQL, relation.OID)
	if err == nil {
		var name, typ string
		_, err = pgx.ForEachRow(rows, []any{&name, &typ}, func() error { types[name] = typ; return nil })
	}
	if err != nil {
		return fmt.Errorf("read the types of key columns: %w", err)
	}
	var selected, values []string
	for _, j := range casts {
		selected = append(selected, fmt.Sprintf("k.c%d::%s", j, types[relation.Columns[at[j]].Name]))
	}
	for n, texts := range keys {
		one := []string{strconv.Itoa(n)}
		for _, j := range casts {
			one = append(one, quoteLiteral(string(texts[j])))
		}
		values = append(values, "("+strings.Join(one, ", ")+")")
	}
	names := []string{"n"}
	for _, j := range casts {
		names = append(names, fmt.Sprintf("c%d", j))
	}
	sql := "SELECT " + strings.Join(selected, ", ") + " FROM (VALUES " + strings.Join(values, ", ") + ") AS k (" + strings.Join(names, ", ") + ") ORDER BY k.n"
	n := 0
	return forEachRow(ctx, g.rows.tx.Conn().PgConn(), sql, func(values [][]byte) error {
		for i, j := range casts {
			keys[n][j] = slices.Clone(values[i])
		}
		n++
		return nil
	})
}
