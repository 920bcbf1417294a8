package outbox

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// A key that cannot be stored is that of no row.
	forgetOwnerSQL = `DELETE FROM walhook.owner WHERE schema = $1 AND convert_to(key, 'UTF8') = $2`

	forgetOwnersSQL = `DELETE FROM walhook.owner WHERE schema = $1`

	ownerRowsSQL = `
		INSERT INTO walhook.owner (schema, key, account, deleted_at, unknown)
		SELECT schema, key, account, CASE WHEN deleted THEN clock_timestamp() END, unknown
		FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[], $5::bool[]) AS w(schema, key, account, deleted, unknown)`

	// Half the work of an insertion that looks first.
	insertOwnersSQL = ownerRowsSQL

	writeOwnersSQL = ownerRowsSQL + `
		ON CONFLICT (schema, key) DO UPDATE SET account = excluded.account, deleted_at = excluded.deleted_at, unknown = excluded.unknown`
)

// ownerWrites are whose the records of a batch are now.
type ownerWrites struct {
	of map[recordKey]ownerWrite
	// mayExist says of all of them that the outbox may know them.
	mayExist bool
}

type ownerWrite struct {
	ownership
	// isNew says that the record is in nobody's memory. Whose an inserted one was
	// before is not asked, so it may still be stored: with a key that is used
	// again, of a record that was deleted.
	isNew bool
}

// set writes an ownership; known says whether there was one before.
func (w *ownerWrites) set(k recordKey, o ownership, known bool) {
	if earlier, written := w.of[k]; written {
		known = !earlier.isNew
	}
	w.of[k] = ownerWrite{ownership: o, isNew: !known}
}

func (w *ownerWrites) forgetSchema(schema string) {
	for k := range w.of {
		if k.schema == schema {
			delete(w.of, k)
		}
	}
}

func (w *ownerWrites) queue(b *pgx.Batch, enc *encoding) {
	order := make([]recordKey, 0, len(w.of))
	for k := range w.of {
		order = append(order, k)
	}
	// Neighbours in the index are written one after the other.
	slices.SortFunc(order, func(a, b recordKey) int {
		return cmp.Or(strings.Compare(a.schema, b.schema), strings.Compare(a.key, b.key))
	})
	var inserted, written ownerColumns
	inserted.grow(len(order))
	for _, k := range order {
		if o := w.of[k]; o.isNew && !w.mayExist {
			inserted.add(enc, k, o)
		} else {
			written.add(enc, k, o)
		}
	}
	inserted.queue(b, insertOwnersSQL)
	written.queue(b, writeOwnersSQL)
}

// ownerColumns are rows as arrays, one per column.
type ownerColumns struct {
	schemas, keys, accounts []string
	deleted, unknown        []bool
}

func (c *ownerColumns) grow(n int) {
	c.schemas, c.keys, c.accounts = make([]string, 0, n), make([]string, 0, n), make([]string, 0, n)
	c.deleted, c.unknown = make([]bool, 0, n), make([]bool, 0, n)
}

func (c *ownerColumns) add(enc *encoding, k recordKey, o ownerWrite) {
	c.schemas, c.keys = append(c.schemas, k.schema), append(c.keys, enc.text(k.key))
	c.accounts = append(c.accounts, o.account)
	c.deleted, c.unknown = append(c.deleted, o.deleted), append(c.unknown, o.unknown)
}

func (c *ownerColumns) queue(b *pgx.Batch, sql string) {
	if len(c.keys) > 0 {
		b.Queue(sql, c.schemas, c.keys, c.accounts, c.deleted, c.unknown)
	}
}

// isKnownOwner says that a record was taken for new that is stored already.
func isKnownOwner(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == codeUniqueViolation && pgErr.TableName == "owner"
}
