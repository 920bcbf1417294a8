package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// columns are where a row of dueRetriesSQL is scanned to.
func (e *Event) columns() []any {
	return []any{&e.ID, &e.Endpoint, &e.Revision, &e.Record, &e.WebhookID, &e.Schema, &e.Type, &e.CommittedAt, &e.AppendedAt, &e.Format, &e.Body}
}

const (
	// Only lengths are summed, so a row that is left out is not fetched. One
	// clock says what is due, the outbox's: senders' may disagree.
	// This and nextRetrySQL go by now(), the clock of the one transaction that
	// they are asked in: a row that becomes due between the two is in neither
	// by a clock that goes on, and would be forgotten.
	dueRetriesSQL = dueRetriesStartSQL + dueRetriesEndSQL

	// The same of some rows alone.
	dueRetriesOfSQL = dueRetriesStartSQL + ` AND r.event_id = ANY ($6)` + dueRetriesEndSQL

	dueRetriesStartSQL = `
		SELECT e.id, e.endpoint, e.endpoint_revision, e.record, e.webhook_id, e.schema, e.type, e.committed_at, e.appended_at, e.format, ` + bodySQL + `, e.attempts
		FROM (
			SELECT e.*, r.attempts, r.next_at,
				sum(` + sizeSQL + `) OVER (ORDER BY r.next_at, r.event_id) - ` + sizeSQL + ` AS before
			FROM (
				SELECT * FROM walhook.retry r
				WHERE r.endpoint = $1 AND r.next_at <= now() + $2::interval AND r.event_id <> ALL ($3)`

	dueRetriesEndSQL = `
				ORDER BY r.next_at, r.event_id LIMIT $4) r
			JOIN walhook.event e ON e.id = r.event_id) e
		WHERE before < $5 ORDER BY next_at, id`

	dueIDsSQL = `
		SELECT r.event_id FROM walhook.retry r
		WHERE r.endpoint = $1 AND r.next_at <= now() + $2::interval AND r.event_id <> ALL ($3) ORDER BY r.next_at, r.event_id LIMIT $4`

	nextRetrySQL = `
		SELECT walhook.until(min(next_at)) FROM walhook.retry
		WHERE endpoint = $1 AND next_at > now() + $2::interval`
)

// DueRetries reads an endpoint's retry rows that are due. An event that cannot be
// read becomes a dead letter.
func (s *Session) DueRetries(ctx context.Context, q RetryQuery) (Retries, error) {
	if q.Exclude == nil {
		q.Exclude = []int64{}
	}
	due, err := s.dueRetries(ctx, q, nil)
	if err != nil && isReadFault(err) {
		due, err = s.dueEach(ctx, q)
	}
	if err != nil {
		return Retries{}, fmt.Errorf("read due retries of endpoint %d: %w", q.Endpoint, err)
	}
	return due, nil
}

func (s *Session) dueEach(ctx context.Context, q RetryQuery) (due Retries, err error) {
	ids, err := collect[int64](s.store.pool.Query(ctx, dueIDsSQL, q.Endpoint, max(time.Until(q.Now), 0), q.Exclude, q.Limit))
	if err != nil {
		return due, err
	}
	more := len(ids) >= q.Limit
	err = isolate(ids, isReadFault, func(part []int64) error {
		if len(part) == 0 {
			return nil
		}
		read, err := s.dueRetries(ctx, q, part)
		due.Events, due.Next, more = append(due.Events, read.Events...), read.Next, more || read.More
		return err
	}, func(id int64, cause error) error {
		more = true // what waited behind it is due
		return s.store.bury(ctx, s.fenced, loopRetries, id, q.Endpoint, cause)
	})
	due.More = more
	return due, err
}

// dueRetries reads those with the ids, or all that are due for nil.
func (s *Session) dueRetries(ctx context.Context, q RetryQuery, ids []int64) (Retries, error) {
	ahead, maxBytes := max(time.Until(q.Now), 0), max(q.MaxBytes, 1)
	var due Retries
	size := 0
	var next *time.Duration
	both := &pgx.Batch{} // without a BEGIN it is one transaction all the same
	sql, args := dueRetriesSQL, []any{q.Endpoint, ahead, q.Exclude, q.Limit, maxBytes}
	if ids != nil {
		sql, args = dueRetriesOfSQL, append(args, ids)
	}
	both.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
		due.Events, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Event, err error) {
			err = row.Scan(append(e.columns(), &e.Attempts)...)
			e.ReadAt = time.Now()
			if err == nil && e.Body == nil {
				err = errCarrierGone
			}
			size += len(e.Body)
			return e, err
		})
		return err
	})
	both.Queue(nextRetrySQL, q.Endpoint, ahead).QueryRow(func(row pgx.Row) error { return row.Scan(&next) })
	if err := s.store.pool.SendBatch(ctx, both).Close(); err != nil {
		return Retries{}, err
	}
	due.Next = fromNow(next)
	due.More = len(due.Events) >= q.Limit || size >= maxBytes
	return due, nil
}
