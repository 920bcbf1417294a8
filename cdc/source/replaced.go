package source

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Rows show by their xmin that they changed in a gap, if they were in the table before it.
// A table that took another's name in the gap, and a partition or child that was attached
// in it, bring rows whose age says nothing: they were written elsewhere, at any time.

// replacedTables are the tables among those of a schema that took the place of others in a
// gap, and newest is the last transaction of that.
type replacedTables struct {
	replaced []uint32
	newest   uint32
}

// replacedSQL lists, of a table and of all its partitions and children, those that came
// there in the gap. $2 says that the table itself did.
func replacedSQL(since schemas.Visible) string {
	return fmt.Sprintf(`
		WITH RECURSIVE part AS (
			SELECT $1::pg_catalog.oid AS relation, $2::pg_catalog.bool AS replaced
			UNION
			SELECT i.inhrelid, p.replaced OR (%d - i.xmin::pg_catalog.text::pg_catalog.int8 + 4294967296) %% 4294967296 <= %d
			FROM part p JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) p.relation)
		SELECT DISTINCT relation FROM part WHERE replaced`, since.Xmax&0xffffffff, since.Xmax-since.Xmin)
}

// findReplaced notes which tables a schema's rows were not in before the gap.
func (l *snapshotLoad) findReplaced(ctx context.Context, source *gapSource, gap catalog.GapSink) error {
	since := gap.Since()
	if since.Xmin == 0 || since.Xmax <= since.Xmin {
		return nil // all rows count as changed, or none can be
	}
	for _, schema := range l.cfg.Catalog.Schemas {
		if source.Plan(schema.Name) == nil {
			continue
		}
		table := source.rows.tables[schema.Name]
		relation := table.plan.Relation.OID
		former, known := gap.Former(schema)
		rows, err := source.rows.tx.Query(ctx, replacedSQL(since), relation, known && former != relation)
		if err == nil {
			table.replaced, err = pgx.CollectRows(rows, pgx.RowTo[uint32])
		}
		if err != nil {
			return fmt.Errorf("read which partitions of %s are new: %w", schema.Table, err)
		}
		if len(table.replaced) > 0 {
			table.newest = uint32(since.Xmax - 1)
			l.log.Warn("a table, or partitions of it, took the place of others in the gap: their records are sent as updates, but for those whose last event says the same",
				zap.String("schema", schema.Name), zap.Stringer("table", schema.Table), zap.Int("tables", len(table.replaced)))
		}
	}
	return nil
}

// xmin is SQL for the transaction that wrote a row: for one whose age says nothing, the
// newest.
func (t *replacedTables) xmin() string {
	if len(t.replaced) == 0 {
		return "xmin"
	}
	list := make([]string, len(t.replaced))
	for i, relation := range t.replaced {
		list[i] = fmt.Sprint(relation)
	}
	return fmt.Sprintf("CASE WHEN tableoid OPERATOR(pg_catalog.=) ANY ('{%s}'::pg_catalog.oid[]) THEN '%d'::pg_catalog.xid ELSE xmin END", strings.Join(list, ","), t.newest)
}
