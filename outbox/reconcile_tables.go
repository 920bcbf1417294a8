package outbox

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

const formerTablesSQL = `
	SELECT DISTINCT ON (name) name, relation::text, from_lsn::text, coalesce(description::text, '') FROM walhook.table_description
	ORDER BY name, from_lsn DESC`

// formerTable is a table of the source before the gap.
type formerTable struct {
	oid         uint32
	description *catalog.TableDescription // nil where it cannot be read
}

// formerTables reads the source's tables by the names that they had last.
func formerTables(ctx context.Context, tx pgx.Tx) (map[string]formerTable, error) {
	tables := map[string]formerTable{}
	rows, err := tx.Query(ctx, formerTablesSQL)
	if err == nil {
		var name, relation, from, text string
		_, err = pgx.ForEachRow(rows, []any{&name, &relation, &from, &text}, func() error {
			oid, err := strconv.ParseUint(relation, 10, 32)
			if err != nil {
				return err
			}
			one := formerTable{oid: uint32(oid)}
			if d, ok := readDescription(relation, from, text); ok {
				one.description = d
			}
			tables[name] = one
			return nil
		})
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

// Former implements [catalog.GapSink]. A table that has got another name is the same one.
func (r *reconciliation) Former(schema *catalog.Schema) (relation uint32, known bool) {
	name := schema.Table
	if r.former != nil {
		if was := r.former.Schema(schema.Name); was != nil {
			name = was.Table
		}
	}
	one, known := r.tables[schemas.Storable(name.String())]
	return one.oid, known
}
