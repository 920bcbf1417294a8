package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// catalogReader asks the source's catalog, over an ordinary session, for what
// the stream does not say.
type catalogReader struct {
	conn  *pgx.Conn
	types *schemas.Types // the built-in ones; never added to
}

func newCatalogReader(ctx context.Context, cfg Config) (*catalogReader, error) {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &catalogReader{conn: conn, types: schemas.NewTypes()}, nil
}

func (r *catalogReader) close(ctx context.Context) { closeConn(ctx, r.conn) }

// describe completes a relation with its primary key and its types. before is
// the relation's shape until now, or nil.
//
// Under DEFAULT the key flags are the primary key as it was at the time. Under
// FULL and INDEX they are not, so that today's catalog is asked; a table that
// is gone by now keeps the key that it had.
func (r *catalogReader) describe(ctx context.Context, relation, before *schemas.Relation) (fluid []schemas.TypeRow, err error) {
	if relation.Identity == schemas.IdentityFull {
		if err := distrustPartitions(ctx, r.conn, relation); err != nil {
			return nil, err
		}
	}
	if relation.Identity == schemas.IdentityDefault {
		for i, column := range relation.Columns {
			if column.Key {
				relation.PrimaryKey = append(relation.PrimaryKey, i)
			}
		}
		return r.describeTypes(ctx, relation)
	}
	today := &schemas.Relation{OID: relation.OID}
	if err := readColumns(ctx, r.conn, today); err != nil {
		return nil, fmt.Errorf("read the primary key of %s: %w", relation.Table(), err)
	}
	if relation.PrimaryKey = keyOf(relation, today); relation.PrimaryKey == nil && before != nil {
		relation.PrimaryKey = keyOf(relation, before)
	}
	return r.describeTypes(ctx, relation)
}

// describeTypes gives a relation the types of its columns. fluid is what was
// learnt, if any of it is composite: ALTER TYPE can change that without a word
// in the stream.
func (r *catalogReader) describeTypes(ctx context.Context, relation *schemas.Relation) (fluid []schemas.TypeRow, err error) {
	var unknown []uint32
	for _, column := range relation.Columns {
		if !r.types.Known(column.Type) {
			unknown = append(unknown, column.Type)
		}
	}
	relation.Types = r.types
	if len(unknown) == 0 {
		return nil, nil
	}
	rows, err := r.conn.Query(ctx, schemas.TypesQuery, unknown)
	var learnt []schemas.TypeRow
	if err == nil {
		learnt, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.TypeRow])
	}
	if err != nil {
		return nil, fmt.Errorf("read the types of %s: %w", relation.Table(), err)
	}
	relation.Types = schemas.NewTypes()
	for _, row := range learnt {
		relation.Types.Add(row.Type())
		if len(row.AttributeNames) > 0 {
			fluid = learnt
		}
	}
	return fluid, nil
}
