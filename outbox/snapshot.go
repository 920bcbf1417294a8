package outbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/outbox/route"
	"walhook/outbox/seal"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// beginSnapshotSQL notes, before the slot exists, that it will be ours: an
// interrupted snapshot can then be told from somebody else's slot.
const beginSnapshotSQL = `
	INSERT INTO walhook.source (state, system_id, timeline, database, slot, publication, publication_oid, catalog)
	VALUES ('snapshot', $1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (singleton) DO UPDATE SET
		state = 'snapshot', system_id = excluded.system_id, timeline = excluded.timeline, database = excluded.database,
		slot = excluded.slot, publication = excluded.publication, publication_oid = excluded.publication_oid, catalog = excluded.catalog,
		consistent_point = NULL, changed_at = clock_timestamp()`

// BeginSnapshot notes durably that the source's slot is about to be created.
func (p *Publisher) BeginSnapshot(ctx context.Context, source schemas.Source) error {
	err := pgx.BeginFunc(ctx, p.store.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, otherSourceSQL, source.SystemID, source.Timeline); err != nil {
			return err
		}
		return beginSnapshotTx(ctx, tx, source)
	})
	if err != nil {
		return fmt.Errorf("record the start of the initial snapshot: %w", err)
	}
	return nil
}

func beginSnapshotTx(ctx context.Context, tx pgx.Tx, source schemas.Source) error {
	_, err := tx.Exec(ctx, beginSnapshotSQL, source.SystemID, source.Timeline, source.Database,
		source.Slot, source.Publication, source.PublicationOID, source.Catalog)
	return err
}

// SnapshotBegun says whether a snapshot for this slot was begun and not
// finished: the slot, if there is one, is then a leftover of ours.
func (p *Publisher) SnapshotBegun(ctx context.Context, slot string) (bool, error) {
	var begun bool
	const sql = `SELECT EXISTS (SELECT FROM walhook.source WHERE state = 'snapshot' AND slot = $1)`
	if err := p.store.pool.QueryRow(ctx, sql, slot).Scan(&begun); err != nil {
		return false, fmt.Errorf("check for an interrupted snapshot: %w", err)
	}
	return begun, nil
}

// Checkpoint reads what is stored of the reader's progress, without taking over.
func (p *Publisher) Checkpoint(ctx context.Context) (schemas.Checkpoint, error) {
	return p.store.Checkpoint(ctx)
}

const (
	// It exists only inside the transaction. It is no temporary table: those
	// take a right that the outbox's role need not have.
	snapshotTableSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_account (
			account text PRIMARY KEY, url text NOT NULL, state text NOT NULL, reason text NOT NULL,
			secret text NOT NULL, own_secret boolean NOT NULL
		)`

	// Secrets that are encrypted at rest look different each time.
	takeSecretsSQL = `
		UPDATE walhook.endpoint e SET secret = s.secret, own_secret = s.own_secret,
			older_secrets = ` + seal.OlderSecretsSQL + `, older_until = ` + seal.OlderUntilSQL + `,
			previous_secret = e.secret, previous_until = clock_timestamp() + $1::interval,
			revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		FROM walhook.snapshot_account s
		WHERE s.account = e.account AND e.webhook = 'account' AND (s.own_secret OR e.own_secret) AND s.secret <> e.secret`

	// Of those whose URL was set it returns the ones for which that concerns a resync.
	mergeAccountsSQL = `
		WITH merged AS (
		INSERT INTO walhook.endpoint AS e (account, url, state, reason, secret, own_secret, ordering)
		SELECT account, url, state, reason, secret, own_secret, coalesce((SELECT o.ordering FROM walhook.account_ordering o WHERE o.account = s.account), 'record')
		FROM walhook.snapshot_account s WHERE url <> ''
		ON CONFLICT (account, webhook) DO UPDATE SET
			url = excluded.url, ` + urlStateSQL + `,
			ended_at = NULL, revision = e.revision + (e.revision < 9223372036854775807)::int, changed_at = clock_timestamp()
		WHERE e.url IS DISTINCT FROM excluded.url OR e.state = 'cleared' OR e.ended_at IS NOT NULL
		RETURNING id, initial_state)
		SELECT id FROM merged m WHERE initial_state OR EXISTS (SELECT FROM walhook.resync r WHERE r.endpoint = m.id AND r.done_at IS NULL)`

	clearAccountsSQL = `
		UPDATE walhook.endpoint e SET ` + clearedSQL + `, feed_from = $2,
			revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE webhook = 'account' AND state <> 'cleared'
			AND EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = e.account AND s.url = '')`

	endAccountsSQL = `
		UPDATE walhook.endpoint e SET ended_at = clock_timestamp(), revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE ended_at IS NULL AND account <> ''
			AND NOT EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = e.account)`

	// The ordering of an account that is gone, or comes back after its end.
	forgetOrderingsSQL = `
		DELETE FROM walhook.account_ordering o
		WHERE NOT EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = o.account)
			OR EXISTS (SELECT FROM walhook.ended_account e WHERE e.account = o.account)`

	// An account that ended does not come back with another of its id.
	retireEndedSQL = `
		UPDATE walhook.endpoint e SET webhook = 'ended-' || id, deleted_at = clock_timestamp(),
			revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE webhook = 'account' AND ended_at IS NOT NULL
			AND EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = e.account)`

	retireEndedWebhooksSQL = `
		UPDATE walhook.endpoint e SET ` + DeletedSQL + `$1, feed_from = $2, revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE webhook <> 'account' AND ended_at IS NOT NULL AND deleted_at IS NULL
			AND EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = e.account)`

	noteGoneAccountsSQL = `
		INSERT INTO walhook.ended_account (account)
		SELECT DISTINCT account FROM walhook.endpoint e
		WHERE deleted_at IS NULL AND account <> '' AND NOT EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = e.account)
		ON CONFLICT DO NOTHING`

	forgetEndedSQL = `
		DELETE FROM walhook.ended_account e
		WHERE EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = e.account)`

	endGoneTokensSQL = `
		WITH links AS (
			DELETE FROM walhook.portal_link l
			WHERE NOT EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = l.account)),
		sessions AS (
			DELETE FROM walhook.portal_session p
			WHERE NOT operator AND NOT EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = p.account))
		DELETE FROM walhook.token t
		WHERE NOT EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = t.account)`

	endGoneOnceSQL = `
		DELETE FROM walhook.idempotency i
		WHERE NOT EXISTS (SELECT FROM walhook.snapshot_account s WHERE s.account = i.account)`

	sourceReadySQL = `
		UPDATE walhook.source SET state = 'ready', consistent_point = $1::text::pg_lsn, changed_at = clock_timestamp(),
			visible_lsn = $1::text::pg_lsn, visible_xmin = $2, visible_event = CASE WHEN $3 THEN $4::bigint ELSE visible_event END,
			visible_published = nullif($5, '')
		WHERE state = 'snapshot'`

	completeSQL = `
		WITH former AS (DELETE FROM walhook.ledger WHERE NOT schema = ANY ($1))
		INSERT INTO walhook.ledger (schema) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`

	accountsKnownSQL = `UPDATE walhook.source SET accounts_known = $1`
)

// snapshotChunk is how many rows are sent at a time.
const snapshotChunk = 5000

// LoadSnapshot stores the accounts and owners that fill writes, and with them
// the slot's consistent point as the first position, in one transaction: an
// interrupted snapshot leaves nothing. What was known of accounts and owners
// before is replaced. After a gap it is compared with that, and what endpoints missed is
// stored too: the next TakeOver appends it.
func (p *Publisher) LoadSnapshot(ctx context.Context, point schemas.LSN, fill func(catalog.SnapshotSink) error) error {
	err := p.transact(ctx, func(tx pgx.Tx) error {
		w := &SnapshotWriter{tx: tx, store: p.store}
		// Reading the source takes as long as it takes.
		for _, sql := range []string{
			"SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0",
			snapshotTableSQL, snapshotTakenSQL,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		var err error
		if w.gap, err = p.openReconciliation(ctx, tx, w); err != nil {
			return err
		}
		forget := "TRUNCATE walhook.account, walhook.account_column, walhook.table_description"
		if w.gap == nil {
			forget += ", walhook.owner, walhook.missed, walhook.missed_row"
		}
		if _, err := tx.Exec(ctx, forget); err != nil {
			return err
		}
		if err := fill(w); err != nil {
			return err
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
		if w.gap != nil && !w.compared {
			return errors.New("the snapshot was not compared with what was known before the gap")
		}
		if err := w.takeRowsTx(ctx); err != nil {
			return err
		}
		return p.finishSnapshotTx(ctx, tx, w, point)
	})
	if err != nil {
		return fmt.Errorf("store the initial snapshot: %w", err)
	}
	return nil
}

func (p *Publisher) finishSnapshotTx(ctx context.Context, tx pgx.Tx, w *SnapshotWriter, point schemas.LSN) error {
	if err := p.mergeAccountsTx(ctx, tx, p.given, w.gap != nil); err != nil {
		return err
	}
	if w.gap == nil { // what changed behind a resync's cursor is told by nobody
		if _, err := tx.Exec(ctx, restartResyncSQL+"true"); err != nil {
			return err
		}
	}
	tag, err := tx.Exec(ctx, sourceReadySQL, point.String(), int64(w.visible.Xmin), w.gap == nil, p.view.NextID, w.visible.Published)
	if err == nil && tag.RowsAffected() == 0 {
		err = errors.New("another setup replaced this snapshot")
	}
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, acceptGapsSQL, point.String()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, dropPendingSQL); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, completeSQL, p.given.Ledgers()); err != nil {
		return err
	}
	if err := p.putCatalogTx(ctx, tx, p.given, point); err != nil {
		return err
	}
	return p.putPositionTx(ctx, tx, point)
}

// mergeAccountsTx makes endpoints and accounts what the account table says.
// Where later is set, the accounts that are gone end when what they missed is appended.
func (p *Publisher) mergeAccountsTx(ctx context.Context, tx pgx.Tx, cat *catalog.Catalog, later bool) error {
	end := endAccountsSQL
	if later {
		end = "SELECT"
	}
	type step struct {
		sql  string
		args []any
	}
	for _, merge := range []step{
		// Whoever changes several endpoints takes them in one order, or all.
		{lockAccountsSQL, []any{accountsLock}},
		{"LOCK TABLE walhook.endpoint IN SHARE ROW EXCLUSIVE MODE", nil},
		{retireEndedWebhooksSQL, []any{reasonEnded, int64(math.MaxInt64)}},
		{retireEndedSQL, nil},
		{forgetOrderingsSQL, nil},
		{takeSecretsSQL, []any{secretOverlap}},
	} {
		if _, err := tx.Exec(ctx, merge.sql, merge.args...); err != nil {
			return err
		}
	}
	set, err := collect[int64](tx.Query(ctx, mergeAccountsSQL))
	if err != nil {
		return err
	}
	if err := urlsSetTx(ctx, tx, set); err != nil {
		return err
	}
	for _, merge := range []step{
		{clearAccountsSQL, []any{reasonCleared, p.view.NextID}},
		{end, nil},
		{noteGoneAccountsSQL, nil},
		{endGoneTokensSQL, nil},
		{endMovedPortalSQL, nil},
		{endGoneOnceSQL, nil},
		{forgetEndedSQL, nil},
		{forgetAllKnownSQL, nil},
		{takeKnownSQL, nil},
		{accountsKnownSQL, []any{cat.Account.Table != schemas.TableName{}}},
		{"DROP TABLE walhook.snapshot_account", nil},
	} {
		if _, err := tx.Exec(ctx, merge.sql, merge.args...); err != nil {
			return err
		}
	}
	if _, err := applyHoldsTx(ctx, tx, ""); err != nil {
		return err
	}
	return FollowHoldsTx(ctx, tx, "")
}

// putPositionTx makes a snapshot's point the stored position.
func (p *Publisher) putPositionTx(ctx context.Context, tx pgx.Tx, point schemas.LSN) error {
	_, err := tx.Exec(ctx, writePositionSQL, append(positionRow{}.first(p.epoch, p.view.NextID), point.String(), int64(0), int64(0), point.String(), true, nil)...)
	return err
}

// SnapshotWriter takes what a snapshot reads. It is valid only inside LoadSnapshot or
// Adopt.
type SnapshotWriter struct {
	tx       pgx.Tx
	store    *Store
	accounts [][]any
	parents  [][]any
	owners   [][]any
	columns  [][]any
	taken    [][]any
	visible  schemas.Visible
	gap      *reconciliation // nil where nothing is compared
	compared bool

	described []*catalog.TableDescription

	replaced map[route.RecordKey]bool // keys, and with no schema account ids, that hold U+FFFD
}

// Account stores one row of the account table.
func (w *SnapshotWriter) Account(ctx context.Context, a schemas.Account) error {
	// As a change of the row brings them, whatever the source's encoding.
	id := a.ID
	for _, text := range []*string{&a.ID, &a.URL, &a.Parent, &a.Secret} {
		*text = schemas.Storable(*text)
	}
	if w.again("", a.ID) {
		w.store.log.Error("account left out: its id equals another one after replacing bytes that are not UTF-8", zap.Int("bytes", len(id)))
		return nil
	}
	a.URL = w.store.encoding.url(a.URL)
	for i := range a.Columns {
		a.Columns[i] = w.store.encoding.json(schemas.Storable(a.Columns[i]))
	}
	if a.ID == NoAccount {
		w.store.log.Warn("account left out: its id is empty, give it one in the source")
		return nil
	}
	if len(a.ID) > schemas.MaxAccountBytes {
		w.store.log.Warn("account left out: its id is too long", zap.Int("bytes", len(a.ID)), zap.Int("max_bytes", schemas.MaxAccountBytes))
		return nil
	}
	if parent := route.ParentOf(a.ID, a.Parent); parent != "" {
		w.parents = append(w.parents, []any{a.ID, parent})
	}
	if len(a.Columns) > 0 {
		w.columns = append(w.columns, []any{a.ID, w.store.secrets.SealColumns(a.ID, a.Columns)})
	}
	state, reason := stateOfURL(a.URL)
	secret := a.Secret
	if secret == "" {
		secret = seal.NewSecret()
	}
	of := seal.Holder{Account: a.ID, Webhook: AccountWebhook}
	w.accounts = append(w.accounts, []any{a.ID, w.store.secrets.SealURL(a.URL, of), string(state), reason, w.store.secrets.Seal(secret, of), a.Secret != ""})
	return w.flushAt(ctx, snapshotChunk)
}

// Owner stores whose one record is.
func (w *SnapshotWriter) Owner(ctx context.Context, edge schemas.OwnerEdge) error {
	account := schemas.Storable(edge.Account)
	edge.Key = schemas.Storable(edge.Key)
	if w.again(edge.Schema, edge.Key) {
		return nil // which of the two it is cannot be told
	}
	if len(account) > schemas.MaxAccountBytes {
		account = "" // as a change of the record would find
	}
	w.owners = append(w.owners, []any{edge.Schema, w.store.encoding.text(edge.Key), account})
	return w.flushAt(ctx, snapshotChunk)
}

// Row notes a row of the tables of results and events.
func (w *SnapshotWriter) Row(ctx context.Context, of catalog.RowTable, digest [16]byte) error {
	w.taken = append(w.taken, []any{string(of), digest[:]})
	return w.flushAt(ctx, snapshotChunk)
}

// again says whether a text that holds a replaced byte was there before: two
// that differ in such bytes alone are one, and would end the whole snapshot.
func (w *SnapshotWriter) again(schema, text string) bool {
	if !strings.Contains(text, "\uFFFD") {
		return false
	}
	k := route.RecordKey{Schema: schema, Key: text}
	if w.replaced[k] {
		return true
	}
	if w.replaced == nil {
		w.replaced = map[route.RecordKey]bool{}
	}
	w.replaced[k] = true
	return false
}

func (w *SnapshotWriter) flushAt(ctx context.Context, size int) error {
	if len(w.accounts) < size && len(w.owners) < size && len(w.taken) < size {
		return nil
	}
	return w.flush(ctx)
}

func (w *SnapshotWriter) flush(ctx context.Context) error {
	for _, part := range []struct {
		rows    *[][]any
		what    string
		table   string
		columns []string
	}{
		{&w.accounts, "accounts", "snapshot_account", []string{"account", "url", "state", "reason", "secret", "own_secret"}},
		{&w.parents, "parent accounts", "account", []string{"id", "parent"}},
		{&w.columns, "accounts' columns", "account_column", []string{"account", "columns"}},
		{&w.taken, "rows of results and events", "snapshot_taken", []string{"type", "digest"}},
	} {
		if len(*part.rows) == 0 { // the table may exist only where there are some
			continue
		}
		if _, err := w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", part.table}, part.columns, pgx.CopyFromRows(*part.rows)); err != nil {
			return fmt.Errorf("copy %d %s: %w", len(*part.rows), part.what, err)
		}
		clear(*part.rows)
		*part.rows = (*part.rows)[:0]
	}
	return w.flushOwners(ctx)
}

const addOwnersSQL = `
	INSERT INTO walhook.owner (schema, key, account) SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
	ON CONFLICT (schema, key) DO NOTHING`

// flushOwners copies owners. Where a catalog's key is not unique in its table, the first
// row of a key counts until one of them changes.
func (w *SnapshotWriter) flushOwners(ctx context.Context) error {
	if len(w.owners) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, w.tx, func(tx pgx.Tx) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"walhook", "owner"}, []string{"schema", "key", "account"}, pgx.CopyFromRows(w.owners))
		return err
	})
	if pgsession.State(err) == codeUniqueViolation {
		var columns [3][]string
		for _, row := range w.owners {
			for i := range columns {
				columns[i] = append(columns[i], row[i].(string))
			}
		}
		var tag pgconn.CommandTag
		tag, err = w.tx.Exec(ctx, addOwnersSQL, columns[0], columns[1], columns[2])
		if err == nil {
			w.store.log.Warn("the key of a schema is not unique in its table, the first of the records with one key counts",
				zap.String("schema", columns[0][0]), zap.Int64("records", int64(len(w.owners))-tag.RowsAffected()))
		}
	}
	if err != nil {
		return fmt.Errorf("copy %d owners: %w", len(w.owners), err)
	}
	clear(w.owners)
	w.owners = w.owners[:0]
	return nil
}
