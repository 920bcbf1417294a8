package memory

import (
	"cmp"
	"context"
	"slices"
	"time"

	"walhook/outbox"
)

type recordRef struct {
	endpoint int64
	record   string
}

// Settle stores a batch, or refuses it whole. The same batch may be settled again. It
// returns the states of the records that have, or had, rows in retry.
func (s *Session) Settle(_ context.Context, batch []outbox.Settlement) (states []outbox.RecordState, err error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.fenceLocked(); err != nil {
		return nil, err
	}
	touched := map[recordRef]bool{}
	for i := range batch {
		s := &batch[i]
		l.attemptLocked(s)
		if s.FromRetry || s.Disposition == outbox.Retry || s.Disposition == outbox.Parked {
			touched[recordRef{s.Event.Endpoint, s.Event.Record}] = true
		}
		switch s.Disposition {
		case outbox.Delivered, outbox.Dead:
			if s.Disposition == outbox.Dead {
				l.buryLocked(s)
			}
			if s.FromRetry {
				delete(l.retries, s.Event.ID)
			}
		case outbox.Retry:
			r := &Retry{Event: l.knownLocked(&s.Event), Attempts: number(s), Due: s.RetryAt, Batch: s.Batch}
			if s.Behind {
				r.Due = time.Time{}
			}
			l.retries[s.Event.ID] = r
		}
	}
	// Park an event once, whatever the batch does to the one before it.
	for i := range batch {
		if e := &batch[i].Event; batch[i].Disposition == outbox.Parked && l.retries[e.ID] == nil {
			l.retries[e.ID] = &Retry{Event: l.knownLocked(e)}
		}
	}
	for ref := range touched {
		l.promoteLocked(ref)
		states = append(states, l.stateLocked(ref))
	}
	return states, nil
}

// attemptLocked stores an attempt, once, and disables the endpoint if the settlement
// says so.
func (l *Log) attemptLocked(s *outbox.Settlement) {
	a := s.Attempt
	if a == nil {
		return
	}
	if !slices.ContainsFunc(l.attempts[s.Event.ID], func(o outbox.Attempt) bool { return o.At.Equal(a.At) }) {
		l.attempts[s.Event.ID] = append(l.attempts[s.Event.ID], *a)
	}
	// An attempt disables only the revision under which it was made.
	if e := l.endpoints[s.Event.Endpoint]; s.Disable != "" && e != nil && e.Revision == a.Revision && e.State == outbox.EndpointActive {
		e.State, e.Reason = outbox.EndpointDisabled, s.Disable
		e.Revision++
		e.changedAt = time.Now()
	}
}

// buryLocked makes a dead letter of an event in the log, unless there is one.
func (l *Log) buryLocked(s *outbox.Settlement) {
	e, there := l.eventLocked(s.Event.ID)
	if _, dead := l.dead[e.ID]; there && !dead {
		reason := "unstorable"
		if s.Attempt != nil {
			reason = s.Attempt.Reason
		}
		l.dead[e.ID] = DeadLetter{Event: e, Attempts: number(s), Reason: reason}
	}
}

func number(s *outbox.Settlement) int {
	if s.Attempt == nil {
		return s.Event.Attempts
	}
	return s.Attempt.Number
}

// knownLocked returns an event as the log has it, with the record of its settlement.
func (l *Log) knownLocked(e *outbox.Event) outbox.Event {
	known, there := l.eventLocked(e.ID)
	if !there {
		return *e
	}
	known.Record = e.Record
	return known
}

// oldestLocked returns the first row of a record in retry; nil for none.
func (l *Log) oldestLocked(ref recordRef) (oldest *Retry) {
	for _, r := range l.retries {
		if (recordRef{r.Event.Endpoint, r.Event.Record}) == ref && (oldest == nil || r.Event.ID < oldest.Event.ID) {
			oldest = r
		}
	}
	return oldest
}

// promoteLocked makes a record's oldest row due if it waits.
func (l *Log) promoteLocked(ref recordRef) {
	if r := l.oldestLocked(ref); r != nil && r.Due.IsZero() {
		r.Due = time.Now()
	}
}

func (l *Log) stateLocked(ref recordRef) outbox.RecordState {
	state := outbox.RecordState{Endpoint: ref.endpoint, Record: ref.record}
	if r := l.oldestLocked(ref); r != nil {
		state.Blocked, state.NextAt = true, r.Due
	}
	return state
}

// DueRetries reads an endpoint's rows of retry that are due, the earliest first, and
// the time at which the next one is due.
func (s *Session) DueRetries(_ context.Context, q outbox.RetryQuery) (due outbox.Retries, err error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	then := q.Now
	if then.Before(now) {
		then = now
	}
	var rows []*Retry
	for id, r := range l.retries {
		switch {
		case r.Event.Endpoint != q.Endpoint || r.Due.IsZero():
		case r.Due.After(then):
			if due.Next.IsZero() || r.Due.Before(due.Next) {
				due.Next = r.Due
			}
		case !slices.Contains(q.Exclude, id):
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *Retry) int {
		return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Event.ID, b.Event.ID))
	})
	size, most := 0, max(q.MaxBytes, 1)
	for _, r := range rows {
		if len(due.Events) >= q.Limit || size >= most {
			break
		}
		e, there := l.dueLocked(r, now)
		if !there {
			continue
		}
		size += len(e.Body)
		due.Events = append(due.Events, e)
	}
	due.More = len(due.Events) >= q.Limit || size >= most
	if q.Batches {
		l.completeLocked(&q, &due, now)
	}
	return due, nil
}

// dueLocked returns the event of a row as a sender gets it.
func (l *Log) dueLocked(r *Retry, now time.Time) (e outbox.Event, there bool) {
	e, there = l.eventLocked(r.Event.ID)
	e.Record, e.Attempts, e.Batch, e.ReadAt = r.Event.Record, r.Attempts, r.Batch, now
	return e, there
}

// completeLocked puts whole batches in the place of their rows that are due, without
// what waits for an event outside the batch.
func (l *Log) completeLocked(q *outbox.RetryQuery, due *outbox.Retries, now time.Time) {
	var events []outbox.Event
	begun := map[int64]bool{0: false}
	for _, e := range due.Events {
		if e.Batch == 0 {
			events = append(events, e)
			continue
		}
		if begun[e.Batch] {
			continue
		}
		begun[e.Batch] = true
		var whole []outbox.Event
		for id, r := range l.retries {
			if r.Event.Endpoint != q.Endpoint || r.Batch != e.Batch || slices.Contains(q.Exclude, id) || l.waitsOutsideLocked(r) {
				continue
			}
			if one, there := l.dueLocked(r, now); there {
				whole = append(whole, one)
			}
		}
		slices.SortFunc(whole, func(a, b outbox.Event) int { return cmp.Compare(a.ID, b.ID) })
		events = append(events, whole...)
	}
	due.Events = events
}

func (l *Log) waitsOutsideLocked(r *Retry) bool {
	for id, o := range l.retries {
		if o.Event.Endpoint == r.Event.Endpoint && o.Event.Record == r.Event.Record && id < r.Event.ID && o.Batch != r.Batch {
			return true
		}
	}
	return false
}
