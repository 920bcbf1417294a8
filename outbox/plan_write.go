package outbox

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
)

// What is deleted here is appended by the same transaction: exactly once.
const leaveInboxSQL = `WITH gone AS (DELETE FROM walhook.inbox WHERE id = ANY ($1) RETURNING 1) SELECT count(*) FROM gone`

// planWrite is what a plan, or a part of one transaction's, is in SQL.
type planWrite struct {
	store *Store
	plan  *route.Plan
	// upsert says of all records that their owners may be stored already.
	upsert   bool
	listing  listing // as it is once this is committed
	unrouted []route.Unrouted
}

func (p *Publisher) newWrite(plan *route.Plan) *planWrite {
	w := &planWrite{store: p.store, plan: plan, upsert: p.keysReused > 0}
	w.listing, w.unrouted = p.listing.bound(plan.Unrouted, time.Now())
	return w
}

// errInboxMoved says that rows of the inbox are gone that a plan was made of.
var errInboxMoved = errors.New("an earlier transaction has appended rows of the inbox")

// transaction writes the plan. What comes first locks, and answers the ids and
// revisions that events carry.
func (w *planWrite) transaction() *transaction {
	w.plan.AppendedAt = time.Now()
	held := map[int64]string{} // endpoints that a hold follows to, with its reason
	tx := &transaction{first: func(b *pgx.Batch) { w.queueEndpoints(b, held) }}
	w.leaves(tx, len(w.plan.Inbox), errInboxMoved, leaveInboxSQL, w.plan.Inbox)
	w.leaves(tx, len(w.plan.Missed), errMissedMoved, leaveMissedSQL, w.plan.Gap, w.plan.Missed)
	w.leaves(tx, len(w.plan.MissedRows), errMissedMoved, leaveMissedRowsSQL, w.plan.Gap, w.plan.MissedRows)
	w.continues(tx)
	few := len(w.plan.Endpoints) == 0 && len(w.plan.Events) <= fewRows
	if !few {
		tx.work = func(ctx context.Context, conn *pgx.Conn) error {
			return w.store.copyEvents(ctx, conn, w.plan.Events, w.plan.AppendedAt)
		}
	}
	tx.fill = func(b *pgx.Batch) {
		if few {
			insertEvents.queue(b, len(w.plan.Events), w.store.eventRow(w.plan.Events, w.plan.AppendedAt))
		}
		for id, reason := range held {
			b.Queue(disabledBySQL, id, ByOperator, reason)
		}
		w.queueRest(b)
	}
	return tx
}

// leaves lets the transaction first delete the n rows that the plan was made of. If some are
// gone, it fails.
func (w *planWrite) leaves(tx *transaction, n int, moved error, sql string, args ...any) {
	if n == 0 {
		return
	}
	var left int
	then := tx.first
	tx.first = func(b *pgx.Batch) {
		b.Queue(sql, args...).QueryRow(func(row pgx.Row) error { return row.Scan(&left) })
		then(b)
	}
	tx.check = func() error {
		if left != n {
			return moved
		}
		return nil
	}
}

// queueEndpoints writes the endpoints, in the order in which every transaction that changes
// several takes them.
func (w *planWrite) queueEndpoints(b *pgx.Batch, held map[int64]string) {
	p := w.plan
	if len(p.Endpoints) > 0 || p.AllEnded || p.ParentsMoved {
		b.Queue(lockAccountsSQL, accountsLock) // before any endpoint, as whoever makes one does
	}
	if p.AllEnded { // before the writes: what begins after it in the batch has not ended
		b.Queue("LOCK TABLE walhook.endpoint IN SHARE ROW EXCLUSIVE MODE")
		b.Queue(noteAllSQL)
		b.Queue(endAllSQL)
	}
	endpoints := slices.Clone(p.Endpoints)
	slices.SortStableFunc(endpoints, func(a, b *route.EndpointWrite) int { return strings.Compare(a.Endpoint.Account, b.Endpoint.Account) })
	for _, one := range endpoints {
		w.store.queueEndpoint(b, one, held)
	}
}

const (
	endTokensSQL = `
		WITH links AS (DELETE FROM walhook.portal_link WHERE account = ANY ($1)),
		sessions AS (DELETE FROM walhook.portal_session WHERE account = ANY ($1))
		DELETE FROM walhook.token WHERE account = ANY ($1)`
	endOnceSQL    = `DELETE FROM walhook.idempotency WHERE account = ANY ($1)`
	endAllOnceSQL = `DELETE FROM walhook.idempotency`

	unroutedSQL = `
		INSERT INTO walhook.unrouted (commit_lsn, ordinal, schema, type, key, reason)
		VALUES ($1::text::pg_lsn, $2, $3, $4, $5, $6)`
)

// queueRest writes all but the endpoints and the events.
func (w *planWrite) queueRest(b *pgx.Batch) {
	p, enc := w.plan, w.store.encoding
	for i := range p.TooLarge {
		queueTooLarge(b, &p.TooLarge[i], enc)
	}
	for _, schema := range p.ForgottenOwners {
		b.Queue(forgetOwnersSQL, schema)
	}
	for _, schema := range p.IncompleteLedgers {
		b.Queue(incompleteSQL, schema)
	}
	w.queueOwners(b)
	w.queueParents(b)
	if p.AllEnded {
		b.Queue(endAllTokensSQL)
		b.Queue(endAllOnceSQL)
	} else if len(p.EndedAccounts) > 0 {
		b.Queue(endTokensSQL, p.EndedAccounts)
		b.Queue(endOnceSQL, p.EndedAccounts)
	}
	w.queueKnown(b)
	w.queueColumns(b)
	queueSums(b, p.Sums)
	for _, e := range p.DayEnds {
		queueDayEnd(b, e)
	}
	if len(p.Missed)+len(p.MissedRows) > 0 {
		b.Queue(countMissedSQL, p.Gap, p.Sent["insert"], p.Sent["update"], p.Sent["delete"], p.Sent["result"], p.Sent["event"])
	}
	queueTaken(b, p.Taken)
	for _, u := range w.unrouted {
		queueUnrouted(b, u, enc)
	}
}

func queueUnrouted(b *pgx.Batch, u route.Unrouted, enc *encoding) {
	schema, key := u.Schema, u.Key
	if u.Unstorable {
		schema, key = inASCII(schema), inASCII(key)
	}
	b.Queue(unroutedSQL, u.Position.Commit.String(), u.Position.Ordinal, enc.text(schema), enc.text(u.Type), enc.text(key), u.Reason)
}

const (
	// A key that cannot be stored is that of no row.
	forgetOwnerSQL = `DELETE FROM walhook.owner WHERE schema = $1 AND convert_to(key, 'UTF8') = $2`

	forgetOwnersSQL = `DELETE FROM walhook.owner WHERE schema = $1`

	incompleteSQL = `DELETE FROM walhook.ledger WHERE schema = $1`

	insertOwnersSQL = `INSERT INTO walhook.owner (schema, key, account, deleted_at, unknown)`
)

// The columns of an owner, as ownerRows gives them. An insertion is half the work of one
// that looks first.
var (
	ownerColumns = []string{"?::text", "?::text", "?::text", "CASE WHEN ?::bool THEN clock_timestamp() END", "?::bool"}

	insertOwners = newRowInsert(insertOwnersSQL, ownerColumns, "")
	upsertOwners = newRowInsert(insertOwnersSQL, ownerColumns, `
		ON CONFLICT (schema, key) DO UPDATE SET account = excluded.account, deleted_at = excluded.deleted_at, unknown = excluded.unknown, hidden = false, former = NULL`)
)

func (w *planWrite) queueOwners(b *pgx.Batch) {
	order := make([]route.RecordKey, 0, len(w.plan.Owners))
	for k, o := range w.plan.Owners {
		if !o.Stored {
			order = append(order, k)
		}
	}
	// Neighbours in the index are written one after the other.
	slices.SortFunc(order, func(a, b route.RecordKey) int {
		return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Key, b.Key))
	})
	inserted, upserted := make(ownerRows, 0, len(order)), ownerRows(nil)
	for _, k := range order {
		o, key := w.plan.Owners[k], w.store.encoding.text(k.Key)
		switch row := (ownerRow{k.Schema, key, o}); {
		case o.Dropped: // as bytes, which every server takes: the key may be what it refuses
			b.Queue(forgetOwnerSQL, k.Schema, []byte(key))
		case o.IsNew && !w.upsert:
			inserted = append(inserted, row)
		default:
			upserted = append(upserted, row)
		}
	}
	insertOwners.queue(b, len(inserted), inserted.write)
	upsertOwners.queue(b, len(upserted), upserted.write)
}

type ownerRow struct {
	schema, key string // as they are stored
	route.OwnerWrite
}

type ownerRows []ownerRow

func (r ownerRows) write(row rowWriter, i int) {
	o := &r[i]
	row.text(o.schema)
	row.text(o.key)
	row.text(o.Account)
	row.boolean(o.Deleted)
	row.boolean(o.Unknown)
}

const (
	writeParentsSQL = `
		INSERT INTO walhook.account (id, parent) SELECT * FROM unnest($1::text[], $2::text[])
		ON CONFLICT (id) DO UPDATE SET parent = excluded.parent, ended_in = NULL`

	// Those that a transaction deletes are kept while it lasts: its rest may
	// come in another batch.
	writeDeletedAccountsSQL = `
		INSERT INTO walhook.account (id, parent, ended_in)
		SELECT id, parent, $3::text::pg_lsn FROM unnest($1::text[], $2::text[]) AS w(id, parent)
		ON CONFLICT (id) DO UPDATE SET parent = excluded.parent, ended_in = excluded.ended_in`

	forgetDeletedAccountsSQL = `DELETE FROM walhook.account WHERE ended_in < $1::text::pg_lsn`

	forgetParentsSQL = `DELETE FROM walhook.account WHERE id = ANY ($1)`

	truncateParentsSQL = `DELETE FROM walhook.account`
)

func (w *planWrite) queueParents(b *pgx.Batch) {
	p := w.plan
	if p.NoAccounts {
		b.Queue(truncateParentsSQL)
	}
	var ids, parents, gone []string
	for id, parent := range p.Parents {
		if parent == "" {
			gone = append(gone, id)
		} else {
			ids, parents = append(ids, id), append(parents, parent)
		}
	}
	if len(gone) > 0 {
		b.Queue(forgetParentsSQL, gone)
	}
	if len(ids) > 0 {
		b.Queue(writeParentsSQL, ids, parents)
	}
	if len(p.DeletedAccounts) > 0 {
		ids := slices.Collect(maps.Keys(p.DeletedAccounts))
		parents := make([]string, len(ids))
		for i, id := range ids {
			parents[i] = p.DeletedAccounts[id]
		}
		b.Queue(writeDeletedAccountsSQL, ids, parents, p.DeletedIn.String())
	}
	if len(gone) > 0 || len(ids) > 0 {
		commit := p.DeletedIn
		if p.Reached != nil {
			commit = p.Reached.Position.Commit
		}
		b.Queue(forgetDeletedAccountsSQL, commit.String())
	}
	if p.ParentsMoved {
		b.Queue(endMovedPortalSQL)
	}
}

const (
	noteKnownSQL      = `INSERT INTO walhook.known_account (id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`
	forgetKnownSQL    = `DELETE FROM walhook.known_account WHERE id = ANY ($1)`
	forgetAllKnownSQL = `DELETE FROM walhook.known_account`
	takeKnownSQL      = `INSERT INTO walhook.known_account (id) SELECT account FROM walhook.snapshot_account`
	loseKnownSQL      = `UPDATE walhook.source SET accounts_known = false WHERE accounts_known`
)

// queueKnown writes which accounts came and went.
func (w *planWrite) queueKnown(b *pgx.Batch) {
	if w.plan.AllEnded {
		b.Queue(forgetAllKnownSQL)
	}
	var there, gone []string
	for id, is := range w.plan.KnownAccounts {
		if is {
			there = append(there, id)
		} else {
			gone = append(gone, id)
		}
	}
	if len(there) > 0 {
		b.Queue(noteKnownSQL, there)
	}
	if len(gone) > 0 {
		b.Queue(forgetKnownSQL, gone)
	}
	if w.plan.LosesAccounts {
		b.Queue(loseKnownSQL)
	}
}

const (
	writeColumnsSQL = `
		INSERT INTO walhook.account_column (account, columns) VALUES ($1, $2)
		ON CONFLICT (account) DO UPDATE SET columns = excluded.columns, deleted_at = NULL`

	// A cascade deletes accounts before what is theirs.
	forgetColumnsSQL = `UPDATE walhook.account_column SET deleted_at = clock_timestamp() WHERE account = ANY ($1)`

	truncateColumnsSQL = `DELETE FROM walhook.account_column`
)

func (w *planWrite) queueColumns(b *pgx.Batch) {
	p := w.plan
	if p.NoAccounts {
		b.Queue(truncateColumnsSQL)
	}
	for account, columns := range p.Columns {
		stored := make([]string, len(columns))
		for i := range columns {
			stored[i] = w.store.encoding.json(columns[i])
		}
		b.Queue(writeColumnsSQL, account, w.store.secrets.SealColumns(account, stored))
	}
	if len(p.DroppedColumns) > 0 {
		b.Queue(forgetColumnsSQL, slices.Collect(maps.Keys(p.DroppedColumns)))
	}
}
