package outbox

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
)

// The reads of the log stop at a number of bytes as well as of rows: bodies
// may be large, and what is read is held in memory. The running sum needs only
// their lengths, so a row that is left out is never fetched.
const (
	eventColumns = `id, endpoint, revision, record, webhook_id, schema, type, committed_at, body`

	// Followed by a filter and tailEndSQL.
	tailShardsSQL   = tailStartSQL + `e.endpoint % 32 = ANY ($3)`
	tailEndpointSQL = tailStartSQL + `e.endpoint = $3`

	tailStartSQL = `
		SELECT ` + eventColumns + ` FROM (
			SELECT e.*, sum(octet_length(e.body)) OVER (ORDER BY e.id) - octet_length(e.body) AS before
			FROM walhook.event e
			WHERE e.id > $1 AND e.id <= $2 AND `
	tailEndSQL = `
			ORDER BY e.id LIMIT $4) t
		WHERE before < $5 ORDER BY id`

	// An event with an attempt has been settled by it or is in retry.
	unsettledSQL = `
		AND NOT EXISTS (SELECT FROM walhook.attempt a WHERE a.endpoint = e.endpoint AND a.event_id = e.id)
		AND NOT EXISTS (SELECT FROM walhook.retry r WHERE r.endpoint = e.endpoint AND r.event_id = e.id)
		AND NOT EXISTS (SELECT FROM walhook.dead_letter d WHERE d.endpoint = e.endpoint AND d.event_id = e.id)`
)

// Tail reads the log: the events of the held shards, or of one endpoint, in
// order of id. Fewer than q.Limit events with fewer than q.MaxBytes say that
// the range is read to its end.
func (s *Session) Tail(ctx context.Context, q TailQuery) ([]Event, error) {
	upto := q.Upto
	if upto == 0 {
		upto = math.MaxInt64
	}
	sql, whose := tailShardsSQL, any(q.Shards)
	if q.Endpoint != 0 {
		sql, whose = tailEndpointSQL, q.Endpoint
	}
	if q.Unsettled {
		sql += unsettledSQL
	}
	rows, err := s.store.pool.Query(ctx, sql+tailEndSQL, q.After, upto, whose, q.Limit, max(q.MaxBytes, 1))
	var events []Event
	if err == nil {
		events, err = pgx.CollectRows(rows, scanEvent)
	}
	if err != nil {
		return nil, fmt.Errorf("read the log after event %d: %w", q.After, err)
	}
	return events, nil
}

func scanEvent(row pgx.CollectableRow) (e Event, err error) {
	return e, row.Scan(&e.ID, &e.Endpoint, &e.Revision, &e.Record, &e.WebhookID, &e.Schema, &e.Type, &e.CommittedAt, &e.Body)
}

const (
	dueRetriesSQL = `
		SELECT e.id, e.endpoint, e.revision, e.record, e.webhook_id, e.schema, e.type, e.committed_at, e.body, r.attempts
		FROM walhook.retry r JOIN walhook.event e ON e.id = r.event_id
		WHERE r.endpoint = $1 AND r.next_at <= $2 AND r.event_id <> ALL ($3)
		ORDER BY r.next_at, r.event_id LIMIT $4`

	nextRetrySQL = `SELECT min(next_at) FROM walhook.retry WHERE endpoint = $1 AND next_at > $2`
)

// DueRetries reads an endpoint's retry rows due at now, oldest first, without
// those named in exclude (already in flight), and the time of the next one
// that is not yet due (zero for none).
func (s *Session) DueRetries(ctx context.Context, endpoint int64, now time.Time, limit int, exclude []int64) (due []Event, next time.Time, err error) {
	if exclude == nil {
		exclude = []int64{}
	}
	rows, err := s.store.pool.Query(ctx, dueRetriesSQL, endpoint, now, exclude, limit)
	if err == nil {
		due, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Event, err error) {
			return e, row.Scan(&e.ID, &e.Endpoint, &e.Revision, &e.Record, &e.WebhookID, &e.Schema, &e.Type,
				&e.CommittedAt, &e.Body, &e.Attempts)
		})
	}
	var nextAt *time.Time
	if err == nil {
		err = s.store.pool.QueryRow(ctx, nextRetrySQL, endpoint, now).Scan(&nextAt)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read due retries of endpoint %d: %w", endpoint, err)
	}
	return due, zeroTime(nextAt), nil
}
