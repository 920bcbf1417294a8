package admin

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// Retried is what a request to retry now did.
type Retried struct {
	Due int64 // events that it made due
	// More says that more than [MaxRetryNow] wait for a retry.
	More bool
	// Probes says that the breaker was open, or the endpoint paused.
	Probes bool
	// Waiting is how many of the named events wait for a retry, due or not, and Idle are
	// the named events that wait for no retry.
	Waiting int
	Idle    []string
}

// MaxRetryNow is the most events that one request makes due: accounts cannot change
// meanwhile.
const MaxRetryNow = 10_000

const (
	// The table is small for the planner, and anybody's rows may be most of it.
	byRetryIndexSQL = `
		SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true),
			set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`

	// SKIP LOCKED leaves out what a sender settles at this moment: that is in flight, and
	// waiting for it could end in a deadlock. A row without next_at waits behind another
	// one of its record.
	// clock_timestamp() could not be looked up in an index.
	retryAllSQL = `
		UPDATE walhook.retry SET next_at = clock_timestamp() WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM walhook.retry
			WHERE endpoint = $1 AND next_at > statement_timestamp() ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED))`

	retryRowsSQL = `
		SELECT n.webhook_id, r.event_id FROM (SELECT DISTINCT webhook_id FROM unnest($2::text[]) AS u(webhook_id)) n
		LEFT JOIN LATERAL (
			SELECT CASE WHEN r.next_at IS NOT NULL THEN r.event_id
				ELSE (SELECT o.event_id FROM walhook.retry o WHERE o.endpoint = $1 AND o.record = r.record ORDER BY o.event_id LIMIT 1) END AS event_id
			FROM (SELECT id FROM walhook.event e WHERE e.webhook_id = n.webhook_id AND e.endpoint = $1 ORDER BY e.id DESC LIMIT 1) e
			CROSS JOIN LATERAL (SELECT * FROM walhook.retry r WHERE r.endpoint = $1 AND r.event_id = e.id LIMIT 1) r) r ON true
		ORDER BY n.webhook_id`

	retryNamedSQL = `
		UPDATE walhook.retry SET next_at = clock_timestamp() WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM walhook.retry
			WHERE endpoint = $1 AND event_id = ANY ($2) AND next_at > statement_timestamp() FOR UPDATE SKIP LOCKED))`

	isDelayedSQL = `
		SELECT coalesce((SELECT l.revision >= p.revision AND (l.open OR coalesce(l.paused_until > clock_timestamp(), false))
			FROM walhook.lane l WHERE l.endpoint = p.id), false) FROM walhook.endpoint p WHERE p.id = $1`

	// The revision stays: what the account set has not changed.
	// Senders find it by changed_at, as any change; people are shown the time before it.
	askRetrySQL = `
		UPDATE walhook.endpoint SET retry_asked = retry_asked + 1, changed_at = n.now, retry_asked_at = n.now, changed_before = ` + shownChangedSQL + `
		FROM (SELECT clock_timestamp() AS now) n WHERE id = $1`

	// shownChangedSQL is when somebody last changed the endpoint.
	shownChangedSQL = `CASE WHEN changed_at = retry_asked_at THEN changed_before ELSE changed_at END`
)

// RetryNow makes due what waits for a retry at one of an account's webhooks, all of it or
// the events with these webhook-ids, and ends a pause and the open time of the breaker.
// An event that waits behind another one of its record is sent after that one, which
// becomes due instead. A [*StateError] says that nothing is sent to the webhook.
// With a key in once, answer writes what is answered; its error undoes everything.
func (a *Admin) RetryNow(ctx context.Context, by Caller, account, webhook string, webhookIDs []string, once Once, answer func(Retried) ([]byte, error)) (done Retried, err error) {
	act := &Act{Action: actRetry}
	_, err = a.operateOnce(ctx, by, account, webhook, act, once, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, []byte, error) {
		if err := checkHeldAboveTx(ctx, tx, by, account, e.ID); err != nil {
			return e, nil, err
		}
		if err := retryTx(ctx, tx, e, webhookIDs, &done); err != nil {
			return e, nil, err
		}
		if done.nothing() {
			act.Action = "" // nobody has anything to do
		} else {
			act.Detail = fmt.Sprintf("events made due: %d", done.Due)
			if _, err := tx.Exec(ctx, askRetrySQL, e.ID); err != nil {
				return e, nil, err
			}
		}
		text, err := answer(done)
		return e, text, err
	})
	return done, err
}

// nothing says that nobody has anything to do.
func (r *Retried) nothing() bool { return len(r.Idle) > 0 && r.Waiting == 0 && !r.Probes }

func retryTx(ctx context.Context, tx pgx.Tx, e EndpointInfo, webhookIDs []string, done *Retried) error {
	if e.State != outbox.EndpointActive {
		return &StateError{e, "walhook sends nothing to the webhook at present (" + e.Reason + "): once it is enabled and has a URL, what waits is sent at once"}
	}
	if err := tx.QueryRow(ctx, isDelayedSQL, e.ID).Scan(&done.Probes); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, byRetryIndexSQL); err != nil {
		return err
	}
	if len(webhookIDs) > 0 {
		return retryNamedTx(ctx, tx, e.ID, webhookIDs, done)
	}
	return retryAllTx(ctx, tx, e.ID, done)
}

func retryAllTx(ctx context.Context, tx pgx.Tx, endpoint int64, done *Retried) error {
	tag, err := tx.Exec(ctx, retryAllSQL, endpoint, MaxRetryNow)
	if err != nil {
		return fmt.Errorf("make retries due: %w", err)
	}
	done.Due = tag.RowsAffected()
	done.More = done.Due == MaxRetryNow
	return nil
}

func retryNamedTx(ctx context.Context, tx pgx.Tx, endpoint int64, webhookIDs []string, done *Retried) error {
	if _, err := tx.Exec(ctx, outbox.ByIndexSQL); err != nil {
		return err
	}
	rows, _ := tx.Query(ctx, retryRowsSQL, endpoint, webhookIDs) // rows have its error
	var webhookID string
	var row *int64
	var due []int64
	_, err := pgx.ForEachRow(rows, []any{&webhookID, &row}, func() error {
		if row == nil {
			done.Idle = append(done.Idle, webhookID)
		} else {
			done.Waiting++
			due = append(due, *row)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("find retries: %w", err)
	}
	if len(due) == 0 && !done.Probes {
		return nil
	}
	tag, err := tx.Exec(ctx, retryNamedSQL, endpoint, due)
	if err != nil {
		return fmt.Errorf("make retries due: %w", err)
	}
	done.Due = tag.RowsAffected()
	return nil
}
