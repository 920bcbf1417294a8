package outbox

import (
	"math"
	"time"

	"github.com/jackc/pgx/v5"
)

type recordRef struct {
	endpoint int64
	record   string
}

// settlementColumns are a batch of settlements as the statements take them: for
// most, an array per column. And they are the answers.
type settlementColumns struct {
	encoding *encoding
	attempts []*Settlement // those with an attempt
	dead     struct {
		event    []int64
		attempts []int
		reason   []string
	}
	done struct{ endpoint, event []int64 } // leave retry
	retr struct {
		endpoint, event []int64
		record          []string
		attempts        []int
		delay           []time.Duration
		reason          []string
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
			w.dead.event = append(w.dead.event, e.ID)
			w.dead.attempts = append(w.dead.attempts, attemptNumber(s))
			w.dead.reason = append(w.dead.reason, attemptReason(s))
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
		r.delay = append(r.delay, time.Until(s.RetryAt))
		r.reason = append(r.reason, attemptReason(s))
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
		w.queueAttempts(b)
	}
	if len(w.dead.event) > 0 {
		b.Queue(deadLettersSQL, w.dead.event, w.dead.attempts, w.dead.reason)
		w.deadLetters = b.Len() - before
	}
	if len(w.done.event) > 0 {
		b.Queue(deleteRetriesSQL, w.done.endpoint, w.done.event)
	}
	if r := &w.retr; len(r.event) > 0 {
		b.Queue(upsertRetriesSQL, r.endpoint, r.event, r.record, r.attempts, r.delay, r.reason)
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

func (w *settlementColumns) queueAttempts(b *pgx.Batch) {
	n := len(w.attempts)
	var (
		at                        = make([]time.Time, n)
		endpoint, event, revision = make([]int64, n), make([]int64, n), make([]int64, n)
		number, status            = make([]int, n), make([]int, n)
		duration                  = make([]time.Duration, n)
		outcome, reason, detail   = make([]string, n), make([]string, n), make([]string, n)
	)
	for i, s := range w.attempts {
		a := s.Attempt
		at[i], endpoint[i], event[i], revision[i], duration[i] = a.At, s.Event.Endpoint, s.Event.ID, a.Revision, a.Duration
		number[i], status[i] = int(fitsInteger(a.Number)), int(fitsInteger(a.Status))
		outcome[i], reason[i], detail[i] = a.Outcome, a.Reason, w.encoding.text(a.Detail)
	}
	b.Queue(insertAttemptsSQL, at, endpoint, event, revision, number, duration, status, outcome, reason, detail)
}

// appendAttempt is a row as copyAttemptsSQL takes it.
func (w *settlementColumns) appendAttempt(b []byte, i int) []byte {
	e, a := &w.attempts[i].Event, w.attempts[i].Attempt
	b = appendColumns(b, 10)
	b = appendTime(b, a.At)
	b = appendBigint(b, e.Endpoint)
	b = appendBigint(b, e.ID)
	b = appendBigint(b, a.Revision)
	b = appendInteger(b, fitsInteger(a.Number))
	b = appendInterval(b, a.Duration)
	b = appendInteger(b, fitsInteger(a.Status))
	b = appendBytes(b, a.Outcome)
	b = appendBytes(b, a.Reason)
	return appendBytes(b, w.encoding.text(a.Detail))
}

// fitsInteger is a number as a column of type integer holds it: one beyond is
// the largest, so that it stops nobody's settlement.
func fitsInteger(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }
