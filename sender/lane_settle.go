package sender

import (
	"fmt"
	"slices"
	"time"

	"walhook/internal/retry"
	"walhook/outbox"
	"walhook/sender/deliver"
)

// finish takes a job's result and settles its event. It returns the outcome (dead for
// a retry whose schedule is exhausted) and the time until the next attempt, for the
// logs.
func (l *lane) finish(j *job, now time.Time) (deliver.Outcome, time.Duration) {
	res := &j.result
	l.inFlight--
	for i := range j.size() {
		_, r := j.at(i)
		r.inFlight--
	}
	l.health.movedAt = now
	current := j.generation == l.generation
	l.answerBreaker(j, now)

	switch res.Outcome {
	case deliver.Held:
		l.takeBack(j, now)
		return deliver.Held, l.health.heldUntil.Sub(now)
	case deliver.Delivered:
		if current {
			l.health.delivered(l.policy.window)
		}
		l.settle(j, outbox.Settlement{Disposition: outbox.Delivered}, deliver.Delivered, true, false)
		return deliver.Delivered, 0
	}
	return l.fail(j, current, now)
}

// slow is how long an attempt takes before its failure counts for several: the breaker
// is to open soon for an endpoint that hangs.
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
	if j.breaker != l.health.breaker {
		j.permit.done(v.result) // gobreaker requires it; the old breaker is not used again
		return
	}
	wasClosed := l.health.breaker.closed()
	l.health.breaker.settle(j.permit, v, now)
	switch {
	case l.health.breaker.closed() && !wasClosed:
		l.health.window, l.health.probes, l.health.emptyProbeReads = 1, 0, 0
	case j.permit.probe && v.result == errEndpointFault:
		l.health.probes, l.health.emptyProbeReads = l.health.probes+1, 0
	}
}

// fail settles an attempt that did not deliver. A probe does not count as an attempt
// of its event. An attempt at an earlier URL counts, but the event is retried at the
// new URL at once.
func (l *lane) fail(j *job, current bool, now time.Time) (deliver.Outcome, time.Duration) {
	res := &j.result
	counted := !j.permit.probe && !(j.size() > 1 && j.event.Attempts >= splitAfter)
	failed := j.event.Attempts
	if counted {
		failed++
	}
	delay, again := l.schedule.after(failed, l.retryLimit())
	kind := res.Outcome
	split := current && kind != deliver.Disable && j.splits(failed, again)
	s := outbox.Settlement{Disposition: outbox.Retry}
	switch {
	case !current:
		delay, kind = 0, deliver.Retry
	case kind == deliver.Disable:
		s.Disable = res.DisableReason
	case split:
		kind = deliver.Retry
		if res.Outcome == deliver.Pause {
			kind = deliver.Pause
		}
	case kind == deliver.Dead:
		s.Disposition = outbox.Dead
	case counted && !again:
		s.Disposition, kind = outbox.Dead, deliver.Dead
	}
	if current {
		l.health.notHeld()
	}
	if current && res.Outcome != deliver.Dead { // dead does not count against the endpoint
		l.health.failedNow(res.Reason, now, l.disableAfter)
		if s.Disable == "" && now.Sub(l.health.failingSince) >= l.disableAfter {
			s.Disable = fmt.Sprintf("has only failed since %s: %s", l.health.failingSince.UTC().Format(time.RFC3339), res.ForAccount())
		}
		if res.Outcome == deliver.Pause {
			pause := res.After
			if pause == 0 {
				pause = max(delay, retry.Jitter(openMin/2, l.random))
			}
			l.health.pause(now.Add(pause))
		}
		if split {
			delay = 0
		}
		delay = max(delay, res.After)
		if j.permit.probe {
			delay = max(l.health.breaker.until.Sub(now), 0)
		}
	}
	s.RetryAt = now.Add(delay)
	l.settle(j, s, kind, counted, split)

	if s.Disable != "" && j.endpoint.Revision == l.endpoint.Revision {
		l.endpoint.State, l.endpoint.Reason = outbox.EndpointDisabled, s.Disable
	}
	if !l.buffers(now) {
		l.dropBuffered(now)
	}
	if s.Disposition == outbox.Dead {
		delay = 0
	}
	return kind, delay
}

// retryLimit is how many retries the endpoint's settings ask for; nil for the whole
// schedule.
func (l *lane) retryLimit() *int {
	if s := l.endpoint.Settings; s != nil {
		return s.Retries
	}
	return nil
}

// settle makes the settlements of a job's events. When they go to retry, it parks the
// events of their records that wait. A job that is split goes to retry in halves.
func (l *lane) settle(j *job, s outbox.Settlement, kind deliver.Outcome, counted, split bool) {
	res := &j.result
	for i := range j.size() {
		e, r := j.at(i)
		number := e.Attempts
		if counted {
			number++
		}
		s.Event, s.FromRetry = *e, j.fromRetry
		s.Event.Body = nil
		s.Attempt = new(res.Attempt(number, j.endpoint.Revision, kind))
		if s.Disposition == outbox.Retry {
			s.Batch, s.Behind = j.partOf(i, split)
		}
		l.hand(r, s)
		s.Disable = "" // once is enough
	}
	for i := range j.size() {
		_, r := j.at(i)
		if s.Disposition == outbox.Retry {
			l.block(r, true)
			l.holdBack(r)
		}
		l.list(r)
		l.forgetIdle(r)
	}
}

// hand queues a settlement for the settler.
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

// touch makes the answers to earlier queries stale for a record.
func (l *lane) touch(r *record) {
	l.retries.clock++
	r.changed = l.retries.clock
}

// takeBack undoes the start of a job that ended with a local error.
func (l *lane) takeBack(j *job, now time.Time) {
	if j.fromRetry {
		unit := make([]outbox.Event, 0, j.size())
		for i := range j.size() {
			e, _ := j.at(i)
			unit = append(unit, *e)
		}
		l.events += len(unit)
		l.bodies += j.bytes()
		l.retries.waiting = slices.Insert(l.retries.waiting, 0, unit)
	} else {
		for i := range j.size() {
			e, r := j.at(i)
			l.requeue(r, *e, now)
		}
	}
	l.health.held(now, l.random)
	if j.result.Lasting && j.generation == l.generation {
		if l.health.heldReason = j.result.Reason; l.health.heldSince.IsZero() {
			l.health.heldSince = now
		}
	}
	if !l.buffers(now) {
		l.dropBuffered(now)
	}
}

// settledAs notes that a settlement is committed. The dispatcher calls it for a whole
// batch before recordState.
func (l *lane) settledAs(s *outbox.Settlement) {
	l.pending--
	if s.FromRetry {
		delete(l.retries.ids, s.Event.ID)
	} else {
		l.cursor.offsets.set(s.Event.ID, settled)
		l.cursor.position() // drops settled entries
	}
	if !touchesRetry(s) {
		return
	}
	if s.Disposition == outbox.Retry && l.endpoint.Ordering == outbox.OrderingNone {
		l.retries.readBy(s.RetryAt) // its record's state names the oldest row only
	}
	if r := l.records[s.Event.Record]; r != nil {
		r.pending--
		l.touch(r)
	}
}

// recordState takes a record's state in retry from the outbox.
func (l *lane) recordState(state outbox.RecordState) {
	if state.Blocked {
		l.block(l.record(state.Record), true)
		l.retries.readBy(state.NextAt)
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

// The shortest and longest wait of a lane after a local error.
const (
	ownFaultMin = time.Second
	ownFaultMax = time.Minute
)

// warnAfter are the parts of policy.disableAfter, after which an endpoint that only
// fails is disabled, at which the sender warns: stages 1, 2 and 3, by default after a
// day, three days and four.
var warnAfter = [...]float64{1. / 5, 3. / 5, 4. / 5}

// delivered notes a delivery.
func (h *health) delivered(window int) {
	h.window = min(h.window+1, window)
	h.notHeld()
	h.notFailing()
}

func (h *health) notFailing() {
	h.failingSince, h.failedAt, h.warned, h.lastReason = time.Time{}, time.Time{}, 0, ""
}

// notHeld notes an attempt that ended without a local error.
func (h *health) notHeld() { h.ownFaults, h.heldSince, h.heldReason = 0, time.Time{}, "" }

// held notes an attempt that a local error ended, and delays the next.
func (h *health) held(now time.Time, random func() float64) {
	wait := min(ownFaultMin<<min(h.ownFaults, 10), ownFaultMax)
	h.heldUntil = now.Add(retry.Jitter(wait, random))
	h.ownFaults++
}

// pause delays all attempts, for as long as the endpoint asked for.
func (h *health) pause(until time.Time) {
	h.window = 1
	if until.After(h.pausedUntil) {
		h.pausedUntil = until
	}
}

// retryNow ends the pause and the open time of the breaker, which stays half-open until
// its probe is answered.
func (h *health) retryNow(now time.Time) {
	h.pausedUntil = time.Time{}
	if h.breaker.open(now) {
		h.breaker.trip(now)
	}
}

// afresh resets the health for a new URL.
func (h *health) afresh(random func() float64) {
	h.breaker = newBreaker(random)
	h.pausedUntil, h.heldUntil = time.Time{}, time.Time{}
	h.window, h.probes, h.emptyProbeReads = 1, 0, 0
	h.notHeld()
	h.notFailing()
}

// gated says that a pause, or a wait after a local error, has not ended.
func (h *health) gated(now time.Time) bool {
	return now.Before(h.pausedUntil) || now.Before(h.heldUntil)
}

// gate is when pauses, waits and the open time have all ended; now for none.
func (h *health) gate(now time.Time) time.Time {
	gate := now
	for _, until := range []time.Time{h.pausedUntil, h.heldUntil, h.breaker.until} {
		if until.After(gate) {
			gate = until
		}
	}
	return gate
}

// stage is the warning stage of an endpoint that only fails; 0 for none.
func (h *health) stage(now time.Time, disableAfter time.Duration) int {
	if h.failingSince.IsZero() {
		return 0
	}
	stage := 0
	for _, part := range warnAfter {
		if now.Sub(h.failingSince) >= time.Duration(part*float64(disableAfter)) {
			stage++
		}
	}
	return stage
}

// failedNow notes a failure. After a time without attempts that is longer than any
// retry or pause, counting starts again: two failures with a quiet week between them
// do not disable an endpoint.
func (h *health) failedNow(reason string, now time.Time, disableAfter time.Duration) {
	h.window = max(h.window/2, 1)
	h.lastReason = reason
	if h.failingSince.IsZero() || now.Sub(h.failedAt) > max(disableAfter*2/5, deliver.MaxRetryAfter*3/2) {
		h.failingSince, h.warned = now, 0
	}
	h.failedAt = now
	h.warned = max(h.warned, h.stage(now, disableAfter))
}

// idle says that no failure of the endpoint is known and nothing delays attempts.
func (h *health) idle(now time.Time) bool {
	return h.breaker.closed() && len(h.breaker.failing) == 0 && h.failingSince.IsZero() && !h.gated(now)
}
