package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

const (
	settleBatch = 4096 // most settlements in one transaction

	// settleWithin is how long settlements of delivered events gather for one
	// transaction, and settleEnough how many end the wait. Nobody waits for them: a
	// record's next event starts when the answer is here. A crash repeats what was not
	// settled.
	settleWithin = 20 * time.Millisecond
	settleEnough = 512

	saveEvery = 3 * time.Second
)

// errDrained ends a dispatcher that stopped with everything settled and saved.
var errDrained = errors.New("drained")

// dispatcher owns the lanes of the held shards. One goroutine (run) reads and writes
// all its fields and those of its lanes. Other goroutines do everything that takes
// time and send back answers. The dispatcher never blocks on them: each channel that
// it sends on has room for all that may be under way.
type dispatcher struct {
	sender *Sender
	log    *zap.Logger
	tailer *tailer
	policy *policy
	lease  *lease

	lanes map[int64]*lane
	// passed is the newest known revision of endpoints without a lane: an older one
	// that the tailer has read must not replace it.
	passed  map[int64]int64
	shards  map[int]*shard
	awake   []*lane     // lanes that did not rest at the last scanLanes
	ring    fifo[*lane] // lanes with a job to start, in turn
	wakes   wakes
	timer   *time.Timer
	timerAt time.Time // what timer is set for; zero for nothing
	limiter *attemptLimiter
	limited bool // lanes in the ring wait for the limiter alone

	inFlight  int // attempts
	carried   int // their events
	workers   int
	buffered  int                 // bytes of bodies waiting in all lanes, or in flight
	unsettled int                 // settlements of lanes that are not committed
	collected []outbox.Settlement // for the settler, when it is free
	settleBy  time.Time           // when the settler gets what is collected
	spare     []outbox.Settlement // empty: the next collected, while the settler has the other
	readQueue fifo[laneRequest]   // for the readers, when one is free
	reading   int
	settling  bool
	saving    bool
	stopping  bool
	moved     bool // the log is on another timeline: it takes no save
	lastSave  bool // the save that ends a stop has begun

	batches     chan tailBatch
	jobs        chan *job
	results     chan *job
	settle      chan []outbox.Settlement
	settled     chan settledBatch
	requests    chan laneRequest
	answers     chan laneRequest
	saves       chan saveRequest
	saved       chan saveRequest
	assignments chan assignment
	changed     chan []outbox.EndpointRevision

	attempts  context.Context // of running attempts
	abort     context.CancelCauseFunc
	attempted sync.WaitGroup // the workers
}

func newDispatcher(s *Sender, lease *lease) *dispatcher {
	return &dispatcher{
		sender: s, log: s.log, policy: s.policy, lease: lease,
		lanes: map[int64]*lane{}, passed: map[int64]int64{}, shards: map[int]*shard{},
		timer:       time.NewTimer(0),
		limiter:     newAttemptLimiter(),
		batches:     make(chan tailBatch),
		jobs:        make(chan *job, s.config.MaxInFlight),
		results:     make(chan *job, s.config.MaxInFlight),
		settle:      make(chan []outbox.Settlement, 1),
		settled:     make(chan settledBatch, 1),
		requests:    make(chan laneRequest, readers),
		answers:     make(chan laneRequest, readers),
		saves:       make(chan saveRequest, 1),
		saved:       make(chan saveRequest, 1),
		assignments: make(chan assignment),
		changed:     make(chan []outbox.EndpointRevision),
	}
}

// run dispatches until ctx ends. After stop is closed it returns errDrained once
// every attempt is settled and every lane saved; after moved is closed, once every attempt
// is settled.
func (d *dispatcher) run(ctx context.Context, stop, moved <-chan struct{}) error {
	d.attempts, d.abort = context.WithCancelCause(ctx)
	defer d.attempted.Wait()
	defer close(d.jobs)
	defer d.abort(errShutdown)
	defer d.sender.metrics.noLanes() // other senders own them from now on
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	limits := &stopLimits{}
	defer limits.end()

	for {
		now := time.Now()
		d.wakeLanes(now)
		d.limited = false
		for d.lease.holds(now) && d.startNext(now) {
		}
		d.handOut(now)
		d.setTimer(now)
		if d.stopping && d.stopped(now) {
			return errDrained
		}
		if d.stopping && d.inFlight == 0 {
			limits.done()
		}
		batches := d.batches
		if d.stopping || d.unsettled >= d.maxUnsettled() || d.hasEnough() {
			batches = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stop:
			stop = nil
			d.stop(now)
			limits.begin(d.sender.config.HTTP.AttemptTimeout, d.abort)
		case <-moved: // nobody waits long for an endpoint that answers slowly
			stop, moved, d.moved = nil, nil, true
			if !d.stopping {
				d.stop(now)
				limits.begin(0, d.abort)
			}
		case <-limits.over():
			return fmt.Errorf("stop: %d attempts and %d settlements are unfinished and may be repeated", d.inFlight, d.unsettled)
		case <-d.timer.C:
			d.timerAt = time.Time{}
		case <-d.lease.renewed:
		case b := <-batches:
			d.takeBatch(b, time.Now())
		case j := <-d.results:
			d.takeResults(j, time.Now())
		case s := <-d.settled:
			d.takeSettled(s, time.Now())
		case r := <-d.answers:
			d.takeAnswer(r, time.Now())
		case assignment := <-d.assignments:
			d.takeAssignment(assignment, time.Now())
		case endpoints := <-d.changed:
			d.takeChanged(endpoints, time.Now())
		case r := <-d.saved:
			d.takeSaved(r)
		case <-save.C:
			d.save(time.Now())
		}
	}
}

// wakeLanes looks at the lanes whose wake-up time is past.
func (d *dispatcher) wakeLanes(now time.Time) {
	for l := d.wakes.due(now); l != nil; l = d.wakes.due(now) {
		d.look(l, now)
	}
}

// look collects what a lane wants done: settlements, reads, a turn, a wake-up. Every
// function that changes a lane calls it afterwards.
func (d *dispatcher) look(l *lane, now time.Time) {
	l.sched.rests = false
	if len(l.out) > 0 {
		if len(d.collected) == 0 {
			d.settleBy = now.Add(settleWithin)
		}
		if l.leaving || slices.ContainsFunc(l.out, isUrgent) {
			d.settleBy = now
		}
		d.collected = append(d.collected, l.out...)
		d.unsettled += len(l.out)
		clear(l.out)
		l.out = l.out[:0]
	}
	d.buffered += l.bodies - l.sched.counted
	l.sched.counted = l.bodies
	if l.wantEndpoint() {
		d.readQueue.push(laneRequest{endpoints: []int64{l.endpoint.ID}})
	}
	if q, ok := l.wantRead(d.room(), now); ok {
		d.readQueue.push(laneRequest{lane: l, tail: new(q)})
	}
	if q, ok := l.wantRetries(d.room(), now); ok {
		d.readQueue.push(laneRequest{lane: l, retries: new(q)})
	}
	if cursor, ok := l.wantExpire(); ok {
		d.readQueue.push(laneRequest{lane: l, expire: new(l.endpoint), cursor: cursor})
	}
	if !l.sched.inRing && l.startable(now) {
		l.sched.inRing = true
		d.ring.push(l)
	}
	d.wakes.set(l, l.wake(now))
}

// startNext gives the next lane its turn to start an attempt; false when there is
// none, or when a bound is reached.
func (d *dispatcher) startNext(now time.Time) bool {
	if d.ring.len() == 0 || d.inFlight >= d.sender.config.MaxInFlight || d.unsettled+d.carried >= d.maxUnsettled() {
		return false
	}
	if d.limited = d.limiter.full(now); d.limited {
		return false
	}
	l := d.ring.pop()
	l.sched.inRing = false
	if j, ok := l.start(now); ok {
		if j.permit.probe {
			d.sender.metrics.breaker.WithLabelValues(breakerHalfOpen).Inc()
		}
		j.number = d.limiter.begin(now)
		d.inFlight++
		d.carried += j.size()
		d.buffered += j.bytes()
		d.jobs <- j
		if d.workers < d.inFlight { // all are busy
			d.workers++
			d.attempted.Go(func() { d.sender.work(d.attempts, d.jobs, d.results) })
		}
		l.sched.usedAt = now
	}
	d.look(l, now)
	return true
}

// setTimer sets the timer for the next lane to wake, or for the next attempt where
// only the limiter holds it back. It leaves a timer for the same instant alone.
func (d *dispatcher) setTimer(now time.Time) {
	next := d.wakes.next()
	if d.limited {
		next = earliest(next, d.limiter.next())
	}
	if !d.settling && len(d.collected) > 0 {
		next = earliest(next, d.settleBy)
	}
	if next.Equal(d.timerAt) {
		return
	}
	d.timerAt = next
	if next.IsZero() {
		d.timer.Stop()
	} else {
		d.timer.Reset(max(next.Sub(now), 0))
	}
}

// handOut gives the settler and the readers their next work when they are free.
func (d *dispatcher) handOut(now time.Time) {
	if !d.settling && d.settleDue(now) {
		n := min(len(d.collected), settleBatch)
		d.settling = true
		batch, rest := d.collected[:n], d.collected[n:]
		d.spare, d.collected = nil, append(d.spare, rest...)
		d.settleBy = now // for the rest, whose wait is over
		clear(rest)
		d.settle <- batch
	}
	for d.reading < readers && d.readQueue.len() > 0 {
		d.reading++
		d.requests <- d.readQueue.pop()
	}
}

// settleDue says whether what is collected should be settled now: there is enough of
// it, it has waited, or somebody waits for it.
func (d *dispatcher) settleDue(now time.Time) bool {
	return len(d.collected) > 0 && (len(d.collected) >= settleEnough || !now.Before(d.settleBy) ||
		d.stopping || 2*(d.unsettled+d.carried) >= d.maxUnsettled())
}

// isUrgent says that something depends on a settlement: a row in retry, a dead letter,
// a disabled endpoint.
func isUrgent(s outbox.Settlement) bool {
	return s.Disposition != outbox.Delivered || s.FromRetry
}

// room is how many bytes all lanes together may still buffer. It is negative when
// lanes use their floors beyond the limit.
func (d *dispatcher) room() int { return d.sender.config.BufferBytes - d.buffered }

// maxUnsettled bounds how many attempts a crash repeats, and how many settlements
// wait in memory while the outbox is away.
func (d *dispatcher) maxUnsettled() int { return 2 * d.sender.config.MaxInFlight }

const (
	// enoughLanes with an event to send, and enoughBytes of bodies in all, keep this
	// machine busy while the tailer reads more; reading further only takes memory. A
	// few busy lanes must not stall the tail.
	enoughLanes = 64
	enoughBytes = 4 << 20
)

// hasEnough says that the tailer can wait until the lanes have sent some events.
func (d *dispatcher) hasEnough() bool {
	return d.ring.len() >= enoughLanes && d.buffered >= enoughBytes
}

// takeBatch offers the events of the log's next stretch to the lanes. It ignores the
// events of a shard that was released and gained again meanwhile, where they do not
// follow what the shard has read: the tailer reads them again.
func (d *dispatcher) takeBatch(b tailBatch, now time.Time) {
	d.takeEndpoints(b.endpoints, now)
	d.evict(b.forgotten, now)
	for i := range b.events {
		e := &b.events[i]
		shard := d.shards[outbox.ShardOf(e.Endpoint)]
		if shard == nil || shard.leaving || shard.read < b.after || e.ID <= shard.read {
			continue
		}
		l := d.laneOf(e.Endpoint)
		if l == nil {
			d.log.Warn("event of an unknown endpoint", zap.Int64("endpoint", e.Endpoint), zap.String("event", e.WebhookID))
			continue
		}
		l.offer(*e, d.room(), now)
		d.look(l, now)
	}
	for _, id := range b.shards {
		if shard := d.shards[id]; shard != nil && !shard.leaving && shard.read >= b.after {
			shard.read = max(shard.read, b.upto)
		}
	}
}

// takeChanged has lanes read their endpoints again, and send nothing until they have.
// For an endpoint without a lane it keeps the revision alone: the tailer reads the
// endpoint with its next event.
func (d *dispatcher) takeChanged(changed []outbox.EndpointRevision, now time.Time) {
	var stale []int64
	for _, c := range changed {
		l := d.laneOf(c.ID)
		if l == nil {
			d.passed[c.ID] = max(d.passed[c.ID], c.Revision)
			continue
		}
		l.newest, l.sched.rests = max(l.newest, c.Revision), false
		if l.retryNow(c.RetryAsked, now) {
			d.log.Info("retrying now, as asked for", zap.Int64("endpoint", c.ID))
			d.look(l, now)
		}
		if l.wantEndpoint() || l.wantReadable() {
			stale = append(stale, c.ID)
		}
	}
	for ids := range slices.Chunk(stale, readEndpoints) {
		d.readQueue.push(laneRequest{endpoints: ids})
	}
}

// takeEndpoints makes lanes for endpoints that have none, and gives the other lanes
// the newer revision of theirs.
func (d *dispatcher) takeEndpoints(endpoints []outbox.Endpoint, now time.Time) {
	for _, e := range endpoints {
		shard := d.shards[outbox.ShardOf(e.ID)]
		if shard == nil {
			continue
		}
		l := d.laneOf(e.ID)
		if l == nil {
			l = newLane(d.policy, e)
			l.leaving, l.cursor.horizon = shard.leaving, shard.horizon
			l.newest = d.passed[e.ID]
			delete(d.passed, e.ID)
			d.lanes[e.ID] = l
			d.look(l, now)
			continue
		}
		before := l.endpoint.State
		l.adopt(e, shard.read, now)
		if l.endpoint.State != before {
			d.log.Info("endpoint state", zap.Int64("endpoint", e.ID), zap.String("state", string(e.State)), zap.String("reason", e.Reason))
		}
		d.look(l, now)
	}
}

// takeResults takes one result, and as many more as are ready.
func (d *dispatcher) takeResults(j *job, now time.Time) {
	for n := 0; ; n++ {
		d.inFlight--
		d.carried -= j.size()
		d.limiter.end(j.number)
		d.buffered -= j.bytes()
		l := j.lane
		before := conditionOf(l)
		outcome, retryIn := l.finish(j, now)
		d.sender.report(j, outcome, retryIn)
		d.noteCondition(l, before, j.result.Detail, now)
		j.done()
		d.look(l, now)
		if n == settleBatch {
			return
		}
		select {
		case j = <-d.results:
		default:
			return
		}
	}
}

// takeSettled marks events as settled once their batch is committed. The settlements
// come before the record states, which are those after the whole batch.
func (d *dispatcher) takeSettled(s settledBatch, now time.Time) {
	d.settling = false
	d.unsettled -= len(s.batch)
	for i := range s.batch {
		if l := d.laneOf(s.batch[i].Event.Endpoint); l != nil {
			l.settledAs(&s.batch[i])
		}
	}
	for _, state := range s.states {
		if l := d.laneOf(state.Endpoint); l != nil {
			l.recordState(state)
		}
	}
	var last *lane
	for i := range s.batch {
		if l := d.laneOf(s.batch[i].Event.Endpoint); l != nil && l != last {
			d.look(l, now)
			last = l
		}
	}
	clear(s.batch)
	d.spare = s.batch[:0]
}

func (d *dispatcher) takeAnswer(r laneRequest, now time.Time) {
	d.reading--
	l := r.lane
	switch {
	case r.tail != nil:
		l.read(*r.tail, r.stretch, now)
	case r.retries != nil:
		l.readRetries(*r.retries, r.due, now)
	case r.endpoints != nil:
		// The lane of an endpoint that does not exist any more keeps what it has.
		for i, e := range r.found {
			if l := d.laneOf(e.ID); l != nil { // not released meanwhile
				l.asked = false
				d.takeEndpoints(r.found[i:i+1], now)
			}
		}
		return
	case r.expire != nil:
		l.expired(r.expire.SendFrom())
	}
	if d.laneOf(l.endpoint.ID) == l { // not released meanwhile
		d.look(l, now)
	}
}

// laneOf is the lane of an endpoint whose shard is held; nil otherwise.
func (d *dispatcher) laneOf(endpoint int64) *lane { return d.lanes[endpoint] }

// tailOf is the id up to which the lane's shard has been offered events.
func (d *dispatcher) tailOf(l *lane) int64 {
	if shard := d.shards[outbox.ShardOf(l.endpoint.ID)]; shard != nil {
		return shard.read
	}
	return 0
}
