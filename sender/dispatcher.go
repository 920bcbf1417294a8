package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

const (
	settleBatch = 4096 // most settlements in one transaction
	saveEvery   = 3 * time.Second
)

// errDrained ends a dispatcher that was asked to stop and left nothing open.
var errDrained = errors.New("drained")

// dispatcher owns the lanes of the held shards. One goroutine (run) reads and
// writes all its fields and those of its lanes; everything that takes time is
// done by others, who hand back answers. It never blocks on any of them: each
// channel that it sends on has room for all that may be under way.
type dispatcher struct {
	sender *Sender
	log    *zap.Logger
	tailer *tailer
	policy *policy
	lease  *lease

	lanes map[int64]*lane
	// passed is the newest revision told of endpoints that have no lane here:
	// what the tailer read before must not win over it.
	passed  map[int64]int64
	shards  map[int]*shard
	awake   []*lane     // as of the last survey: those that do not rest
	ring    fifo[*lane] // lanes with a job to start, in turn
	wakes   wakes
	timer   *time.Timer
	timerAt time.Time // what timer is set for; zero for nothing
	pace    *pace
	paced   bool // the last attempts that could have begun wait for pace

	inFlight  int
	workers   int
	buffered  int                 // bytes of bodies waiting in all lanes, or in flight
	unsettled int                 // settlements handed out and not durable
	collected []outbox.Settlement // for the settler, when it is free
	spare     []outbox.Settlement // empty, to collect in while the settler has the other
	wishes    fifo[laneRequest]   // for the readers, when one is free
	reading   int
	settling  bool
	saving    bool
	stopping  bool
	lastSave  bool // the one that ends a stop is under way

	batches  chan tailBatch
	jobs     chan *job
	results  chan *job
	settle   chan []outbox.Settlement
	settled  chan settledBatch
	requests chan laneRequest
	answers  chan laneRequest
	saves    chan saveRequest
	saved    chan saveRequest
	dealt    chan deal
	changed  chan []outbox.EndpointRevision

	attempts  context.Context // ends when running attempts must
	abort     context.CancelCauseFunc
	attempted sync.WaitGroup // the workers
}

func newDispatcher(s *Sender, lease *lease) *dispatcher {
	return &dispatcher{
		sender: s, log: s.log, policy: s.policy, lease: lease,
		lanes: map[int64]*lane{}, passed: map[int64]int64{}, shards: map[int]*shard{},
		timer:    time.NewTimer(0),
		pace:     newPace(),
		batches:  make(chan tailBatch),
		jobs:     make(chan *job, s.config.MaxInFlight),
		results:  make(chan *job, s.config.MaxInFlight),
		settle:   make(chan []outbox.Settlement, 1),
		settled:  make(chan settledBatch, 1),
		requests: make(chan laneRequest, readers),
		answers:  make(chan laneRequest, readers),
		saves:    make(chan saveRequest, 1),
		saved:    make(chan saveRequest, 1),
		dealt:    make(chan deal),
		changed:  make(chan []outbox.EndpointRevision),
	}
}

// run dispatches until ctx ends, or until stop is closed and all that was
// begun is settled and saved: errDrained.
func (d *dispatcher) run(ctx context.Context, stop <-chan struct{}) error {
	d.attempts, d.abort = context.WithCancelCause(ctx)
	defer d.attempted.Wait()
	defer close(d.jobs)
	defer d.abort(errShutdown)
	defer d.sender.metrics.noLanes() // others hold them from now on
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	limits := &stopLimits{}
	defer limits.end()

	for {
		now := time.Now()
		d.wakeLanes(now)
		d.startJobs(now)
		d.setTimer(now)
		d.handOut()
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
		case <-limits.over():
			return fmt.Errorf("stop: %d attempts and %d settlements are not done and may be repeated", d.inFlight, d.unsettled)
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
		case deal := <-d.dealt:
			d.takeDeal(deal, time.Now())
		case endpoints := <-d.changed:
			d.takeChanged(endpoints, time.Now())
		case r := <-d.saved:
			d.takeSaved(r)
		case <-save.C:
			d.save(time.Now())
		}
	}
}

// room is what is left of the bytes for all lanes; negative when they have been
// let in more by their floors.
func (d *dispatcher) room() int { return d.sender.config.BufferBytes - d.buffered }

// maxUnsettled bounds what a crash repeats, and what waits in memory while the
// outbox is away.
func (d *dispatcher) maxUnsettled() int { return 2 * d.sender.config.MaxInFlight }

const (
	// enoughLanes with an event to send, and enoughBytes of bodies in all, keep
	// this machine busy for as long as it takes to read more: what is read
	// beyond that only takes memory. A few lanes can be no reason not to read
	// on for the others.
	enoughLanes = 64
	enoughBytes = 4 << 20
)

// hasEnough says that reading on can wait until some of what is here is sent.
func (d *dispatcher) hasEnough() bool {
	return d.ring.len() >= enoughLanes && d.buffered >= enoughBytes
}

// wakeLanes looks at the lanes whose time has come.
func (d *dispatcher) wakeLanes(now time.Time) {
	for l := d.wakes.due(now); l != nil; l = d.wakes.due(now) {
		d.look(l, now)
	}
}

// setTimer sets the timer for the next lane, or for the next attempt where only
// pace holds it back. A timer that is set for the same instant is left alone.
func (d *dispatcher) setTimer(now time.Time) {
	next := d.wakes.next()
	if d.paced {
		next = earliest(next, d.pace.next())
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

// look takes from a lane what it wants done. It follows everything that
// happens to a lane.
func (d *dispatcher) look(l *lane, now time.Time) {
	l.rests = false
	if len(l.out) > 0 {
		d.collected = append(d.collected, l.out...)
		d.unsettled += len(l.out)
		clear(l.out)
		l.out = l.out[:0]
	}
	d.buffered += l.bodies - l.counted
	l.counted = l.bodies
	if l.wantEndpoint() {
		d.wishes.push(laneRequest{endpoints: []int64{l.endpoint.ID}})
	}
	if q, ok := l.wantRead(d.room(), now); ok {
		d.wishes.push(laneRequest{lane: l, tail: new(q)})
	}
	if q, ok := l.wantRetries(d.room(), now); ok {
		d.wishes.push(laneRequest{lane: l, retries: new(q)})
	}
	if cursor, ok := l.wantExpire(); ok {
		d.wishes.push(laneRequest{lane: l, expire: new(l.endpoint), cursor: cursor})
	}
	if !l.inRing && l.startable(now) {
		l.inRing = true
		d.ring.push(l)
	}
	d.wakes.set(l, l.wake(now))
}

// startJobs starts attempts, one of each lane in turn, as far as the lease and
// the bounds allow.
func (d *dispatcher) startJobs(now time.Time) {
	d.paced = false
	if !d.lease.holds(now) {
		return
	}
	for d.startNext(now) {
	}
}

// startNext gives the next lane its turn; false when there is none, or when a
// bound is reached.
func (d *dispatcher) startNext(now time.Time) bool {
	if d.ring.len() == 0 || d.inFlight >= d.sender.config.MaxInFlight || d.unsettled+d.inFlight >= d.maxUnsettled() {
		return false
	}
	if d.paced = d.pace.full(now); d.paced {
		return false
	}
	l := d.ring.pop()
	l.inRing = false
	if j, ok := l.start(now); ok {
		if j.permit.probe {
			d.sender.metrics.breaker.WithLabelValues(breakerHalfOpen).Inc()
		}
		j.number = d.pace.begin(now)
		d.attempt(j)
	}
	d.look(l, now)
	return true
}

// attempt hands a job to a worker, which is started when all are busy.
func (d *dispatcher) attempt(j *job) {
	d.inFlight++
	d.buffered += len(j.event.Body)
	d.jobs <- j
	if d.workers < d.inFlight {
		d.workers++
		d.attempted.Go(func() { d.sender.work(d.attempts, d.jobs, d.results) })
	}
}

// handOut gives the settler and the readers their next work, where they are
// free.
func (d *dispatcher) handOut() {
	if !d.settling && len(d.collected) > 0 {
		n := min(len(d.collected), settleBatch)
		d.settling = true
		batch, rest := d.collected[:n], d.collected[n:]
		d.spare, d.collected = nil, append(d.spare, rest...)
		clear(rest)
		d.settle <- batch
	}
	for d.reading < readers && d.wishes.len() > 0 {
		d.reading++
		d.requests <- d.wishes.pop()
	}
}
