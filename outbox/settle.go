package outbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The statements of one settlement, in the order in which they run. Nothing
// here updates the event log: an attempt row is the acknowledgement.
const (
	// The columns of an attempt, in the order in which attemptRow gives them.
	attemptColumns = `(at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail, batch)`

	copyAttemptsSQL = `COPY walhook.attempt ` + attemptColumns + ` FROM STDIN (FORMAT binary)`

	deleteRetriesSQL = `
		DELETE FROM walhook.retry r USING unnest($1::bigint[], $2::bigint[]) AS d(endpoint, event_id)
		WHERE r.endpoint = d.endpoint AND r.event_id = d.event_id`

	upsertRetriesSQL = `
		INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason, batch)
		SELECT endpoint, event_id, record, attempts, clock_timestamp() + delay, reason, nullif(batch, 0)
		FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::int[], $5::interval[], $6::text[], $7::bigint[])
			AS t(endpoint, event_id, record, attempts, delay, reason, batch)
		ON CONFLICT (endpoint, event_id) DO UPDATE SET
			attempts = excluded.attempts, next_at = excluded.next_at, reason = excluded.reason, batch = excluded.batch`

	parkSQL = `
		INSERT INTO walhook.retry (endpoint, event_id, record, attempts, reason)
		SELECT endpoint, event_id, record, 0, 'waits for an earlier event of its record'
		FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS p(endpoint, event_id, record)
		ON CONFLICT (endpoint, event_id) DO NOTHING`

	// The oldest row of a record is always due; the others wait behind it.
	// These are found before the update joins them by the primary key: the statistics are
	// often of an empty table, and then a join by endpoint alone seems as good, which takes
	// the square of the rows.
	promoteSQL = `
		WITH oldest AS MATERIALIZED (
			SELECT t.endpoint, o.event_id
			FROM (SELECT DISTINCT endpoint, record FROM unnest($1::bigint[], $2::text[]) AS d(endpoint, record)) AS t
			CROSS JOIN LATERAL (
				SELECT event_id, next_at FROM walhook.retry o
				WHERE o.endpoint = t.endpoint AND o.record = t.record
				ORDER BY event_id LIMIT 1) AS o
			WHERE o.next_at IS NULL)
		UPDATE walhook.retry r SET next_at = clock_timestamp()
		FROM oldest WHERE r.endpoint = oldest.endpoint AND r.event_id = oldest.event_id`

	recordStatesSQL = `
		SELECT t.endpoint, t.record, walhook.until(oldest.next_at)
		FROM unnest($1::bigint[], $2::text[]) AS t(endpoint, record)
		LEFT JOIN LATERAL (
			SELECT next_at FROM walhook.retry o
			WHERE o.endpoint = t.endpoint AND o.record = t.record
			ORDER BY event_id LIMIT 1) AS oldest ON true`

	// In the order in which every transaction locks several endpoints, and
	// before anything else that others may wait for.
	lockDisabledSQL = `
		SELECT FROM walhook.endpoint WHERE id = ANY ($1::bigint[]) ORDER BY account COLLATE "C", id FOR NO KEY UPDATE`

	// An answer disables only the revision that it was given to.
	disableSQL = `
		WITH d AS (
			UPDATE walhook.endpoint SET ` + failedSQL + `,
				revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
			WHERE id = $1 AND revision = $2 AND state = 'active' RETURNING account, reason)
		INSERT INTO walhook.inbox ` + noticeColumns + `
		SELECT ` + noticeSQL + ` FROM d`
)

// insertAttempts is for a few attempts: an earlier try to settle the same batch may have
// been committed without an answer. Many are copied, which allows for no such row, and are
// inserted if there is one.
var insertAttempts = newRowInsert(`INSERT INTO walhook.attempt `+attemptColumns, []string{
	"?::timestamptz", "?::bigint", "?::bigint", "?::bigint", "?::int", "?::interval", "?::int", "?::text", "?::text", "?::text", "?::text",
}, " ON CONFLICT DO NOTHING")

// Settle makes a batch of fates durable in one transaction, or refuses it whole
// with [ErrLeaseLost]. Where the server refuses it because of its data it takes
// several, and an event whose fate cannot be stored is set aside by itself. After
// another error it is not known whether it was made; the same batch may be settled
// again. After a failover ([ErrMoved] elsewhere) only what was delivered is settled: its
// event has no other fate on any timeline, and the rest is attempted again. It answers how the records stand that have, or had, rows in retry.
func (s *Session) Settle(ctx context.Context, batch []Settlement) (states []RecordState, err error) {
	// An earlier call may have ended before all that it had to set aside was.
	if len(s.disposed) > 0 {
		batch = slices.DeleteFunc(slices.Clone(batch), func(one Settlement) bool { return s.disposed[one.Event.ID] })
	}
	settle := func(part []Settlement) error {
		more, err := s.settleAll(ctx, part)
		states = append(states, more...)
		return err
	}
	err = isolate(batch, isDataFault, settle, func(one Settlement, cause error) error {
		s.store.setAside(ctx, loopSettle, strconv.FormatInt(one.Event.ID, 10), one.Event.Endpoint, asideUnstorable, cause)
		for _, less := range one.lesser() {
			if cause = settle([]Settlement{less}); !isDataFault(cause) {
				break
			}
		}
		if cause != nil && !isDataFault(cause) {
			return cause
		}
		if s.disposed == nil {
			s.disposed = map[int64]bool{}
		}
		s.disposed[one.Event.ID] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("settle %d events: %w", len(batch), err)
	}
	clear(s.disposed)
	return states, nil
}

// lesser are fates that stand for one that cannot be stored, the closest first:
// the same without the texts of others, then a dead letter, then one without an
// attempt. Where none of them can be stored either, the event is listed as set
// aside and nothing else.
func (s Settlement) lesser() []Settlement {
	plain, dead := s, s
	plain.Event.Body, plain.Disable = nil, inASCII(s.Disable)
	if s.Attempt != nil {
		a := *s.Attempt
		a.Outcome, a.Reason = inASCII(a.Outcome), inASCII(a.Reason)
		a.Detail = "(replaced: the outbox could not store it)"
		a.Status, a.Number = min(max(a.Status, 0), 999), min(max(a.Number, 0), math.MaxInt32)
		a.Duration = min(max(a.Duration, 0), 24*time.Hour)
		plain.Attempt = &a
	}
	dead = plain
	dead.Disposition, dead.Disable = Dead, ""
	if s.Disposition == Delivered {
		dead.Disposition = Delivered
	}
	last := dead
	last.Disposition, last.Attempt = Dead, nil
	return []Settlement{plain, dead, last}
}

func (s *Session) settleAll(ctx context.Context, batch []Settlement) ([]RecordState, error) {
	w := settlementColumns{encoding: s.store.encoding, touched: map[recordRef]struct{}{}}
	for i := range batch {
		w.add(&batch[i])
	}
	fence := s.fence()
	err := s.settle(ctx, fence, &w, len(w.attempts) > fewRows)
	if errors.Is(err, ErrMoved) {
		w, fence = settlementColumns{encoding: s.store.encoding, touched: map[recordRef]struct{}{}}, s.leaseFence()
		for i := range batch {
			if batch[i].Disposition == Delivered {
				w.add(&batch[i])
			}
		}
		err = s.settle(ctx, fence, &w, len(w.attempts) > fewRows)
	}
	if errors.Is(err, errSettledBefore) {
		err = s.settle(ctx, fence, &w, false)
	}
	if err != nil {
		return nil, err
	}
	s.store.metrics.deadLetters.Add(float64(w.newDead))
	if len(w.disabled) > 0 {
		s.store.signalInbox()
	}
	return w.states, nil
}

// These are the server's (PostgreSQL manual, PostgreSQL Error Codes).
const (
	codeNotNullViolation = "23502"
	codeUniqueViolation  = "23505"
)

// errSettledBefore says that an attempt cannot be copied, for it is there.
var errSettledBefore = errors.New("attempt was already stored")

func (s *Session) settle(ctx context.Context, behind fence, w *settlementColumns, copying bool) error {
	tx := transaction{
		fence: behind,
		first: w.queueLocks,
		fill:  func(b *pgx.Batch) { w.queue(b, !copying) },
		read:  w.read,
	}
	if copying {
		tx.work = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.PgConn().CopyFrom(ctx, newRowCopy(len(w.attempts), w.attemptRow), copyAttemptsSQL)
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == codeUniqueViolation {
				return errSettledBefore
			}
			return err
		}
	}
	return s.run(ctx, &tx)
}

type recordRef struct {
	endpoint int64
	record   string
}

// settlementColumns are a batch of settlements as the statements take them: for
// most, an array per column. And they are the answers.
type settlementColumns struct {
	encoding *encoding
	attempts []*Settlement // those with an attempt
	dead     deaths
	done     struct{ endpoint, event []int64 } // leave retry
	retr     struct {
		endpoint, event []int64
		record          []string
		attempts        []int
		delay           []*time.Duration // nil: behind an earlier event of its record
		reason          []string
		batch           []int64
	}
	parked struct {
		endpoint, event []int64
		record          []string
	}
	disabled   []*Settlement
	touched    map[recordRef]struct{}
	statements int // queued, apart from the reading of record states

	deadLetters int // which of the statements, counted from 1; 0 for none

	states  []RecordState
	newDead int64 // dead letters that were not there before
}

func (w *settlementColumns) add(s *Settlement) {
	e := &s.Event
	if s.Attempt != nil {
		w.attempts = append(w.attempts, s)
		if s.Disable != "" {
			w.disabled = append(w.disabled, s)
		}
	}
	switch s.Disposition {
	case Delivered, Dead:
		if s.Disposition == Dead {
			w.dead.add(e.ID, attemptNumber(s), attemptReason(s))
		}
		if s.FromRetry {
			w.done.endpoint = append(w.done.endpoint, e.Endpoint)
			w.done.event = append(w.done.event, e.ID)
			w.touch(e)
		}
	case Retry:
		r := &w.retr
		r.endpoint = append(r.endpoint, e.Endpoint)
		r.event = append(r.event, e.ID)
		r.record = append(r.record, e.Record)
		r.attempts = append(r.attempts, attemptNumber(s))
		var delay *time.Duration
		if !s.Behind {
			delay = new(time.Until(s.RetryAt))
		}
		r.delay = append(r.delay, delay)
		r.reason = append(r.reason, attemptReason(s))
		r.batch = append(r.batch, s.Batch)
		w.touch(e)
	case Parked:
		p := &w.parked
		p.endpoint = append(p.endpoint, e.Endpoint)
		p.event = append(p.event, e.ID)
		p.record = append(p.record, e.Record)
		w.touch(e)
	}
}

func (w *settlementColumns) touch(e *Event) {
	w.touched[recordRef{e.Endpoint, e.Record}] = struct{}{}
}

func attemptNumber(s *Settlement) int {
	if s.Attempt == nil {
		return s.Event.Attempts
	}
	return s.Attempt.Number
}

func attemptReason(s *Settlement) string {
	if s.Attempt == nil {
		return asideUnstorable
	}
	return s.Attempt.Reason
}

func (w *settlementColumns) queueLocks(b *pgx.Batch) {
	if len(w.disabled) == 0 {
		return
	}
	var ids []int64
	for _, s := range w.disabled {
		ids = append(ids, s.Event.Endpoint)
	}
	b.Queue(lockDisabledSQL, ids)
}

// queue queues all else, the attempts only where they are not copied.
func (w *settlementColumns) queue(b *pgx.Batch, attempts bool) {
	before := b.Len()
	if attempts && len(w.attempts) > 0 {
		insertAttempts.queue(b, len(w.attempts), w.attemptRow)
	}
	if len(w.dead.event) > 0 {
		w.dead.queue(b)
		w.deadLetters = b.Len() - before
	}
	if len(w.done.event) > 0 {
		b.Queue(deleteRetriesSQL, w.done.endpoint, w.done.event)
	}
	if r := &w.retr; len(r.event) > 0 {
		b.Queue(upsertRetriesSQL, r.endpoint, r.event, r.record, r.attempts, r.delay, r.reason, r.batch)
	}
	if p := &w.parked; len(p.event) > 0 {
		b.Queue(parkSQL, p.endpoint, p.event, p.record)
	}
	for _, s := range w.disabled {
		b.Queue(disableSQL, s.Event.Endpoint, s.Attempt.Revision, w.encoding.text(s.Disable))
	}
	if len(w.touched) == 0 {
		w.statements = b.Len() - before
		return
	}
	var endpoints []int64
	var records []string
	for ref := range w.touched {
		endpoints = append(endpoints, ref.endpoint)
		records = append(records, ref.record)
	}
	b.Queue(promoteSQL, endpoints, records)
	w.statements = b.Len() - before
	b.Queue(recordStatesSQL, endpoints, records)
}

// read reads the results of what queue queued.
func (w *settlementColumns) read(results pgx.BatchResults) error {
	for n := range w.statements {
		tag, err := results.Exec()
		if err != nil {
			return err
		}
		if n+1 == w.deadLetters {
			w.newDead = tag.RowsAffected()
		}
	}
	if len(w.touched) == 0 {
		return nil
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	w.states, err = pgx.CollectRows(rows, scanRecordState)
	return err
}

func (w *settlementColumns) attemptRow(row rowWriter, i int) {
	e, a := &w.attempts[i].Event, w.attempts[i].Attempt
	row.time(a.At)
	row.bigint(e.Endpoint)
	row.bigint(e.ID)
	row.bigint(a.Revision)
	row.integer(fitsInteger(a.Number))
	row.interval(a.Duration)
	row.integer(fitsInteger(a.Status))
	row.text(a.Outcome)
	row.text(a.Reason)
	row.text(w.encoding.text(a.Detail))
	row.text(a.Batch)
}

// fitsInteger is a number as a column of type integer holds it: one beyond is
// the largest, so that it stops nobody's settlement.
func fitsInteger(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }
