package source

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// Introspector queries the source's system catalog, over an ordinary session, for what
// the stream does not say.
type Introspector struct {
	conn        *pgx.Conn
	publication string
	waits       bool // its session has the name of a standby's

	// DropsDefaults says that the server is of a version that [dropsDefaults] names.
	DropsDefaults bool
}

func NewIntrospector(ctx context.Context, cfg Config) (*Introspector, error) {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &Introspector{conn: conn, publication: cfg.Publication,
		DropsDefaults: dropsDefaults(conn.PgConn().ParameterStatus("server_version"))}, nil
}

func (r *Introspector) Close(ctx context.Context) { CloseConn(ctx, r.conn) }

// Describe describes a table as it is now; nil when it is gone.
func (r *Introspector) Describe(ctx context.Context, oid uint32) (*catalog.TableDescription, error) {
	list, err := describe(ctx, r.conn, r.publication, oid)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// typesVersionSQL returns a version that changes with each ALTER TYPE: the transactions
// that wrote the catalog's rows about the types. It reads by indexes only.
const typesVersionSQL = `
	SELECT coalesce(string_agg(concat_ws(':', t.oid, t.xmin, a.attnum, a.xmin), ',' ORDER BY t.oid, a.attnum), ''), pg_current_snapshot()::text
	FROM pg_type t LEFT JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
	WHERE t.oid = ANY ($1::oid[])`

// alteredSQL lists the transactions that wrote the attributes of composite types.
const alteredSQL = `
	SELECT t.oid, array_agg(a.xmin::text::bigint) FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
	WHERE t.oid = ANY ($1::oid[]) GROUP BY t.oid`

// ReadTypes reads types, their version, and which transactions wrote the attributes of
// composite ones. It reads them under one snapshot, so that it misses no change.
func (r *Introspector) ReadTypes(ctx context.Context, oids []uint32) (rows []pgjson.TypeRow, altered map[uint32][]int64, version string, err error) {
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

// TypesVersion returns the current version of types that were read before, and the
// snapshot of that query.
func (r *Introspector) TypesVersion(ctx context.Context, rows []pgjson.TypeRow) (version string, seen Visibility, err error) {
	return typesVersion(ctx, r.conn, rows)
}

func typesVersion(ctx context.Context, q querier, rows []pgjson.TypeRow) (version string, seen Visibility, err error) {
	var text string
	if err = q.QueryRow(ctx, typesVersionSQL, typeOIDs(rows)).Scan(&version, &text); err != nil {
		return "", seen, fmt.Errorf("check whether types have changed: %w", err)
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

// dropsDefaults reports whether a server sends nulls in old rows for columns that were
// added later, with a default and without a rewrite. PostgreSQL 15 does until 15.5, and
// 16 until 16.1.
func dropsDefaults(version string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n < 2 {
		return false
	}
	return major == 15 && minor < 6 || major == 16 && minor < 2
}

const snapshotSQL = `SELECT pg_catalog.pg_current_snapshot()::text`

// Visibility is a query's snapshot.
type Visibility struct {
	next    uint32 // the first transaction that has not begun
	running []uint32
}

// parseSnapshot parses pg_snapshot's text, such as 10:20:10,14. Its ids have 64 bits, of
// which the stream has the lower half.
func parseSnapshot(text string) (s Visibility, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("snapshot %q is malformed", text)
	}
	ids := parts[1:2]
	if parts[2] != "" {
		ids = append(ids, strings.Split(parts[2], ",")...)
	}
	for i, id := range ids {
		xid, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return s, fmt.Errorf("snapshot %q is malformed: %w", text, err)
		}
		if i == 0 {
			s.next = uint32(xid)
		} else {
			s.running = append(s.running, uint32(xid))
		}
	}
	return s, nil
}

// Shows reports whether the snapshot shows a committed transaction. Ids wrap around.
func (s Visibility) Shows(xid uint32) bool {
	return int32(xid-s.next) < 0 && !slices.Contains(s.running, xid)
}

// Shows reports whether the catalog shows a committed transaction.
func (r *Introspector) Shows(ctx context.Context, xid uint32) (bool, error) {
	var text string
	if err := r.conn.QueryRow(ctx, snapshotSQL).Scan(&text); err != nil {
		return false, fmt.Errorf("check what the catalog shows: %w", err)
	}
	seen, err := parseSnapshot(text)
	return seen.Shows(xid), err
}

// SQLASCII is the encoding of a server whose texts are any bytes. It verifies what it
// sends to a client of another encoding, and fails at the first invalid byte. So
// sessions use SQL_ASCII too, and get the bytes.
const SQLASCII = "SQL_ASCII"

func ServerEncoding(conn *pgconn.PgConn) string { return conn.ParameterStatus("server_encoding") }

const replacement = string(utf8.RuneError)

// Legible makes valid UTF-8 of bytes: it replaces each invalid byte by U+FFFD and two
// hexadecimal digits. In a text that has such a sequence already it replaces the bytes
// of that U+FFFD, so that different inputs, such as ids, stay different.
func Legible(text []byte) []byte {
	if !bytes.Contains(text, []byte(replacement)) && utf8.Valid(text) {
		return text
	}
	const digits = "0123456789abcdef"
	out := make([]byte, 0, len(text)+16)
	replace := func(b byte) { out = append(utf8.AppendRune(out, utf8.RuneError), digits[b>>4], digits[b&15]) }
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1:
			replace(text[0])
		case r == utf8.RuneError && len(text) >= n+2 && isHex(text[n]) && isHex(text[n+1]):
			for _, b := range text[:n] {
				replace(b)
			}
		default:
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	return out
}

// isHex reports whether a byte is a digit that Legible writes.
func isHex(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' }

const convertSQL = `SELECT pg_catalog.convert_from($1::pg_catalog.bytea, pg_catalog.getdatabaseencoding())`

// Convert has the server convert bytes from its encoding to UTF-8.
func (r *Introspector) Convert(ctx context.Context, content []byte) (text string, err error) {
	err = r.conn.QueryRow(ctx, convertSQL, content).Scan(&text)
	return text, err
}
