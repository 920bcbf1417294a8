package sender

import (
	"sync"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// job is one attempt: to be made, and then made.
type job struct {
	lane       *lane
	generation int
	endpoint   outbox.Endpoint
	event      outbox.Event
	record     *record
	fromRetry  bool
	permit     permit
	breaker    *breaker       // that gave the permit
	number     int64          // as pace counts
	result     deliver.Result // once it is made
}

// jobPool holds jobs that are done, to be used again.
var jobPool = sync.Pool{New: func() any { return &job{} }}

// done lets go of a job that nobody looks at any more.
func (j *job) done() {
	*j = job{}
	jobPool.Put(j)
}

// stallAfter is how long nothing may come back from an endpoint before it gets
// no more than two attempts at a time.
const stallAfter = time.Second

// startable says whether start would have a job.
func (l *lane) startable(now time.Time) bool {
	if !l.waits() || !l.sends(now) || l.limit.holds(l.rate(), now) {
		return false
	}
	if !l.breaker.closed() {
		return l.inFlight == 0 && !l.breaker.open(now)
	}
	stalled := l.inFlight >= 2 && now.Sub(l.movedAt) > stallAfter
	return l.inFlight < l.width() && !stalled
}

// waits says that something may be attempted once its time comes.
func (l *lane) waits() bool { return len(l.retries) > 0 || l.ready.len() > 0 && !l.stuck() }

// rate is the limit of attempts a second; 0 for none.
func (l *lane) rate() float64 {
	if s := l.endpoint.Settings; s != nil {
		return s.RateLimit
	}
	return 0
}

// start takes the next event to attempt.
func (l *lane) start(now time.Time) (*job, bool) {
	if !l.startable(now) {
		return nil, false
	}
	permit, ok := l.breaker.allow(now)
	if !ok {
		return nil, false
	}
	j := jobPool.Get().(*job)
	*j = job{lane: l, generation: l.generation, endpoint: l.endpoint, permit: permit, breaker: l.breaker}
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
	j.record.inFlight++
	if l.inFlight++; l.inFlight == 1 {
		l.movedAt = now
	}
	l.usedAt = now
	l.limit.started(l.rate(), now)
	if permit.probe {
		l.lastProbe = j.event.ID
	}
	return j, true
}

// pickRetry says which waiting retry goes next, or that the queue's turn is. A
// probe is a retry where there is one, so that the probing of a dead endpoint
// adds few rows, and not the same event twice, which may be the one that fails.
func (l *lane) pickRetry(probe bool) (int, bool) {
	if len(l.retries) == 0 || probe && l.freshTurn() && l.ready.len() > 0 {
		return 0, false
	}
	if l.stuck() {
		return 0, true
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

// freshTurn says that the next probe is an event that has not been tried: what
// is in retry may be just those events that this endpoint cannot take, and
// would keep it open for ever. It is every other probe's turn.
func (l *lane) freshTurn() bool { return l.probes%2 == 1 && l.barren < maxBarren && !l.stuck() }
