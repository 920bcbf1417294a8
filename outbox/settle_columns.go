package outbox

import (
	"time"

	"github.com/jackc/pgx/v5"
)

type recordRef struct {
	endpoint int64
	record   string
}

// settlementColumns are a batch of settlements as arrays, one per column that
// a statement takes.
type settlementColumns struct {
	attempts attemptColumns
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
}

func (w *settlementColumns) add(s *Settlement) {
	e := &s.Event
	if s.Attempt != nil {
		w.attempts.add(e, s.Attempt)
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
		return ""
	}
	return s.Attempt.Reason
}

func (w *settlementColumns) queue(b *pgx.Batch) {
	before := b.Len() - 1 // the fence is counted too
	if len(w.disabled) > 0 {
		var ids []int64
		for _, s := range w.disabled {
			ids = append(ids, s.Event.Endpoint)
		}
		b.Queue(lockDisabledSQL, ids)
	}
	if a := &w.attempts; len(a.event) > 0 {
		b.Queue(insertAttemptsSQL, a.at, a.endpoint, a.event, a.revision, a.number, a.duration, a.status, a.outcome, a.reason, a.detail)
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
		b.Queue(disableSQL, s.Event.Endpoint, s.Attempt.Revision, s.Disable)
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

// attemptColumns are attempts as arrays, one per column of the table.
type attemptColumns struct {
	at                        []time.Time
	endpoint, event, revision []int64
	number, status            []int
	duration                  []time.Duration
	outcome, reason, detail   []string
}

func (c *attemptColumns) add(e *Event, a *Attempt) {
	c.at = append(c.at, a.At)
	c.endpoint = append(c.endpoint, e.Endpoint)
	c.event = append(c.event, e.ID)
	c.revision = append(c.revision, a.Revision)
	c.number = append(c.number, a.Number)
	c.duration = append(c.duration, a.Duration)
	c.status = append(c.status, a.Status)
	c.outcome = append(c.outcome, a.Outcome)
	c.reason = append(c.reason, a.Reason)
	c.detail = append(c.detail, a.Detail)
}
