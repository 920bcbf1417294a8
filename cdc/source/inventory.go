package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// InventoryTimeout bounds all that [Inventory] asks.
const InventoryTimeout = time.Minute

// inventoryLimits bound each statement, and what it waits for a lock. Reading the
// system catalog takes none on the carrier's tables.
const inventoryLimits = `SET LOCAL statement_timeout = '20s'; SET LOCAL lock_timeout = '1s'`

const (
	// The tables that are a user's, and what could be taken for one. Rows and what
	// happened to them are those of a table's partitions together.
	inventorySQL = `
		WITH RECURSIVE part (root, oid) AS (
			SELECT c.oid, c.oid FROM pg_class c WHERE c.relkind IN ('r', 'p')
			UNION ALL
			SELECT part.root, i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.oid JOIN pg_class p ON p.oid = i.inhrelid AND p.relispartition
		), total AS (
			SELECT part.root, sum(greatest(c.reltuples, 0))::bigint AS live,
				coalesce(sum(pg_stat_get_tuples_inserted(c.oid)), 0) AS inserted,
				coalesce(sum(pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid)), 0) AS changed
			FROM part JOIN pg_class c ON c.oid = part.oid AND c.relkind = 'r' GROUP BY part.root
		)
		SELECT c.oid, n.nspname::text, c.relname::text,
			CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
			coalesce(obj_description(c.oid, 'pg_class'), ''), c.relkind = 'p', coalesce(above.namespace, ''), coalesce(above.name, ''),
			c.relpersistence = 'p', has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
			EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
			coalesce(total.live, 0), coalesce(total.inserted > 0 AND total.changed = 0, false)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN total ON total.root = c.oid
		LEFT JOIN LATERAL (
			SELECT an.nspname::text, ac.relname::text FROM pg_inherits i JOIN pg_class ac ON ac.oid = i.inhparent JOIN pg_namespace an ON an.oid = ac.relnamespace
			WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1
		) AS above (namespace, name) ON true
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'walhook')
		ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`

	inventoryColumnsSQL = `
		SELECT a.attrelid, a.attname::text, format_type(a.atttypid, a.atttypmod), coalesce(col_description(a.attrelid, a.attnum), ''), a.attnotnull,
			CASE WHEN a.attgenerated = '' THEN false ELSE a.attgenerated = 'v' OR current_setting('server_version_num')::int < 180000 END,
			` + equalitySQL + `
		FROM pg_attribute a WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum`

	inventoryKeysSQL = `
		SELECT i.indrelid, array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum)), i.indisprimary FROM pg_index i
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0 : i.indnkeyatts - 1])
		WHERE i.indrelid = ANY ($1::oid[]) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
		GROUP BY i.indexrelid HAVING bool_and(a.attnotnull) ORDER BY i.indrelid, i.indisprimary DESC, count(*), 2`

	inventoryForeignSQL = `
		SELECT f.conrelid, f.conname::text,
			ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (num, at) JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num ORDER BY k.at),
			n.nspname::text, c.relname::text,
			ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS k (num, at) JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num ORDER BY k.at)
		FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE f.contype = 'f' AND f.conrelid = ANY ($1::oid[]) AND f.conparentid = 0 ORDER BY f.conrelid, f.conname COLLATE "C"`
)

// Inventory describes the tables of the source, and what is named like one, in the
// order of their names. It reads the system catalog alone, in one transaction that
// can write nothing, within [InventoryTimeout].
func Inventory(ctx context.Context, cfg Config) ([]*catalog.Table, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, InventoryTimeout, errors.New("reading the source's tables took too long"))
	defer cancel()
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer CloseConn(ctx, conn)
	var i inventory
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Conn().PgConn().Exec(ctx, inventoryLimits).ReadAll(); err != nil {
			return err
		}
		return i.read(ctx, tx)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("read the tables of the source: %w", err)
	}
	return i.tables, nil
}

type inventory struct {
	tables []*catalog.Table
	oids   []uint32
	byOID  map[uint32]*catalog.Table
}

func (i *inventory) read(ctx context.Context, q querier) error {
	i.byOID = map[uint32]*catalog.Table{}
	rows, err := q.Query(ctx, inventorySQL)
	if err != nil {
		return err
	}
	var oid uint32
	var t catalog.Table
	if _, err = pgx.ForEachRow(rows, []any{&oid, &t.Name.Namespace, &t.Name.Name, &t.Kind, &t.Comment, &t.Partitioned, &t.PartitionOf.Namespace, &t.PartitionOf.Name,
		&t.Logged, &t.Readable, &t.Extension, &t.Rows, &t.InsertOnly}, func() error {
		one := t
		i.tables, i.oids, i.byOID[oid] = append(i.tables, &one), append(i.oids, oid), &one
		return nil
	}); err != nil {
		return err
	}
	for _, part := range []func(context.Context, querier) error{i.columns, i.keys, i.foreign} {
		if err := part(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func (i *inventory) columns(ctx context.Context, q querier) error {
	rows, err := q.Query(ctx, inventoryColumnsSQL, i.oids)
	if err != nil {
		return err
	}
	var oid uint32
	var c catalog.TableColumn
	var equality string
	_, err = pgx.ForEachRow(rows, []any{&oid, &c.Name, &c.Type, &c.Comment, &c.NotNull, &c.Unsent, &equality}, func() error {
		c.Equality = schemas.Equality(equality)
		i.byOID[oid].Columns = append(i.byOID[oid].Columns, c)
		return nil
	})
	return err
}

func (i *inventory) keys(ctx context.Context, q querier) error {
	rows, err := q.Query(ctx, inventoryKeysSQL, i.oids)
	if err != nil {
		return err
	}
	var oid uint32
	var columns []string
	var primary bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &columns, &primary}, func() error {
		if t := i.byOID[oid]; primary {
			t.Key = slices.Clone(columns)
		} else {
			t.Unique = append(t.Unique, slices.Clone(columns))
		}
		return nil
	})
	return err
}

func (i *inventory) foreign(ctx context.Context, q querier) error {
	rows, err := q.Query(ctx, inventoryForeignSQL, i.oids)
	if err != nil {
		return err
	}
	var oid uint32
	var f catalog.ForeignKey
	_, err = pgx.ForEachRow(rows, []any{&oid, &f.Name, &f.Columns, &f.Table.Namespace, &f.Table.Name, &f.Refers}, func() error {
		one := f
		one.Columns, one.Refers = slices.Clone(f.Columns), slices.Clone(f.Refers)
		i.byOID[oid].Foreign = append(i.byOID[oid].Foreign, one)
		return nil
	})
	return err
}
