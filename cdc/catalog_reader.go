package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

const primaryKeySQL = `
	SELECT a.attname::text
	FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
		AND a.attnum = ANY ((i.indkey::int2[])[0 : i.indnkeyatts - 1]) -- what follows is only INCLUDEd
	WHERE i.indrelid = $1 AND i.indisprimary`

// describe completes a relation with its primary key and its types. before is
// the relation's shape until now, or nil.
//
// Under DEFAULT the key flags are the primary key as it was at the time. Under
// FULL and INDEX they are not, so that today's catalog is asked; a table that
// is gone by now keeps the key that it had.
func (r *catalogReader) describe(ctx context.Context, relation, before *schemas.Relation) error {
	var names []string
	if relation.Identity == schemas.IdentityDefault {
		for _, column := range relation.Columns {
			if column.Key {
				names = append(names, column.Name)
			}
		}
	} else {
		var err error
		rows, err := r.conn.Query(ctx, primaryKeySQL, relation.OID)
		if err == nil {
			names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("read the primary key of %s: %w", relation.Table(), err)
		}
		if len(names) == 0 && before != nil {
			for _, i := range before.PrimaryKey {
				names = append(names, before.Columns[i].Name)
			}
		}
	}
	relation.PrimaryKey = columnsNamed(relation, names)
	return r.describeTypes(ctx, relation)
}

// columnsNamed finds columns by name, in the relation's order; none if one is
// missing.
func columnsNamed(relation *schemas.Relation, names []string) []int {
	var found []int
	for i, column := range relation.Columns {
		if slices.Contains(names, column.Name) {
			found = append(found, i)
		}
	}
	if len(found) != len(names) {
		return nil
	}
	return found
}

func (r *catalogReader) describeTypes(ctx context.Context, relation *schemas.Relation) error {
	var unknown []uint32
	for _, column := range relation.Columns {
		if !r.types.Known(column.Type) {
			unknown = append(unknown, column.Type)
		}
	}
	relation.Types = r.types
	if len(unknown) == 0 {
		return nil
	}
	rows, err := r.conn.Query(ctx, schemas.TypesQuery, unknown)
	var learnt []schemas.TypeRow
	if err == nil {
		learnt, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.TypeRow])
	}
	if err != nil {
		return fmt.Errorf("read the types of %s: %w", relation.Table(), err)
	}
	relation.Types = schemas.NewTypes()
	for _, row := range learnt {
		relation.Types.Add(row.Type())
	}
	return nil
}

const (
	// An ordinary or partitioned table as pgoutput would describe it:
	// generated and dropped columns are not sent. The key flag is that of the
	// replica identity.
	relationSQL = `
		SELECT c.oid, c.relreplident::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

	columnsSQL = `
		SELECT a.attname::text, a.atttypid,
			coalesce(a.attnum = ANY ((identity.indkey::int2[])[0 : identity.indnkeyatts - 1]), false),
			coalesce(a.attnum = ANY ((pkey.indkey::int2[])[0 : pkey.indnkeyatts - 1]), false)
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		LEFT JOIN pg_index pkey ON pkey.indrelid = c.oid AND pkey.indisprimary
		LEFT JOIN pg_index identity ON identity.indrelid = c.oid
			AND CASE c.relreplident WHEN 'i' THEN identity.indisreplident WHEN 'd' THEN identity.indisprimary ELSE false END
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		ORDER BY a.attnum`
)

// readRelation reads a table's shape as it is under the transaction's
// snapshot; nil when there is no such table.
func readRelation(ctx context.Context, tx pgx.Tx, name schemas.TableName) (*schemas.Relation, error) {
	relation := &schemas.Relation{Namespace: name.Namespace, Name: name.Name}
	var identity string
	err := tx.QueryRow(ctx, relationSQL, name.Namespace, name.Name).Scan(&relation.OID, &identity)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at table %s: %w", name, err)
	}
	relation.Identity = schemas.ReplicaIdentity(identity[0])
	rows, err := tx.Query(ctx, columnsSQL, relation.OID)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", name, err)
	}
	var column schemas.Column
	var primary bool
	_, err = pgx.ForEachRow(rows, []any{&column.Name, &column.Type, &column.Key, &primary}, func() error {
		if primary {
			relation.PrimaryKey = append(relation.PrimaryKey, len(relation.Columns))
		}
		relation.Columns = append(relation.Columns, column)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", name, err)
	}
	return relation, nil
}
