package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// catalogReader asks the source's catalog, over an ordinary session, for what
// the stream does not say.
type catalogReader struct {
	conn        *pgx.Conn
	publication string
	types       *pgjson.Types // the built-in ones; never added to

	// dropsDefaults says that the server is of a version that does.
	dropsDefaults bool
}

func newCatalogReader(ctx context.Context, cfg Config) (*catalogReader, error) {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &catalogReader{conn: conn, publication: cfg.Publication, types: pgjson.NewTypes(),
		dropsDefaults: dropsDefaults(conn.PgConn().ParameterStatus("server_version"))}, nil
}

func (r *catalogReader) close(ctx context.Context) { closeConn(ctx, r.conn) }

// describe describes a table as it is now; nil when it is gone.
func (r *catalogReader) describe(ctx context.Context, oid uint32) (*catalog.TableDescription, error) {
	list, err := describe(ctx, r.conn, r.publication, oid)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// describeTypes gives a relation the types of its columns, as they are now or,
// where they are gone, as kept has them. A composite type that was altered since
// is not known: its text does not say which value is whose. fluid is what was learnt, if any of it
// is composite: ALTER TYPE can change that without a word in the stream.
func (r *catalogReader) describeTypes(ctx context.Context, relation *schemas.Relation, kept keptTypes) (fluid *fluidTypes, err error) {
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
	learnt, altered, version, err := r.readVersion(ctx, unknown)
	if err != nil {
		return nil, fmt.Errorf("read the types of %s: %w", relation.Table(), err)
	}
	relation.Types = pgjson.NewTypes()
	for _, row := range kept.rows {
		relation.Types.Add(row.Type())
	}
	for _, row := range learnt {
		typ := row.Type()
		if len(altered[row.OID]) > 0 {
			if fluid == nil {
				fluid = &fluidTypes{rows: learnt, version: version}
			}
			if kept.doubts(row, altered[row.OID]) {
				typ.Kind, fluid.doubted = pgjson.TypeUnknown, true
			}
		}
		relation.Types.Add(typ)
	}
	return fluid, nil
}

// typesVersionSQL changes with each ALTER TYPE: it names the transactions that
// made the rows of the catalog which say what types are made of. It reads by
// index alone.
const typesVersionSQL = `
	SELECT coalesce(string_agg(concat_ws(':', t.oid, t.xmin, a.attnum, a.xmin), ',' ORDER BY t.oid, a.attnum), ''), pg_current_snapshot()::text
	FROM pg_type t LEFT JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
	WHERE t.oid = ANY ($1::oid[])`

// alteredSQL lists the transactions that wrote the attributes of composite types.
const alteredSQL = `
	SELECT t.oid, array_agg(a.xmin::text::bigint) FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
	WHERE t.oid = ANY ($1::oid[]) GROUP BY t.oid`

// readVersion reads types and their version under one snapshot, so that no
// change between the two is missed, and who wrote the attributes of composite
// ones.
func (r *catalogReader) readVersion(ctx context.Context, oids []uint32) (rows []pgjson.TypeRow, altered map[uint32][]int64, version string, err error) {
	altered = map[uint32][]int64{}
	err = pgx.BeginTxFunc(ctx, r.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if rows, err = readTypes(ctx, tx, oids); err != nil {
			return err
		}
		list, err := tx.Query(ctx, alteredSQL, typeOIDs(rows))
		if err != nil {
			return err
		}
		var oid uint32
		var xids []int64
		if _, err = pgx.ForEachRow(list, []any{&oid, &xids}, func() error {
			altered[oid] = append([]int64(nil), xids...)
			return nil
		}); err != nil {
			return err
		}
		version, _, err = typesVersion(ctx, tx, rows)
		return err
	})
	return rows, altered, version, err
}

// typesVersion is the present version of types that were read before, and what
// else the catalog showed at that moment.
func (r *catalogReader) typesVersion(ctx context.Context, rows []pgjson.TypeRow) (version string, seen snapshot, err error) {
	return typesVersion(ctx, r.conn, rows)
}

func typesVersion(ctx context.Context, q querier, rows []pgjson.TypeRow) (version string, seen snapshot, err error) {
	var text string
	if err = q.QueryRow(ctx, typesVersionSQL, typeOIDs(rows)).Scan(&version, &text); err != nil {
		return "", seen, fmt.Errorf("look whether types have changed: %w", err)
	}
	seen, err = parseSnapshot(text)
	return version, seen, err
}

func typeOIDs(rows []pgjson.TypeRow) []uint32 {
	oids := make([]uint32, len(rows))
	for i := range rows {
		oids[i] = rows[i].OID
	}
	return oids
}

// dropsDefaults says whether a server leaves the values out of an old row that
// columns younger than the row have, added with a default and without a rewrite:
// it sends nulls instead. PostgreSQL 15 did until 15.5, and 16 until 16.1.
func dropsDefaults(version string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n < 2 {
		return false
	}
	return major == 15 && minor < 6 || major == 16 && minor < 2
}
