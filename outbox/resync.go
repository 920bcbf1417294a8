package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/internal/retry"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// A resync sends the present state of an account's records to one endpoint, while the
// source goes on changing them. The publisher works it off in passes. A pass
//
//  1. begins to note for which records it appends events of the endpoint ([tracker]);
//  2. opens a snapshot of the source at a position C of its WAL: all that committed before
//     C, and nothing else;
//  3. waits until it has stored the WAL up to C, so that no older event comes later;
//  4. appends the snapshot's rows as events, a chunk at a time, and with each chunk how far
//     it is. It leaves out each record of which it has appended an event that committed at
//     C or later.
//
// So what an endpoint gets of a record never goes backwards, and ends with the source's
// state. A pass that cannot go on ends, and the next one continues behind the last chunk at
// another position: the rows before it are sent, and what changed since is in the stream.

// Snapshots opens the source for resyncs.
type Snapshots interface {
	// OpenSnapshot opens the tables of a catalog at a position from now on. It may wait
	// for the transactions that run on the source.
	OpenSnapshot(context.Context, *catalog.Catalog) (Snapshot, error)
}

// Snapshot is the state of the source at one position. One goroutine uses it.
type Snapshot interface {
	Point() schemas.LSN
	// Relation is a schema's table as the rows are shaped; nil, with a reason, where its
	// rows cannot be read.
	Relation(schema string) (relation *schemas.Relation, refused string)
	// Rows calls f with rows in the order of their keys; f may keep them.
	Rows(ctx context.Context, query SourceQuery, f func(SourceRow) error) error
	// Count says how many rows a query has, or a few more.
	Count(ctx context.Context, query SourceQuery) (int64, error)
	Close(context.Context)
}

// SourceQuery says which rows of a schema to read.
type SourceQuery struct {
	Schema   string
	Accounts []string
	After    [][]byte // a row's At: only rows behind it; nil for all
}

// SourceRow is a row of the source and whose it is.
type SourceRow struct {
	Key, Account string
	Tuple        schemas.Tuple
	At           [][]byte // where it stands in the order of keys
}

const (
	// resyncPoll is how often a publisher looks for resyncs of other processes. It tries one
	// again that failed after resyncRetry, and then after twice as long each time, up to
	// resyncRetryMost.
	resyncPoll      = time.Second
	resyncRetry     = 2 * time.Second
	resyncRetryMost = time.Minute

	// resyncsAtOnce is how many passes run at once.
	resyncsAtOnce = 4

	// passTime bounds how long a pass holds a snapshot of the source, since that keeps
	// VACUUM from removing what is deleted meanwhile.
	passTime = 5 * time.Minute
)

const (
	openResyncsSQL = `SELECT id FROM walhook.resync WHERE done_at IS NULL ORDER BY id LIMIT 1000`

	readResyncSQL = `
		SELECT r.endpoint, r.kind, coalesce(r.schema, ''), r.numbered, r.sent, r.timeline, r.at_schema, r.at_key, r.started_at IS NOT NULL, p.account, p.state = 'cleared' OR p.deleted_at IS NOT NULL
		FROM walhook.resync r JOIN walhook.endpoint p ON p.id = r.endpoint WHERE r.id = $1 AND r.done_at IS NULL`

	endResyncByIDSQL = `UPDATE walhook.resync SET done_at = clock_timestamp(), reason = $2 WHERE id = $1 AND done_at IS NULL`

	// A resync whose endpoint is no more.
	endOrphanResyncSQL = `
		UPDATE walhook.resync r SET done_at = clock_timestamp(), reason = $2
		WHERE id = $1 AND done_at IS NULL AND NOT EXISTS (SELECT FROM walhook.endpoint p WHERE p.id = r.endpoint)`

	forgetResyncKeySQL = `UPDATE walhook.resync SET at_key = NULL WHERE id = $1`

	totalSQL = `UPDATE walhook.resync SET total = $2, started_at = coalesce(started_at, clock_timestamp()) WHERE id = $1`

	stepResyncSQL = `
		UPDATE walhook.resync SET numbered = $3, sent = $4, timeline = $5, at_schema = $6, at_key = $7,
			started_at = coalesce(started_at, clock_timestamp()), done_at = CASE WHEN $8 THEN clock_timestamp() END
		WHERE id = $1 AND numbered = $2 AND done_at IS NULL RETURNING true`

	forgetResyncsSQL = `DELETE FROM walhook.resync WHERE done_at < statement_timestamp() - $1::interval`

	// The next statements follow a URL that was set; a condition on the endpoint p follows.
	// A resync of a webhook with initial state ends, and another one begins.
	supersedeResyncSQL = `
		UPDATE walhook.resync r SET done_at = clock_timestamp(), reason = '` + ReasonURLSet + `'
		FROM walhook.endpoint p WHERE p.id = r.endpoint AND r.done_at IS NULL AND p.initial_state AND `

	initialStateSQL = `
		INSERT INTO walhook.resync (endpoint, kind)
		SELECT p.id, 'insert' FROM walhook.endpoint p WHERE p.initial_state AND p.state <> 'cleared' AND `

	unlessOneRunsSQL = ` ON CONFLICT (endpoint) WHERE done_at IS NULL DO NOTHING`

	// restartResyncSQL has a resync send all records again, as whoever has a new URL has got
	// none of them. The number refuses a step that is being made.
	restartResyncSQL = `
		UPDATE walhook.resync r SET at_schema = '', at_key = NULL, sent = 0, numbered = r.numbered + 1
		FROM walhook.endpoint p WHERE p.id = r.endpoint AND r.done_at IS NULL AND `

	isWebhookSQL = `p.account = $1 AND p.webhook = $2`
)

// QueueURLSet has a webhook whose URL was set get the present state from its beginning: where
// it is to begin with it, and where a resync is under way.
func QueueURLSet(b *pgx.Batch, account, webhook string) {
	for _, sql := range []string{
		supersedeResyncSQL + isWebhookSQL, initialStateSQL + isWebhookSQL + unlessOneRunsSQL, restartResyncSQL + "NOT p.initial_state AND " + isWebhookSQL,
	} {
		b.Queue(sql, account, webhook)
	}
}

// QueueFilterWidened has a resync of a webhook send all records again, because the webhook
// now wants some that the resync has passed. One of a single schema only does so where
// schemas are not all that changed.
func QueueFilterWidened(b *pgx.Batch, account, webhook string, schemasOnly bool) {
	b.Queue(restartResyncSQL+"(r.schema IS NULL OR NOT $3) AND "+isWebhookSQL, account, webhook, schemasOnly)
}

// urlsSetTx is QueueURLSet for endpoints.
func urlsSetTx(ctx context.Context, tx pgx.Tx, ids []int64) error {
	for _, sql := range []string{
		supersedeResyncSQL + "p.id = ANY ($1)", initialStateSQL + "p.id = ANY ($1)" + unlessOneRunsSQL, restartResyncSQL + "NOT p.initial_state AND p.id = ANY ($1)",
	} {
		if _, err := tx.Exec(ctx, sql, ids); err != nil {
			return fmt.Errorf("begin with the present state where a URL was set: %w", err)
		}
	}
	return nil
}

// The reasons for which a resync ends before its end.
const (
	// ReasonURLSet ends a resync when the URL is set of a webhook with initial state.
	ReasonURLSet    = "the URL was set: another one begins, with all records"
	endNoRecords    = "the webhook does not get record events of this type any more"
	endSchemaGone   = "the catalog no longer names the schema"
	endSchemaUnread = "the rows of the schema cannot be read: "
)

var (
	// errResyncMoved says that a step of a resync was made by an earlier transaction, or
	// that the resync ended.
	errResyncMoved = errors.New("the resync has ended, or another transaction has continued it")

	// errNextPass ends a pass that another one continues.
	errNextPass = errors.New("another pass continues the resync")

	// errNotPublishing says that this publisher is not the one.
	errNotPublishing = errors.New("another process publishes")
)

// resync is a request that is worked off.
type resync struct {
	id, endpoint   int64
	account        string
	kind           schemas.Kind
	schema         string // "" for all
	numbered, sent int64
	timeline       string
	atSchema       string
	atKey          [][]byte
	started, gone  bool
}

// Resync works off resyncs beside the appends until ctx ends, while this publisher is the
// one. How far each is is stored with what it appends, so another process may continue.
func (p *Publisher) Resync(ctx context.Context, from Snapshots) error {
	var passes sync.WaitGroup
	defer passes.Wait()
	ended := make(chan passEnd)
	running, notBefore, failed := map[int64]bool{}, map[int64]time.Time{}, map[int64]int{}
	opening := make(chan struct{}, 1) // one snapshot is opened at a time
	outage := retry.NewOutage("resyncs").Caller()
	poll := time.NewTicker(resyncPoll)
	defer poll.Stop()
	for {
		ids, err := p.openResyncs(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			outage.Failed(p.log, "read", resyncPoll, err)
		default:
			outage.Answered(p.log)
		}
		// Those that have waited longest come first.
		slices.SortStableFunc(ids, func(a, b int64) int { return notBefore[a].Compare(notBefore[b]) })
		for _, id := range ids {
			if running[id] || len(running) == resyncsAtOnce || time.Now().Before(notBefore[id]) {
				continue
			}
			running[id] = true
			passes.Go(func() {
				err := p.resyncPass(ctx, from, opening, id)
				select {
				case ended <- passEnd{id, err}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-p.resyncAsked:
		case end := <-ended:
			delete(running, end.id)
			wait, failure := p.afterPass(ctx, end, failed[end.id])
			if notBefore[end.id] = time.Now().Add(wait); failure {
				failed[end.id]++
			} else {
				delete(failed, end.id)
			}
			if len(notBefore) > 1000 && len(running) == 0 {
				clear(notBefore)
				clear(failed)
			}
		}
	}
}

// passEnd is how a pass of a resync ended.
type passEnd struct {
	id  int64
	err error
}

// afterPass logs how a pass ended, and says how long the next one waits, and whether that is
// one failure more than before.
func (p *Publisher) afterPass(ctx context.Context, end passEnd, failures int) (wait time.Duration, failure bool) {
	switch err := end.err; {
	case err == nil, ctx.Err() != nil, errors.Is(err, errNextPass):
		return 0, false
	case errors.Is(err, errNotPublishing), replaced(err), errors.Is(err, errResyncMoved):
		return resyncPoll, false
	default:
		wait := min(resyncRetry<<min(failures, 10), resyncRetryMost)
		p.log.Warn("resync interrupted, it continues where it was", zap.Int64("resync", end.id), zap.Duration("retry_in", wait), zap.Error(err))
		return wait, true
	}
}

// openResyncs lists the resyncs that are to be worked off; none while another process
// publishes.
func (p *Publisher) openResyncs(ctx context.Context) ([]int64, error) {
	p.mu.Lock()
	live := p.live
	p.mu.Unlock()
	if !live {
		return nil, nil
	}
	return collect[int64](p.store.pool.Query(ctx, openResyncsSQL))
}

func (p *Publisher) readResync(ctx context.Context, id int64) (r resync, open bool, err error) {
	r.id = id
	var kind string
	err = p.store.pool.QueryRow(ctx, readResyncSQL, id).
		Scan(&r.endpoint, &kind, &r.schema, &r.numbered, &r.sent, &r.timeline, &r.atSchema, &r.atKey, &r.started, &r.account, &r.gone)
	if isNoRows(err) {
		_, err := p.store.pool.Exec(ctx, endOrphanResyncSQL, id, reasonGone)
		return r, false, err
	}
	if err != nil {
		return r, false, fmt.Errorf("read resync %d: %w", id, err)
	}
	r.kind = schemas.Update
	if kind == schemas.Insert.String() {
		r.kind = schemas.Insert
	}
	return r, true, nil
}

// endResync ends a resync before its end.
func (p *Publisher) endResync(ctx context.Context, r *resync, reason string) error {
	_, err := p.store.pool.Exec(ctx, endResyncByIDSQL, r.id, reason)
	if err != nil {
		return fmt.Errorf("end resync %d: %w", r.id, err)
	}
	p.log.Info("resync ended early", zap.Int64("resync", r.id), zap.Int64("endpoint", r.endpoint), zap.Int64("records", r.sent), zap.String("reason", reason))
	return nil
}

// continues lets the transaction first store how far the plan's resync is. If another one
// has done so, or the resync has ended, it fails.
func (w *planWrite) continues(tx *transaction) {
	s := w.plan.Resync
	if s == nil {
		return
	}
	stored := false
	then := tx.first
	tx.first = func(b *pgx.Batch) {
		b.Queue(stepResyncSQL, s.ID, s.From, s.Numbered, s.Sent, s.Timeline, s.Schema, s.Key, s.Done).QueryRow(func(row pgx.Row) error {
			if err := row.Scan(&stored); !isNoRows(err) {
				return err
			}
			return nil
		})
		then(b)
	}
	tx.check = func() error {
		if !stored {
			return errResyncMoved
		}
		return nil
	}
}
