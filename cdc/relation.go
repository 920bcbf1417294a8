package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

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

// readRelation reads a table's shape as it is now, or under the transaction's
// snapshot; nil when there is no such table.
func readRelation(ctx context.Context, q querier, name schemas.TableName) (*schemas.Relation, error) {
	relation := &schemas.Relation{Namespace: name.Namespace, Name: name.Name}
	var identity string
	err := q.QueryRow(ctx, relationSQL, name.Namespace, name.Name).Scan(&relation.OID, &identity)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at table %s: %w", name, err)
	}
	relation.Identity = schemas.ReplicaIdentity(identity[0])
	if err := readColumns(ctx, q, relation); err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", name, err)
	}
	if relation.Identity == schemas.IdentityFull {
		return relation, distrustPartitions(ctx, q, relation)
	}
	return relation, nil
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// readColumns reads the columns and the primary key of a relation by its OID;
// none if there is no such table.
func readColumns(ctx context.Context, q querier, relation *schemas.Relation) error {
	rows, err := q.Query(ctx, columnsSQL, relation.OID)
	if err != nil {
		return err
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
	return err
}

// keyOf finds a relation's primary key by the same table's shape at another
// time: by name, or by place if all that differs is names. It is nil when
// neither will do.
func keyOf(relation, other *schemas.Relation) []int {
	var key []int
	for _, i := range other.PrimaryKey {
		if at := relation.Column(other.Columns[i].Name); at >= 0 {
			key = append(key, at)
		}
	}
	if len(key) == len(other.PrimaryKey) {
		return key
	}
	sameType := func(a, b schemas.Column) bool { return a.Type == b.Type }
	if slices.EqualFunc(relation.Columns, other.Columns, sameType) {
		return slices.Clone(other.PrimaryKey)
	}
	return nil
}

// partitionSQL says whether a table is partitioned, and has a partition that
// logs less than the whole old row.
const partitionSQL = `
	SELECT EXISTS (SELECT FROM pg_partition_tree($1) t JOIN pg_class c ON c.oid = t.relid
		WHERE t.isleaf AND c.relreplident <> 'f' AND c.oid <> $1)`

// distrustPartitions takes a partitioned table for one with DEFAULT where a
// partition is not FULL, as a new one never is: changes published as the
// root's come as if that partition had logged nulls.
func distrustPartitions(ctx context.Context, q querier, relation *schemas.Relation) error {
	var partial bool
	if err := q.QueryRow(ctx, partitionSQL, relation.OID).Scan(&partial); err != nil {
		return fmt.Errorf("look at the partitions of %s: %w", relation.Table(), err)
	}
	if !partial {
		return nil
	}
	today := &schemas.Relation{OID: relation.OID}
	if err := readColumns(ctx, q, today); err != nil {
		return fmt.Errorf("read the primary key of %s: %w", relation.Table(), err)
	}
	key := keyOf(relation, today)
	relation.Identity = schemas.IdentityDefault
	for i := range relation.Columns {
		relation.Columns[i].Key = slices.Contains(key, i)
	}
	return nil
}

const rootSQL = `
	SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid = pg_partition_root($1) AND c.oid <> $1`

// nameRoot gives a partition that is published under its own name the name of
// its root, which is the one that the catalog knows. A partition that is gone
// by now keeps the root that it had.
func (r *catalogReader) nameRoot(ctx context.Context, relation, before *schemas.Relation) error {
	var root schemas.TableName
	err := r.conn.QueryRow(ctx, rootSQL, relation.OID).Scan(&root.Namespace, &root.Name)
	switch {
	case err == nil:
	case !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("look for the root of %s: %w", relation.Table(), err)
	case before != nil && before.Partition:
		root = before.Table()
	default:
		return nil
	}
	relation.Namespace, relation.Name, relation.Partition = root.Namespace, root.Name, true
	return nil
}
