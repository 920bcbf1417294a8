package sender

import (
	"time"

	"walhook/outbox"
)

// job is one attempt to be made.
type job struct {
	lane       *lane
	generation int
	endpoint   outbox.Endpoint
	event      outbox.Event
	record     *record
	fromRetry  bool
	permit     permit
	breaker    *breaker // that gave the permit
}

// startable says whether start would have a job.
func (l *lane) startable(now time.Time) bool {
	if l.ready.len() == 0 && len(l.retries) == 0 || !l.sends(now) {
		return false
	}
	if !l.breaker.closed() {
		return l.inFlight == 0 && !l.breaker.open(now)
	}
	return l.inFlight < l.window
}

// start takes the next event to attempt.
func (l *lane) start(now time.Time) (job, bool) {
	if !l.startable(now) {
		return job{}, false
	}
	permit, ok := l.breaker.allow(now)
	if !ok {
		return job{}, false
	}
	j := job{lane: l, generation: l.generation, endpoint: l.endpoint, permit: permit, breaker: l.breaker}
	if i, ok := l.pickRetry(permit.probe); ok {
		j.event, j.fromRetry = l.retries[i], true
		j.record = l.record(j.event.Record)
		l.retries = append(l.retries[:i], l.retries[i+1:]...)
	} else {
		j.record = l.ready.pop()
		j.record.listed = false
		j.event = j.record.queue[0]
		j.record.queue[0] = outbox.Event{}
		j.record.queue = j.record.queue[1:]
		l.ledger.set(j.event.ID, taken)
	}
	l.events--
	l.bodies -= len(j.event.Body)
	j.record.inFlight = true
	l.inFlight++
	if permit.probe {
		l.lastProbe = j.event.ID
	}
	return j, true
}

// pickRetry says which waiting retry goes next, or that the queue's turn is. A
// probe is a retry where there is one, so that the probing of a dead endpoint
// adds no rows, and not the same event twice, which may be the one that fails.
func (l *lane) pickRetry(probe bool) (int, bool) {
	if len(l.retries) == 0 {
		return 0, false
	}
	if probe {
		for i, e := range l.retries {
			if e.ID != l.lastProbe {
				return i, true
			}
		}
		return 0, l.ready.len() == 0
	}
	l.turn = !l.turn
	return 0, l.turn || l.ready.len() == 0
}
