package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/retry"
	"walhook/outbox/route"
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
	// A row that somebody locks is left for the next time. NULL ids are the oldest.
	readInboxSQL = `
		SELECT id, account, above, coalesce(endpoint, 0), webhook_id, record, schema, type, format, body, born_at FROM walhook.inbox
		WHERE set_aside_at IS NULL AND ($2::bigint[] IS NULL OR id = ANY ($2)) ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED`

	inboxIDsSQL = `SELECT id FROM walhook.inbox WHERE set_aside_at IS NULL ORDER BY id LIMIT $1`

	setInboxAsideSQL = `UPDATE walhook.inbox SET set_aside_at = clock_timestamp() WHERE id = $1`
)

// Run appends the inbox's events and replays to the event log, beside the appends
// of the source's changes and without waiting for any, until ctx ends. It does so only
// while this publisher is the one: from a TakeOver that found a position until
// an append fails. A fault is logged and tried again.
func (p *Publisher) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	beside.Go(func() { p.replay(ctx) })
	beside.Go(func() { p.announce(ctx) })
	defer beside.Wait()
	poll := time.NewTicker(inboxPoll)
	defer poll.Stop()
	inbox := retry.NewOutage("inbox").Caller()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-p.store.inboxed:
		}
		err := errors.Join(p.endReachedDays(ctx), p.sendDays(ctx), p.emptyInbox(ctx), p.sumUnrouted(ctx), p.keepVisible(ctx)) // each whatever the others meet
		switch {
		case ctx.Err() != nil:
			return nil
		case replaced(err):
			inbox.Abandoned(p.log) // another publisher does it
		case err != nil:
			inbox.Failed(p.log, "append", inboxPoll, err)
		default:
			inbox.Answered(p.log)
		}
	}
}

// beside runs what this publisher does beside its appends, for at most besideTimeout:
// they wait for it, and where the network swallows everything nothing else ends it.
func (p *Publisher) beside(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, besideTimeout, errBeside)
	defer cancel()
	return do(ctx)
}

var errBeside = errors.New("the outbox does not answer: timed out")

// emptyInbox appends what the inbox holds, a chunk at a time: between two, the
// source's changes have their turn.
func (p *Publisher) emptyInbox(ctx context.Context) error {
	for {
		if n, err := p.appendInbox(ctx); err != nil || n < inboxChunk {
			return err
		}
	}
}

// appendInbox moves a chunk of the inbox to the event log. After an error it is not
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
	ctx, cancel := context.WithTimeoutCause(ctx, inboxTimeout, errors.New("append the inbox: timed out"))
	defer cancel()
	p.rotate(ctx)
	rows, err := p.readInbox(ctx, ids)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	plan := route.RouteInbox(p.view, rows)
	err = p.commit(ctx, plan)
	switch {
	case err == nil:
		return len(rows), nil
	case errors.Is(err, errInboxMoved):
		return 0, nil // by a transaction that nobody waited for any more
	case errors.Is(err, errUncertain):
		p.view.NextID = plan.NextID() // ids that may be taken are not given again
	case replaced(err):
		p.live = false // until the reader, whose next append meets the same, takes over again
	}
	return 0, fmt.Errorf("append the inbox: %w", err)
}

func (p *Publisher) readInbox(ctx context.Context, ids []int64) (list []route.InboxRow, err error) {
	rows, err := p.store.pool.Query(ctx, readInboxSQL, inboxChunk, ids)
	if err == nil {
		var i route.InboxRow
		e := &i.Event
		_, err = pgx.ForEachRow(rows, []any{&i.ID, &i.Account, &i.Above, &i.Endpoint, &e.WebhookID, &e.Record, &e.Schema, &e.Type, &e.Format, &e.Body, &e.CommittedAt}, func() error {
			list = append(list, i)
			e.Body = nil // the next row has one of its own
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the inbox: %w", err)
	}
	return list, nil
}

// The notice to the parent account about an endpoint (docs/RECEIVERS.md). It is put
// into the inbox by the transaction that it is about.
const (
	noticeColumns = `(account, above, webhook_id, record, schema, type, body)`

	// Their values, of an account and a reason: a result's flat envelope. to_json
	// escapes what JSON asks for and nothing else.
	noticeSQL = `account, true, 'notice_' || replace(gen_random_uuid()::text, '-', ''), 'notice/' || account, 'webhook.disabled', 'update',
			convert_to('{"type":"update","schema":"webhook.disabled","status":"disabled","verbose":' || to_json(reason) ||
				',"account":' || to_json(account) || '}', 'UTF8')`

	tellDisabledSQL = `
		INSERT INTO walhook.inbox ` + noticeColumns + `
		SELECT ` + noticeSQL + ` FROM (SELECT $1::text AS account, $2::text AS reason) AS d`
)

// TellDisabledTx notifies the parent account that an endpoint of the account was
// disabled. Whoever commits it calls [Access.NotifyInbox] then.
func TellDisabledTx(ctx context.Context, tx pgx.Tx, account, reason string) error {
	_, err := tx.Exec(ctx, tellDisabledSQL, account, reason)
	return err
}
