package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	// inboxPoll is how often a publisher looks for events of other processes.
	inboxPoll = time.Second

	// inboxChunk bounds one transaction of the inbox, and so do time and
	// statement timeouts: changes of the source may be waiting behind it.
	inboxChunk   = 200
	inboxTimeout = 2 * time.Second
)

const (
	inboxHoldsSQL = `SELECT EXISTS (SELECT FROM walhook.inbox WHERE set_aside_at IS NULL)`

	// A row that somebody locks is left for the next time. What is deleted
	// here is appended by the same transaction: exactly once.
	takeInboxSQL = `
		WITH taken AS (
			DELETE FROM walhook.inbox WHERE id IN (
				SELECT id FROM walhook.inbox WHERE set_aside_at IS NULL AND ($2::bigint[] IS NULL OR id = ANY ($2))
				ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
			RETURNING *)
		SELECT account, above, coalesce(endpoint, 0), webhook_id, record, schema, type, format, body, born_at FROM taken ORDER BY id`

	inboxIDsSQL = `SELECT id FROM walhook.inbox WHERE set_aside_at IS NULL ORDER BY id LIMIT $1`

	setInboxAsideSQL = `UPDATE walhook.inbox SET set_aside_at = clock_timestamp() WHERE id = $1`

	// The place in the source's log is as it was.
	inboxPositionSQL = `
		INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id, messages)
		SELECT $1, commit_lsn, ordinal, xid, flush_lsn, $2, messages FROM walhook.position ORDER BY id DESC LIMIT 1`
)

// Run appends the inbox's events, and what was asked for to be sent again, to
// the log, beside the appends of the
// source's changes and without waiting for any, until ctx ends. It does so only
// while this publisher is the one: from a TakeOver that found a position until
// an append fails. A fault is logged and tried again.
func (p *Publisher) Run(ctx context.Context) error {
	var replays sync.WaitGroup
	replays.Go(func() { p.replay(ctx) })
	defer replays.Wait()
	poll := time.NewTicker(inboxPoll)
	defer poll.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-p.store.inboxed:
		}
		err := errors.Join(p.endReachedDays(ctx), p.sendDays(ctx), p.emptyInbox(ctx), p.sumUnrouted(ctx)) // each whatever the others meet
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrFenced):
			// Another publisher does it.
		case err != nil && !failing:
			p.log.Warn("inbox cannot be appended, it is tried again", zap.Duration("retry_in", inboxPoll), zap.Error(err))
		case err == nil && failing:
			p.log.Info("inbox is appended again")
		}
		failing = err != nil && !errors.Is(err, ErrFenced)
	}
}

// emptyInbox appends what the inbox holds, a chunk at a time: between two, the
// source's changes have their turn.
func (p *Publisher) emptyInbox(ctx context.Context) error {
	for {
		var holds bool
		if err := p.store.pool.QueryRow(ctx, inboxHoldsSQL).Scan(&holds); err != nil || !holds {
			return err
		}
		if n, err := p.appendInbox(ctx); err != nil || n < inboxChunk {
			return err
		}
	}
}

// appendInbox moves a chunk of the inbox to the log. After an error it is not
// known whether that was stored; since the rows and their ids go together, and
// ids that were given are not given again, it may simply be called again. A row
// that cannot be moved by itself stays, and is left out from then on.
func (p *Publisher) appendInbox(ctx context.Context) (n int, err error) {
	n, err = p.moveInbox(ctx, nil)
	if err == nil || !isReadFault(err) {
		return n, err
	}
	ids, err := collect[int64](p.store.pool.Query(ctx, inboxIDsSQL, inboxChunk))
	if err != nil {
		return 0, err
	}
	err = isolate(ids, isReadFault, func(ids []int64) error {
		_, err := p.moveInbox(ctx, ids)
		return err
	}, func(id int64, cause error) error {
		if _, err := p.store.pool.Exec(ctx, setInboxAsideSQL, id); err != nil {
			return fmt.Errorf("set event %d of the inbox aside: %w", id, err)
		}
		p.store.setAside(ctx, loopInbox, strconv.FormatInt(id, 10), 0, asideUnstorable, cause)
		return nil
	})
	return len(ids), err
}

// moveInbox moves the rows with the ids, or the oldest for nil.
func (p *Publisher) moveInbox(ctx context.Context, ids []int64) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return 0, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, inboxTimeout, errors.New("append the inbox: no answer in time"))
	defer cancel()
	p.rotate(ctx)
	r := newRouter(p, nil)
	err = p.store.run(ctx, transaction{
		fence: func(b *pgx.Batch) {
			b.Queue(assertEpochSQL, p.epoch)
			b.Queue(takeInboxSQL, inboxChunk, ids).Query(func(rows pgx.Rows) error {
				var i inboxRow
				_, err := pgx.ForEachRow(rows, i.columns(), func() error {
					n++
					i.route(r)
					return nil
				})
				return err
			})
		},
		copy: func(ctx context.Context, conn *pgx.Conn) error { return p.store.copyEvents(ctx, conn, r.events) },
		fill: func(b *pgx.Batch) {
			r.queueTooLarge(b)
			b.Queue(inboxPositionSQL, p.epoch, p.nextID)
		},
	})
	if err != nil {
		if errors.Is(err, ErrFenced) {
			p.live = false
		}
		return 0, fmt.Errorf("append the inbox: %w", err)
	}
	r.count()
	if len(r.events) > 0 {
		p.store.signalAppended()
	}
	r.done()
	return n, nil
}

// inboxRow is one event as it waits in the inbox.
type inboxRow struct {
	account  string
	above    bool
	endpoint int64 // 0 for the account's own
	event    eventRow
}

func (i *inboxRow) columns() []any {
	e := &i.event
	return []any{&i.account, &i.above, &i.endpoint, &e.webhookID, &e.record, &e.schema, &e.typ, &e.format, &e.body, &e.committedAt}
}

// route finds whom the event is for. An account without an endpoint, or with no
// account above, is told nothing.
func (i *inboxRow) route(r *router) {
	account := i.account
	if i.above {
		account = r.p.parents[account]
	}
	to := r.p.routes[account]
	if i.endpoint != 0 {
		to = r.p.routeTo(account, i.endpoint)
	}
	if to == nil {
		r.tally.skipped[skipNoEndpoint]++
		return
	}
	r.add(to, i.event.committedAt, i.event)
}

// routeTo finds one endpoint of an account; nil when there is none such.
func (p *Publisher) routeTo(account string, endpoint int64) *route {
	if own := p.routes[account]; own != nil && own.endpoint == endpoint {
		return own
	}
	for _, webhook := range p.webhooks[account] {
		if webhook.endpoint == endpoint {
			return webhook
		}
	}
	return nil
}
