package source

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// A table of rows is the table of results or that of events: its rows are sent once, when
// they are inserted, and so are told from each other rather than compared.

// tableOf is a table of rows as the publication has it; nil where the source or the
// publication has none.
func (r *Rows) tableOf(ctx context.Context, of catalog.RowTable) (*rowTable, error) {
	d := r.find(r.cfg.Catalog.RowTable(of))
	if d == nil {
		return nil, nil
	}
	table := &rowTable{}
	if err := table.bind(ctx, r.tx, r.cfg, d, r.find); err != nil {
		return nil, err
	}
	if len(table.filters) == 0 || table.plan == nil || table.plan.RowTable() != of {
		return nil, nil
	}
	return table, nil
}

// digests calls f with the digest of every row of a table of rows.
func (g *gapSource) digests(ctx context.Context, of catalog.RowTable, f func(digest [16]byte) error) error {
	table, err := g.rows.tableOf(ctx, of)
	if table == nil {
		return err
	}
	relation := table.plan.Relation
	columns := relation.PrimaryKey
	if len(columns) == 0 || relation.KeyCut {
		columns = allColumns(relation)
	}
	return g.readTable(ctx, table, columns, "", func(row schemas.Tuple) error {
		digest, ok := table.plan.RowDigest(row)
		if !ok {
			return nil
		}
		return f(digest)
	})
}

// TableRows implements [catalog.GapSource].
func (g *gapSource) TableRows(ctx context.Context, of catalog.RowTable, since schemas.Visible, f func(plan *catalog.Plan, row schemas.Tuple) error) error {
	table, err := g.rows.tableOf(ctx, of)
	if table == nil {
		return err
	}
	order, err := rowOrder(ctx, g.rows.tx, table.plan.Relation, since.Xmax)
	if err != nil {
		return err
	}
	return g.readTable(ctx, table, allColumns(table.plan.Relation), " WHERE "+writtenSince(since)+" ORDER BY "+order, func(row schemas.Tuple) error {
		return f(table.plan, row)
	})
}

func allColumns(relation *schemas.Relation) (columns []int) {
	for i := range relation.Columns {
		columns = append(columns, i)
	}
	return columns
}

// readTable reads some columns of what the publication holds of a table.
func (g *gapSource) readTable(ctx context.Context, table *rowTable, columns []int, rest string, f func(row schemas.Tuple) error) error {
	var selected []string
	for _, i := range columns {
		selected = append(selected, "t0."+schemas.QuoteIdent(table.plan.Relation.Columns[i].Name))
	}
	sql := "SELECT " + strings.Join(selected, ", ") + " FROM " + table.from(columns) + " AS t0" + rest
	return g.each(ctx, g.rows.tx, sql, func(values [][]byte) error {
		var row Row
		row.read(table.plan, columns, values)
		return f(row.Tuple)
	})
}

const commitTimesSQL = `SELECT pg_catalog.current_setting('track_commit_timestamp') = 'on'`

// rowOrder is SQL for the order of rows. The server knows the times of commits if it tracks
// them, and only of those since it does.
func rowOrder(ctx context.Context, tx pgx.Tx, relation *schemas.Relation, xmax uint64) (string, error) {
	var times bool
	if err := tx.QueryRow(ctx, commitTimesSQL).Scan(&times); err != nil {
		return "", fmt.Errorf("ask whether the source tracks the times of commits: %w", err)
	}
	var order []string
	if times {
		order = append(order, `pg_catalog.pg_xact_commit_timestamp(t0."walhook xmin") NULLS FIRST`)
	}
	if key := relation.PrimaryKey; len(key) == 1 && !relation.KeyCut && slices.Contains([]uint32{20, 21, 23}, relation.Columns[key[0]].Type) {
		order = append(order, "t0."+schemas.QuoteIdent(relation.Columns[key[0]].Name))
	}
	return strings.Join(append(order, xminAge(xmax)+" DESC"), ", "), nil
}

// xminAge is SQL for how many transactions ago a row was written, modulo 2^32.
func xminAge(xmax uint64) string {
	return fmt.Sprintf(`(%d - t0."walhook xmin"::pg_catalog.text::pg_catalog.int8 + 4294967296) %% 4294967296`, xmax&0xffffffff)
}

// writtenSince is SQL for [schemas.ChangedSince], but for rows of special transactions.
func writtenSince(since schemas.Visible) string {
	return fmt.Sprintf("%s <= %d", xminAge(since.Xmax), since.Xmax-since.Xmin)
}
