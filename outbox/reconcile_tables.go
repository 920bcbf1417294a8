package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

const formerTablesSQL = `SELECT DISTINCT ON (name) name, relation::bigint FROM walhook.table_description ORDER BY name, from_lsn DESC`

// formerTables reads the OIDs of the source's tables by the names that they had last.
func formerTables(ctx context.Context, tx pgx.Tx) (map[string]uint32, error) {
	tables := map[string]uint32{}
	rows, err := tx.Query(ctx, formerTablesSQL)
	if err == nil {
		var name string
		var relation int64
		_, err = pgx.ForEachRow(rows, []any{&name, &relation}, func() error { tables[name] = uint32(relation); return nil })
	}
	if err != nil {
		return nil, fmt.Errorf("read which tables there were: %w", err)
	}
	return tables, nil
}

// Since implements [catalog.GapSink].
func (r *reconciliation) Since() schemas.Visible {
	if r.all {
		return schemas.Visible{Xmax: r.since.Xmax}
	}
	return r.since
}

// Former implements [catalog.GapSink].
func (r *reconciliation) Former(table schemas.TableName) (relation uint32, known bool) {
	relation, known = r.tables[schemas.Storable(table.String())]
	return relation, known
}
