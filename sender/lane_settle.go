package sender

import (
	"fmt"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// The waits after faults of our own, for the lane that met them.
const (
	ownFaultMin = time.Second
	ownFaultMax = time.Minute
)

// finish takes a job's result and settles its event. It answers the outcome
// (a retry whose schedule is exhausted is dead) and the time until the next
// attempt, for the log.
func (l *lane) finish(j *job, now time.Time) (deliver.Outcome, time.Duration) {
	res := &j.result
	l.inFlight--
	j.record.inFlight--
	l.movedAt = now
	current := j.generation == l.generation
	l.answerBreaker(j, now)

	switch res.Outcome {
	case deliver.Held:
		l.takeBack(j, now)
		return deliver.Held, l.heldUntil.Sub(now)
	case deliver.Delivered:
		if current {
			l.window = min(l.window+1, l.policy.window)
			l.notHeld()
			l.failingSince, l.failedAt, l.warned, l.lastReason = time.Time{}, time.Time{}, 0, ""
		}
		l.settle(j, outbox.Settlement{Disposition: outbox.Delivered}, deliver.Delivered, true)
		return deliver.Delivered, 0
	}
	return l.fail(j, current, now)
}

// slow is how long an attempt holds its slot before its failure counts for
// several: an endpoint that hangs is to be left alone soon.
const (
	slow       = 5 * time.Second
	slowWeight = 3
)

func (l *lane) answerBreaker(j *job, now time.Time) {
	res := &j.result
	v := verdict{record: j.event.Record, weight: 1, unsent: res.Unsent}
	switch {
	case res.Outcome == deliver.Held, res.Outcome == deliver.Dead:
		v.result = errNotCounted
	case res.EndpointFault:
		v.result = errEndpointFault
	}
	if res.Duration >= slow {
		v.weight = slowWeight
	}
	if j.breaker != l.breaker {
		j.permit.done(v.result) // it must be, and nobody looks at that breaker again
		return
	}
	wasClosed := l.breaker.closed()
	l.breaker.settle(j.permit, v, now)
	switch {
	case l.breaker.closed() && !wasClosed:
		l.window, l.probes, l.barren = 1, 0, 0
	case j.permit.probe && v.result == errEndpointFault:
		l.probes, l.barren = l.probes+1, 0
	}
}

// fail settles an attempt that did not deliver. A probe does not count against
// its event; an answer of an earlier URL counts, but the event is tried at the
// new one at once.
func (l *lane) fail(j *job, current bool, now time.Time) (deliver.Outcome, time.Duration) {
	res := &j.result
	counted := !j.permit.probe
	failed := j.event.Attempts
	if counted {
		failed++
	}
	delay, again := l.schedule.after(failed, l.retryLimit())
	kind := res.Outcome
	s := outbox.Settlement{Disposition: outbox.Retry}
	switch {
	case !current:
		delay, kind = 0, deliver.Retry
	case kind == deliver.Disable:
		s.Disable = res.DisableReason
	case kind == deliver.Dead:
		s.Disposition = outbox.Dead
	case counted && !again:
		s.Disposition, kind = outbox.Dead, deliver.Dead
	}
	if current {
		l.notHeld()
	}
	if current && res.Outcome != deliver.Dead { // which says nothing of the endpoint
		l.window = max(l.window/2, 1)
		l.lastReason = res.Reason
		l.failedNow(now)
		if s.Disable == "" && now.Sub(l.failingSince) >= l.disableAfter {
			s.Disable = fmt.Sprintf("has only failed since %s: %s", l.failingSince.UTC().Format(time.RFC3339), res.ForAccount())
		}
		if res.Outcome == deliver.Pause {
			pause := res.After
			if pause == 0 {
				pause = max(delay, jitter(openMin/2, l.random))
			}
			if until := now.Add(pause); until.After(l.pausedUntil) {
				l.pausedUntil = until
			}
			l.window = 1
		}
		delay = max(delay, res.After)
		if j.permit.probe {
			delay = max(l.breaker.until.Sub(now), 0)
		}
	}
	s.RetryAt = now.Add(delay)
	l.settle(j, s, kind, counted)

	if s.Disable != "" && j.endpoint.Revision == l.endpoint.Revision {
		l.endpoint.State, l.endpoint.Reason = outbox.EndpointDisabled, s.Disable
	}
	if !l.buffers(now) {
		l.shed(now)
	}
	if s.Disposition == outbox.Dead {
		delay = 0
	}
	return kind, delay
}

// retryLimit is how many retries the endpoint wants; nil is the whole schedule.
func (l *lane) retryLimit() *int {
	if s := l.endpoint.Settings; s != nil {
		return s.Retries
	}
	return nil
}

// settle hands out the fate of a job's event, and parks what waits behind it
// when its record is now, or still, in retry.
func (l *lane) settle(j *job, s outbox.Settlement, kind deliver.Outcome, counted bool) {
	res := &j.result
	number := j.event.Attempts
	if counted {
		number++
	}
	s.Event, s.FromRetry = j.event, j.fromRetry
	s.Event.Body = nil
	s.Attempt = new(res.Attempt(number, j.endpoint.Revision, kind))
	l.hand(j.record, s)
	if s.Disposition == outbox.Retry {
		l.block(j.record, true)
		l.holdBack(j.record)
	}
	l.list(j.record)
	l.forgetIdle(j.record)
}

func (l *lane) park(r *record, e outbox.Event) {
	l.ledger.set(e.ID, taken)
	e.Body = nil
	l.hand(r, outbox.Settlement{Event: e, Disposition: outbox.Parked})
}

func (l *lane) hand(r *record, s outbox.Settlement) {
	l.pending++
	if touchesRetry(&s) {
		r.pending++
		l.touch(r)
	}
	l.out = append(l.out, s)
}

func touchesRetry(s *outbox.Settlement) bool {
	return s.FromRetry || s.Disposition == outbox.Retry || s.Disposition == outbox.Parked
}

// touch makes answers to reads that were asked before stale for the record.
func (l *lane) touch(r *record) {
	l.clock++
	r.changed = l.clock
}

// takeBack undoes the start of a job that failed by a fault of our own.
func (l *lane) takeBack(j *job, now time.Time) {
	if j.fromRetry {
		l.events++
		l.bodies += len(j.event.Body)
		l.retries = append([]outbox.Event{j.event}, l.retries...)
	} else {
		l.requeue(j.record, j.event, now)
	}
	wait := min(ownFaultMin<<min(l.ownFaults, 10), ownFaultMax)
	l.heldUntil = now.Add(jitter(wait, l.random))
	l.ownFaults++
	if j.result.Lasting && j.generation == l.generation {
		if l.heldReason = j.result.Reason; l.heldSince.IsZero() {
			l.heldSince = now
		}
	}
	if !l.buffers(now) {
		l.shed(now)
	}
}

// notHeld takes note of an attempt that no fault of our own ended.
func (l *lane) notHeld() { l.ownFaults, l.heldSince, l.heldReason = 0, time.Time{}, "" }

// settledAs takes the outbox's word that one of the settlements handed out is
// durable. Those of a batch come before the record states that it answered.
func (l *lane) settledAs(s *outbox.Settlement) {
	l.pending--
	if s.FromRetry {
		delete(l.ofRetry, s.Event.ID)
	} else {
		l.ledger.set(s.Event.ID, settled)
		l.cursor() // lets go of what is settled
	}
	if !touchesRetry(s) {
		return
	}
	if s.Disposition == outbox.Retry && l.endpoint.Ordering == outbox.OrderingNone {
		l.retryAt = earliest(l.retryAt, s.RetryAt) // its record's state tells of the oldest row only
	}
	if r := l.records[s.Event.Record]; r != nil {
		r.pending--
		l.touch(r)
	}
}

// recordState takes how a record stands in retry.
func (l *lane) recordState(state outbox.RecordState) {
	if state.Blocked {
		l.block(l.record(state.Record), true)
		l.retryAt = earliest(l.retryAt, state.NextAt)
		return
	}
	r := l.records[state.Record]
	if r == nil || r.pending > 0 || r.inFlight > 0 && l.parks() {
		return
	}
	l.block(r, false)
	l.list(r)
	l.forgetIdle(r)
}
