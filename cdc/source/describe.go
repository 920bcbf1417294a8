package source

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

const (
	// A table by its OID. xmin has the transactions that wrote the catalog's rows about
	// what the stream does not say: the table's ancestors and its primary key.
	describeSQL = `
		WITH RECURSIVE above (oid, ancestor, depth, since) AS (
			SELECT i.inhrelid, i.inhparent, 1, i.xmin::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhrelid = ANY ($1::oid[])
			UNION ALL
			SELECT a.oid, i.inhparent, a.depth + 1, i.xmin::text
			FROM above a JOIN pg_inherits i ON i.inhrelid = a.ancestor
		)
		SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident::text,
			ARRAY(SELECT a.ancestor FROM above a WHERE a.oid = c.oid ORDER BY a.depth),
			ARRAY(SELECT an.nspname::text FROM above a JOIN pg_class ac ON ac.oid = a.ancestor
				JOIN pg_namespace an ON an.oid = ac.relnamespace WHERE a.oid = c.oid ORDER BY a.depth),
			ARRAY(SELECT ac.relname::text FROM above a JOIN pg_class ac ON ac.oid = a.ancestor WHERE a.oid = c.oid ORDER BY a.depth),
			ARRAY(SELECT since::bigint FROM (
					SELECT a.since FROM above a WHERE a.oid = c.oid
					UNION SELECT ac.xmin::text FROM above a JOIN pg_class ac ON ac.oid = a.ancestor WHERE a.oid = c.oid
					UNION SELECT c.xmin::text
					UNION SELECT i.xmin::text FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
				) AS made ORDER BY 1),
			NOT c.relispartition AND EXISTS (SELECT FROM above a WHERE a.oid = c.oid),
			CASE WHEN c.relispartition THEN '{}' ELSE ARRAY(
				SELECT col.attname::text FROM (
					SELECT i.indrelid, i.indkey, i.indnkeyatts FROM above a JOIN pg_index i ON i.indrelid = a.ancestor AND i.indisprimary
					WHERE a.oid = c.oid ORDER BY a.depth, a.ancestor LIMIT 1
				) AS keyed JOIN pg_attribute col ON col.attrelid = keyed.indrelid
					AND col.attnum = ANY ((keyed.indkey::int2[])[0 : keyed.indnkeyatts - 1]) ORDER BY col.attnum) END
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = ANY ($1::oid[]) ORDER BY c.oid`

	// Types of which equal values may have different texts: interval, jsonb, ranges of
	// numeric; and, as parts of other types, floats, numeric, char(n) and citext.
	vagueSQL = `(1186, 3802, 3906, 4532)`
	partSQL  = `(700, 701, 1042, 1186, 1700, 3802, 3906, 4532)`

	// How values of the column "a" compare: by their base type, the column's collation,
	// and for citext by what lower() does to ASCII letters on this server.
	equalitySQL = `CASE WHEN EXISTS (SELECT FROM pg_collation l WHERE l.oid = a.attcollation AND NOT l.collisdeterministic) THEN 'unknown' ELSE (
		WITH RECURSIVE base (oid, below) AS (
			SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
			UNION ALL SELECT t.oid, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.below
		)
		SELECT CASE WHEN t.oid = 1042 THEN 'padded' WHEN t.oid = 2950 THEN 'uuid' WHEN t.oid IN (20, 21, 23, 26, 700, 701, 1700) THEN 'number'
			WHEN t.typname = 'citext' THEN CASE lower('ABCDEFGHIJKLMNOPQRSTUVWXYZ') WHEN 'abcdefghijklmnopqrstuvwxyz' THEN 'folded' ELSE 'unknown' END
			WHEN t.oid IN ` + vagueSQL + ` OR EXISTS (
				SELECT FROM pg_type part LEFT JOIN pg_type plain ON plain.oid = part.typbasetype WHERE (part.oid = t.typelem
					OR part.oid IN (SELECT f.atttypid FROM pg_attribute f WHERE f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped))
				AND (coalesce(plain.oid, part.oid) IN ` + partSQL + ` OR coalesce(plain.typname, part.typname) = 'citext')) THEN 'unknown'
			ELSE '' END
		FROM base JOIN pg_type t ON t.oid = base.oid WHERE base.below = 0) END`

	// Servers before 18 do not send generated columns, though pg_publication_tables
	// lists them. For an unpublished table the setting of the publication decides, and
	// setup makes one that sends them.
	describeColumnsSQL = `
		SELECT c.oid, a.attname::text, a.xmin::text::bigint, a.atttypid,
			coalesce(a.attnum = ANY ((pkey.indkey::int2[])[0 : pkey.indnkeyatts - 1]), false),
			coalesce(a.attnum = ANY ((identity.indkey::int2[])[0 : identity.indnkeyatts - 1]), false),
			CASE WHEN a.attgenerated = '' THEN false WHEN a.attgenerated = 'v' OR current_setting('server_version_num')::int < 180000 THEN true
				ELSE NOT coalesce(
					(SELECT to_jsonb(t) -> 'attnames' ? a.attname::text FROM pg_publication_tables t
						WHERE t.pubname = $2 AND t.schemaname = n.nspname AND t.tablename = c.relname LIMIT 1),
					(SELECT to_jsonb(p) ->> 'pubgencols' = 's' FROM pg_publication p WHERE p.pubname = $2),
					true) END,
			a.attnotnull,
			` + equalitySQL + `,
			CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_index pkey ON pkey.indrelid = c.oid AND pkey.indisprimary
		LEFT JOIN pg_index identity ON identity.indrelid = c.oid
			AND CASE c.relreplident WHEN 'i' THEN identity.indisreplident WHEN 'd' THEN identity.indisprimary ELSE false END
		WHERE c.oid = ANY ($1::oid[]) ORDER BY c.oid, a.attnum`
)

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// describe reads the current descriptions of tables, or those under the transaction's
// snapshot, with the types of their columns. It leaves out missing tables.
func describe(ctx context.Context, q querier, publication string, oids ...uint32) ([]*catalog.TableDescription, error) {
	var list []*catalog.TableDescription
	byOID := map[uint32]*catalog.TableDescription{}
	rows, err := q.Query(ctx, describeSQL, oids)
	if err == nil {
		var one catalog.TableDescription
		var identity string
		var above []uint32
		var namespaces, names []string
		var since []int64
		var inheritedKey []string
		_, err = pgx.ForEachRow(rows, []any{&one.OID, &one.Namespace, &one.Name, &identity, &above, &namespaces, &names, &since, &one.Inherits, &inheritedKey}, func() error {
			d := one
			d.InheritedKey = slices.Clone(inheritedKey)
			d.Identity = schemas.ReplicaIdentity(identity[0])
			for i := range above {
				d.Ancestors = append(d.Ancestors, catalog.Ancestor{OID: above[i], TableName: schemas.TableName{Namespace: namespaces[i], Name: names[i]}})
			}
			for _, xid := range since {
				d.Since = append(d.Since, uint32(xid))
			}
			list, byOID[d.OID] = append(list, &d), &d
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("describe tables: %w", err)
	}
	rows, err = q.Query(ctx, describeColumnsSQL, oids, publication)
	if err == nil {
		var oid uint32
		var c catalog.DescribedColumn
		var missing *string
		_, err = pgx.ForEachRow(rows, []any{&oid, &c.Name, &c.Written, &c.Type, &c.Primary, &c.Identity, &c.Unsent, &c.NotNull, &c.Equality, &missing}, func() error {
			if d := byOID[oid]; d != nil {
				column := c
				if missing != nil {
					column.Missing = new(*missing)
				}
				d.Columns = append(d.Columns, column)
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("describe columns: %w", err)
	}
	return list, describeTypes(ctx, q, list)
}

// describeTypes adds the types of the tables' columns.
func describeTypes(ctx context.Context, q querier, list []*catalog.TableDescription) error {
	builtin := pgjson.NewTypes()
	wanted := map[uint32]bool{}
	var oids []uint32
	for _, d := range list {
		for _, column := range d.Columns {
			if !wanted[column.Type] && !builtin.Known(column.Type) {
				wanted[column.Type] = true
				oids = append(oids, column.Type)
			}
		}
	}
	rows, err := readTypes(ctx, q, oids)
	if err != nil {
		return fmt.Errorf("describe types: %w", err)
	}
	byOID := map[uint32]pgjson.TypeRow{}
	for _, row := range rows {
		byOID[row.OID] = row
	}
	for _, d := range list {
		seen := map[uint32]bool{}
		var add func(oid uint32)
		add = func(oid uint32) {
			row, learnt := byOID[oid]
			if !learnt || seen[oid] {
				return
			}
			seen[oid] = true
			d.Types = append(d.Types, row)
			for _, part := range append([]uint32{row.Elem, row.Base}, row.AttributeTypes...) {
				add(part)
			}
		}
		for _, column := range d.Columns {
			add(column.Type)
		}
	}
	return nil
}

// readTypes reads types and the types that they use, without the built-in ones.
func readTypes(ctx context.Context, q querier, oids []uint32) ([]pgjson.TypeRow, error) {
	if len(oids) == 0 {
		return nil, nil
	}
	rows, err := q.Query(ctx, pgjson.TypesQuery, oids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[pgjson.TypeRow])
}

// treeSQL lists the existing tables of the catalog, their partitions and children.
const treeSQL = `
	WITH RECURSIVE tree (oid) AS (
		SELECT c.oid FROM unnest($1::text[], $2::text[]) AS named (namespace, name)
		JOIN pg_namespace n ON n.nspname = named.namespace
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = named.name AND c.relkind IN ('r', 'p')
		UNION
		SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid JOIN pg_class c ON c.oid = i.inhrelid
	)
	SELECT oid FROM tree`

// describeAll describes the catalog's tables, their partitions and their
// children.
func describeAll(ctx context.Context, q querier, cfg Config) ([]*catalog.TableDescription, error) {
	namespaces, names := tableNames(cfg.Catalog)
	rows, err := q.Query(ctx, treeSQL, namespaces, names)
	var oids []uint32
	if err == nil {
		oids, err = pgx.CollectRows(rows, pgx.RowTo[uint32])
	}
	if err != nil {
		return nil, fmt.Errorf("list the catalog's tables: %w", err)
	}
	return describe(ctx, q, cfg.Publication, oids...)
}

// DescribeAll describes the catalog's tables, their partitions and their children, as
// they are now.
func (r *Introspector) DescribeAll(ctx context.Context, cfg Config) ([]*catalog.TableDescription, error) {
	return describeAll(ctx, r.conn, cfg)
}

func tableNames(catalog *catalog.Catalog) (namespaces, names []string) {
	for _, table := range catalog.Tables() {
		namespaces, names = append(namespaces, table.Namespace), append(names, table.Name)
	}
	return namespaces, names
}

// stampSQL hashes everything that descriptions depend on, and all publications: the
// stamp changes with any of it. Only then does the observer read the rest.
const stampSQL = `
	WITH RECURSIVE tree (oid) AS (
		SELECT c.oid FROM unnest($1::text[], $2::text[]) AS named (namespace, name)
		JOIN pg_namespace n ON n.nspname = named.namespace
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = named.name AND c.relkind IN ('r', 'p')
		UNION
		SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
	), row (what) AS (
		SELECT concat_ws(' ', 'c', c.oid, c.xmin) FROM tree JOIN pg_class c ON c.oid = tree.oid
		UNION ALL SELECT concat_ws(' ', 'a', a.attrelid, a.attnum, a.xmin) FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid
		UNION ALL SELECT concat_ws(' ', 't', f.attrelid, f.attnum, f.xmin) FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid AND a.attnum > 0
			JOIN pg_type t ON t.oid = a.atttypid AND t.typrelid <> 0 JOIN pg_attribute f ON f.attrelid = t.typrelid
		UNION ALL SELECT concat_ws(' ', 'i', i.indexrelid, i.xmin) FROM tree JOIN pg_index i ON i.indrelid = tree.oid AND (i.indisprimary OR i.indisreplident)
		UNION ALL SELECT concat_ws(' ', 'h', i.inhrelid, i.inhparent, i.xmin) FROM tree JOIN pg_inherits i ON i.inhrelid = tree.oid
		UNION ALL SELECT concat_ws(' ', 'p', p.oid, p.xmin) FROM pg_publication p
		UNION ALL SELECT concat_ws(' ', 'r', r.oid, r.xmin) FROM pg_publication_rel r
	)
	SELECT coalesce(sum(hashtextextended(what, 0)), 0)::text FROM row`

// TablesStamp returns a stamp that changes with the catalog's tables.
func (r *Introspector) TablesStamp(ctx context.Context, cfg Config) (stamp string, err error) {
	namespaces, names := tableNames(cfg.Catalog)
	if err = r.conn.QueryRow(ctx, stampSQL, namespaces, names).Scan(&stamp); err != nil {
		err = fmt.Errorf("check whether tables changed: %w", err)
	}
	return stamp, err
}

const relationSQL = `
	SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

// readRelation reads a table's current relation, or the one under the transaction's
// snapshot, as pgoutput would send it; nil for a missing table.
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
		return nil, fmt.Errorf("read table %s: %w", name, err)
	}
	if len(list) == 0 {
		return nil, nil // dropped meanwhile
	}
	return relationOf(list[0]), nil
}

// relationOf is a description as pgoutput would send it: without dropped columns, and
// with generated ones only if they are published. The key flags are the replica
// identity's.
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
