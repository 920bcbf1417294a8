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
//
// A row that is not wanted is answered without its body instead of being
// filtered out: so the log is always read by its index in order of id, however
// many rows wait, and the answer says how far it went.
const (
	// Followed by the condition of wanted, rangeSQL, and tailEndSQL.
	tailStartSQL = `
		SELECT id, endpoint, revision, record, webhook_id, schema, type, committed_at, appended_at, format, CASE WHEN wanted THEN body END
		FROM (
			SELECT e.*, sum(CASE WHEN wanted THEN octet_length(body) ELSE 0 END) OVER (ORDER BY id)
				- CASE WHEN wanted THEN octet_length(body) ELSE 0 END AS before
			FROM (SELECT e.*, `

	rangeSQL = ` AS wanted FROM walhook.event e WHERE e.id > $1 AND e.id <= $2`

	tailEndSQL = ` ORDER BY e.id LIMIT $4) e) t
		WHERE before < $5 ORDER BY id`

	// All shards, or those of an array.
	ofShardsSQL = `($3::int[] IS NULL OR e.endpoint % 32 = ANY ($3::int[]))`

	// An event with an attempt has been settled by it or is in retry. An EXISTS
	// would do, but may be planned as a scan of the whole table.
	unsettledSQL = `
		AND (SELECT 1 FROM walhook.attempt a WHERE a.endpoint = e.endpoint AND a.event_id = e.id LIMIT 1) IS NULL
		AND (SELECT 1 FROM walhook.retry r WHERE r.endpoint = e.endpoint AND r.event_id = e.id LIMIT 1) IS NULL
		AND (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = e.endpoint AND d.event_id = e.id LIMIT 1) IS NULL`
)

// Tail reads a stretch of the log: the events of the held shards, or of one
// endpoint, in order of id.
func (s *Session) Tail(ctx context.Context, q TailQuery) (Stretch, error) {
	upto := q.Upto
	if upto == 0 {
		upto = math.MaxInt64
	}
	wanted, whose, where := ofShardsSQL, any(q.Shards), ""
	if len(q.Shards) == Shards {
		whose = nil
	}
	if q.Endpoint != 0 {
		wanted, whose, where = "true", q.Endpoint, " AND e.endpoint = $3"
	}
	if q.Unsettled {
		wanted = "(" + wanted + unsettledSQL + ")"
	}
	maxBytes := max(q.MaxBytes, 1)
	rows, err := s.store.pool.Query(ctx, tailStartSQL+wanted+rangeSQL+where+tailEndSQL, q.After, upto, whose, q.Limit, maxBytes)
	stretch := Stretch{Upto: q.After}
	read, size := 0, 0
	if err == nil {
		e := Event{ReadAt: time.Now()}
		_, err = pgx.ForEachRow(rows, e.columns(), func() error {
			read++
			stretch.Upto = e.ID
			if e.Body != nil {
				size += len(e.Body)
				stretch.Events = append(stretch.Events, e)
			}
			return nil
		})
	}
	if err != nil {
		return Stretch{}, fmt.Errorf("read the log after event %d: %w", q.After, err)
	}
	stretch.More = read >= q.Limit || size >= maxBytes
	if !stretch.More && q.Upto != 0 {
		stretch.Upto = q.Upto
	}
	return stretch, nil
}

// columns are where a row of eventColumns is scanned to.
func (e *Event) columns() []any {
	return []any{&e.ID, &e.Endpoint, &e.Revision, &e.Record, &e.WebhookID, &e.Schema, &e.Type, &e.CommittedAt, &e.AppendedAt, &e.Format, &e.Body}
}

const (
	// Only lengths are summed, so a row that is left out is not fetched. One
	// clock says what is due, the outbox's: senders' may disagree.
	// This and nextRetrySQL go by now(), the clock of the one transaction that
	// they are asked in: a row that becomes due between the two is in neither
	// by a clock that goes on, and would be forgotten.
	dueRetriesSQL = `
		SELECT t.id, t.endpoint, t.revision, t.record, t.webhook_id, t.schema, t.type, t.committed_at, t.appended_at, t.format, t.body, t.attempts
		FROM (
			SELECT e.*, r.attempts, r.next_at,
				sum(octet_length(e.body)) OVER (ORDER BY r.next_at, r.event_id) - octet_length(e.body) AS before
			FROM (
				SELECT * FROM walhook.retry r
				WHERE r.endpoint = $1 AND r.next_at <= now() + $2::interval AND r.event_id <> ALL ($3)
				ORDER BY r.next_at, r.event_id LIMIT $4) r
			JOIN walhook.event e ON e.id = r.event_id) t
		WHERE before < $5 ORDER BY next_at, id`

	nextRetrySQL = `
		SELECT min(next_at) - clock_timestamp() FROM walhook.retry
		WHERE endpoint = $1 AND next_at > now() + $2::interval`
)

// DueRetries reads an endpoint's retry rows that are due.
func (s *Session) DueRetries(ctx context.Context, q RetryQuery) (Retries, error) {
	exclude := q.Exclude
	if exclude == nil {
		exclude = []int64{}
	}
	ahead, maxBytes := max(time.Until(q.Now), 0), max(q.MaxBytes, 1)
	var due Retries
	size := 0
	var next *time.Duration
	both := &pgx.Batch{} // without a BEGIN it is one transaction all the same
	both.Queue(dueRetriesSQL, q.Endpoint, ahead, exclude, q.Limit, maxBytes).Query(func(rows pgx.Rows) (err error) {
		due.Events, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Event, err error) {
			err = row.Scan(append(e.columns(), &e.Attempts)...)
			e.ReadAt = time.Now()
			size += len(e.Body)
			return e, err
		})
		return err
	})
	both.Queue(nextRetrySQL, q.Endpoint, ahead).QueryRow(func(row pgx.Row) error { return row.Scan(&next) })
	err := s.store.pool.SendBatch(ctx, both).Close()
	if err != nil {
		return Retries{}, fmt.Errorf("read due retries of endpoint %d: %w", q.Endpoint, err)
	}
	due.Next = fromNow(next)
	due.More = len(due.Events) >= q.Limit || size >= maxBytes
	return due, nil
}
