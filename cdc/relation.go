package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

const relationSQL = `
	SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

// readRelation reads a table's shape as it is now, or under the transaction's
// snapshot, as pgoutput would describe it; nil when there is no such table.
func readRelation(ctx context.Context, q querier, publication string, name schemas.TableName) (*schemas.Relation, error) {
	var oid uint32
	err := q.QueryRow(ctx, relationSQL, name.Namespace, name.Name).Scan(&oid)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	var list []*catalog.TableDescription
	if err == nil {
		list, err = describe(ctx, q, publication, oid)
	}
	if err != nil {
		return nil, fmt.Errorf("look at table %s: %w", name, err)
	}
	if len(list) == 0 {
		return nil, nil // gone since
	}
	return relationOf(list[0]), nil
}

// relationOf is a described table as pgoutput would describe it: dropped
// columns are not sent, and generated ones only where they are published. The
// key flag is that of the replica identity.
func relationOf(d *catalog.TableDescription) *schemas.Relation {
	r := &schemas.Relation{OID: d.OID, Namespace: d.Namespace, Name: d.Name, Identity: d.Identity}
	for _, column := range d.Columns {
		if !column.Unsent {
			r.Columns = append(r.Columns, schemas.Column{
				Name: column.Name, Type: column.Type, Key: column.Identity || d.Identity == schemas.IdentityFull, Equality: column.Equality,
			})
		}
	}
	r.PrimaryKey, r.KeyCut = d.PrimaryKeyOf(r)
	r.IdentityCut = d.IdentityCutOf(r)
	return r
}
