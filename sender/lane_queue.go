package sender

import (
	"slices"
	"sync"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// What waits in a lane, what it reads, and what it starts. What an endpoint's
// ordering means is decided here. What is known of a record
// (what waits, what is in flight, whether it has rows in retry) is the same in
// all three, so a change takes effect at once: what waits is read again.
//
//	none    each event is ready by itself; a failed one holds back nothing
//	record  one of a record is ready; behind a failed one the rest is parked
//	strict  each event is ready in its turn, one in flight; behind a failed one
//	        the lane stops, and nothing is written

// record is one record's place in its lane. It exists while something of it
// waits, is in flight, in retry, or on its way to the outbox.
type record struct {
	name     string
	queue    []outbox.Event  // from the log, in order
	one      [1]outbox.Event // where queue begins: seldom is there more than one
	inFlight int             // more than one only without an order
	listed   bool            // in lane.ready
	blocked  bool            // rows in retry
	pending  int             // settlements of it, on their way, that touch retry
	changed  uint64
}

// empty drops what waits, and its bodies.
func (r *record) empty() {
	clear(r.queue)
	r.queue = r.one[:0]
}

// maxOffsets bounds how far a lane runs ahead of an event that takes long.
const maxOffsets = 4096

// laneFloor is what a lane may hold in any case: others' large events must not
// keep small ones out.
const laneFloor = 16 << 10

// full says that no more may wait here. room is what is left of the bytes for
// all lanes together: a lane may have as much of them as it leaves to others,
// so that those with much waiting make way first. One event is always let in.
func (l *lane) full(room int) bool {
	return l.events >= l.policy.events || l.cursor.offsets.len() >= maxOffsets || l.events > 0 && l.bodies >= l.share(room)
}

func (l *lane) share(room int) int { return min(l.policy.bytes, max(room, laneFloor)) }

// offer hands over the tail's next event of this endpoint.
func (l *lane) offer(e outbox.Event, room int, now time.Time) {
	if e.ID <= l.cursor.seen && !l.cursor.behind {
		return
	}
	if !l.cursor.behind && (!l.buffers(now) || !l.health.breaker.closed() || l.full(room) || e.ID < l.endpoint.SendFrom()) {
		l.cursor.behind, l.cursor.readTo = true, e.ID-1
	}
	if e.ID < l.endpoint.SendFrom() || l.endpoint.State == outbox.EndpointCleared {
		l.expiring = true
	}
	if l.cursor.behind {
		l.cursor.missed = max(l.cursor.missed, e.ID)
		return
	}
	l.accept(e)
}

func (l *lane) accept(e outbox.Event) {
	l.cursor.seen = max(l.cursor.seen, e.ID)
	if !l.cursor.offsets.add(e.ID, waiting) {
		return
	}
	r := l.record(e.Record)
	if r.blocked && l.parks() {
		l.park(r, e)
		return
	}
	r.queue = append(r.queue, e)
	l.events++
	l.bodies += len(e.Body)
	if !l.parks() {
		l.ready.push(r) // once per event
	}
	l.list(r)
}

func (l *lane) record(name string) *record {
	r := l.records[name]
	if r == nil {
		r = &record{name: name}
		r.queue = r.one[:0]
		l.records[name] = r
	}
	return r
}

func (l *lane) forgetIdle(r *record) {
	if len(r.queue) == 0 && r.inFlight == 0 && !r.listed && !r.blocked && r.pending == 0 {
		delete(l.records, r.name)
	}
}

// parks says that events wait in retry behind a failed one of their record.
func (l *lane) parks() bool {
	return l.endpoint.Ordering != outbox.OrderingNone && l.endpoint.Ordering != outbox.OrderingStrict
}

// stuck says that strict ordering lets nothing pass what is in retry.
func (l *lane) stuck() bool {
	return l.endpoint.Ordering == outbox.OrderingStrict && l.retries.blocked > 0
}

// width is how many attempts may be in flight, apart from the breaker.
func (l *lane) width() int {
	if l.endpoint.Ordering == outbox.OrderingStrict {
		return 1
	}
	return l.health.window
}

// list makes a record's next event available, when that waits for the record.
func (l *lane) list(r *record) {
	if l.parks() && len(r.queue) > 0 && r.inFlight == 0 && !r.blocked && !r.listed {
		r.listed = true
		l.ready.push(r)
	}
}

// requeue puts an event back that was taken from the queue.
func (l *lane) requeue(r *record, e outbox.Event, now time.Time) {
	l.cursor.offsets.set(e.ID, waiting)
	l.events++
	l.bodies += len(e.Body)
	i, _ := slices.BinarySearchFunc(r.queue, e.ID, func(q outbox.Event, id int64) int { return int(q.ID - id) })
	r.queue = slices.Insert(r.queue, i, e)
	switch l.endpoint.Ordering {
	case outbox.OrderingNone:
		l.ready.push(r)
	case outbox.OrderingStrict:
		l.dropBuffered(now) // and is read again, in order
	default:
		l.list(r)
	}
}

// holdBack parks what waits behind a failed event of its record. With strict
// ordering the lane, which is stuck now, evicts everything instead.
func (l *lane) holdBack(r *record) {
	if !l.parks() {
		return
	}
	for _, e := range r.queue {
		l.events--
		l.bodies -= len(e.Body)
		l.park(r, e)
	}
	r.empty()
}

func (l *lane) park(r *record, e outbox.Event) {
	l.cursor.offsets.set(e.ID, taken)
	e.Body = nil
	l.hand(r, outbox.Settlement{Event: e, Disposition: outbox.Parked})
}

// block notes whether a record has rows in retry.
func (l *lane) block(r *record, blocked bool) {
	if r.blocked == blocked {
		return
	}
	r.blocked = blocked
	if blocked {
		l.retries.blocked++
	} else {
		l.retries.blocked--
	}
}

// dropBuffered evicts what is waiting: it stays in the log and in retry, and is
// read again.
func (l *lane) dropBuffered(now time.Time) {
	for r := range l.ready.all() {
		r.listed = false
	}
	l.ready = fifo[*record]{}
	for _, r := range l.records {
		r.empty()
		l.forgetIdle(r)
	}
	l.retries.drop(now)
	l.events, l.bodies = 0, 0
	lowest, highest := l.cursor.offsets.dropWaiting()
	if lowest == 0 {
		return
	}
	if l.cursor.behind {
		lowest = min(lowest, l.cursor.readTo+1)
	}
	l.cursor.lag(lowest-1, highest)
}

// farAhead makes retries due that are not: for an endpoint that starts afresh.
// It is more than the longest wait there is.
const farAhead = 30 * 24 * time.Hour

// maxEmptyProbeReads is how many reads for a probe may find an event that has to
// wait for another, and is parked. Then the probe waits for one from retry.
const maxEmptyProbeReads = 8

// wantRead says which part of the log the lane would read next by itself. A
// lane that has read all that the tail passed by is at the tail again.
func (l *lane) wantRead(room int, now time.Time) (outbox.TailQuery, bool) {
	if !l.cursor.behind || l.cursor.reading || !l.sends(now) || l.health.breaker.open(now) || l.stuck() {
		return outbox.TailQuery{}, false
	}
	if l.cursor.rejoin() {
		return outbox.TailQuery{}, false
	}
	if l.full(room) || l.events > l.policy.events/2 || l.bodies > l.policy.bytes/2 {
		return outbox.TailQuery{}, false
	}
	q := outbox.TailQuery{
		Endpoint: l.endpoint.ID, After: l.cursor.readTo, Upto: l.cursor.missed,
		Limit: l.policy.events - l.events, MaxBytes: l.share(room) - l.bodies,
	}
	if !l.health.breaker.closed() {
		// One event will do for a probe, where retry has none or it is its turn.
		if l.health.emptyProbeReads >= maxEmptyProbeReads || l.ready.len() > 0 || l.inFlight > 0 || l.retries.reading || !l.freshTurn() && (len(l.retries.waiting) > 0 || l.retries.due(now)) {
			return outbox.TailQuery{}, false
		}
		q.MaxBytes = 1
	}
	if l.cursor.readTo < l.cursor.horizon {
		q.Unsettled, q.Upto = true, min(l.cursor.missed, l.cursor.horizon)
	}
	l.cursor.reading = true
	return q, true
}

// read takes the answer to wantRead's query.
func (l *lane) read(q outbox.TailQuery, stretch outbox.Stretch, now time.Time) {
	l.cursor.reading = false
	if !l.cursor.behind || l.cursor.readTo != q.After || !l.buffers(now) {
		return // overtaken by an eviction, an expiry, an opening; asked again later
	}
	for _, e := range stretch.Events {
		if e.ID < l.endpoint.SendFrom() {
			l.expiring = true
			l.dropBuffered(now)
			return
		}
		l.cursor.readTo = e.ID
		l.accept(e)
	}
	l.cursor.readTo = max(l.cursor.readTo, stretch.Upto)
	if !l.health.breaker.closed() && l.ready.len() == 0 && len(stretch.Events) > 0 {
		l.health.emptyProbeReads++
	}
}

// retryQuery is a question for rows of retry, and what the lane was like then.
type retryQuery struct {
	outbox.RetryQuery
	clock uint64
	all   bool // for those too that are not due
}

// wantRetries says which rows of retry the lane would read next.
func (l *lane) wantRetries(room int, now time.Time) (retryQuery, bool) {
	if l.retries.reading || !l.retries.due(now) || !l.sends(now) || l.health.breaker.open(now) ||
		len(l.retries.waiting) > 0 || l.inFlight >= l.width() {
		return retryQuery{}, false
	}
	q := retryQuery{clock: l.retries.clock, all: l.retries.all, RetryQuery: outbox.RetryQuery{
		Endpoint: l.endpoint.ID, Now: now, Limit: l.width() - l.inFlight, MaxBytes: l.share(room) - l.bodies,
	}}
	if !l.health.breaker.closed() {
		if l.freshTurn() && (l.cursor.reading || l.ready.len() > 0) {
			return retryQuery{}, false
		}
		q.Limit = 2 // the last probe's event and another
	}
	if q.all {
		q.Now = now.Add(farAhead)
	}
	for id := range l.retries.ids {
		q.Exclude = append(q.Exclude, id)
	}
	l.retries.reading, l.retries.dueAt, l.retries.all = true, time.Time{}, false
	return q, true
}

// readRetries takes the answer to wantRetries's query. A row is taken only when
// nothing happened to its record since the question: otherwise another row may
// now be its oldest.
func (l *lane) readRetries(q retryQuery, due outbox.Retries, now time.Time) {
	l.retries.reading = false
	l.retries.readBy(due.Next)
	if due.More {
		l.retries.dueAt, l.retries.all = now, l.retries.all || q.all
	}
	if !l.sends(now) || l.health.breaker.open(now) {
		l.retries.readBy(now)
		l.retries.all = l.retries.all || q.all
		return
	}
	found := map[string]bool{}
	for _, e := range due.Events {
		if e.ID < l.endpoint.SendFrom() {
			l.expiring = true
			l.dropBuffered(now)
			return
		}
		found[e.Record] = true
		l.acceptRetry(q, e, now)
	}
	if q.all && !due.More {
		l.freeAbsent(q, found)
	}
}

func (l *lane) acceptRetry(q retryQuery, e outbox.Event, now time.Time) {
	r := l.record(e.Record)
	if _, again := l.retries.ids[e.ID]; again {
		return
	}
	ordered := l.endpoint.Ordering != outbox.OrderingNone
	if ordered && (r.pending > 0 || r.changed > q.clock) {
		return // an answer on its way, or just come, sets the next time
	}
	if ordered && (r.inFlight > 0 || len(r.queue) > 0) {
		// A row that is not by our doing, such as an event sent again.
		l.retries.readBy(now.Add(time.Second))
		return
	}
	l.block(r, true)
	l.retries.ids[e.ID] = struct{}{}
	l.retries.waiting = append(l.retries.waiting, e)
	l.events++
	l.bodies += len(e.Body)
}

// freeAbsent frees the records that a complete reading of retry did not show:
// an expiry took their rows.
func (l *lane) freeAbsent(q retryQuery, found map[string]bool) {
	for _, r := range l.records {
		if r.blocked && !found[r.name] && r.pending == 0 && r.inFlight == 0 && r.changed <= q.clock && !l.retries.holds(r.name) {
			l.block(r, false)
			l.list(r)
			l.forgetIdle(r)
		}
	}
}

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
	number     int64          // as the limiter counts
	result     deliver.Result // once it is made
}

// jobPool holds jobs that are done, to be used again.
var jobPool = sync.Pool{New: func() any { return &job{} }}

// done frees a job that nobody looks at any more.
func (j *job) done() {
	*j = job{}
	jobPool.Put(j)
}

// stallAfter is how long nothing may come back from an endpoint before it gets
// no more than two attempts at a time.
const stallAfter = time.Second

// startable says whether start would have a job.
func (l *lane) startable(now time.Time) bool {
	if !l.waits() || !l.sends(now) || l.health.limit.holds(l.rate(), now) {
		return false
	}
	if !l.health.breaker.closed() {
		return l.inFlight == 0 && !l.health.breaker.open(now)
	}
	stalled := l.inFlight >= 2 && now.Sub(l.health.movedAt) > stallAfter
	return l.inFlight < l.width() && !stalled
}

// waits says that something may be attempted once its time comes.
func (l *lane) waits() bool { return len(l.retries.waiting) > 0 || l.ready.len() > 0 && !l.stuck() }

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
	permit, ok := l.health.breaker.allow(now)
	if !ok {
		return nil, false
	}
	j := jobPool.Get().(*job)
	*j = job{lane: l, generation: l.generation, endpoint: l.endpoint, permit: permit, breaker: l.health.breaker}
	if i, ok := l.pickRetry(permit.probe); ok {
		j.event, j.fromRetry = l.retries.waiting[i], true
		j.record = l.record(j.event.Record)
		l.retries.waiting = append(l.retries.waiting[:i], l.retries.waiting[i+1:]...)
	} else {
		j.record = l.ready.pop()
		j.record.listed = false
		j.event = j.record.queue[0]
		j.record.queue[0] = outbox.Event{}
		j.record.queue = j.record.queue[1:]
		l.cursor.offsets.set(j.event.ID, taken)
	}
	l.events--
	l.bodies -= len(j.event.Body)
	j.record.inFlight++
	if l.inFlight++; l.inFlight == 1 {
		l.health.movedAt = now
	}
	l.health.limit.started(l.rate(), now)
	if permit.probe {
		l.health.lastProbe = j.event.ID
	}
	return j, true
}

// pickRetry says which waiting retry goes next, or that the queue's turn is. A
// probe is a retry where there is one, so that the probing of a dead endpoint
// adds few rows, and not the same event twice, which may be the one that fails.
func (l *lane) pickRetry(probe bool) (int, bool) {
	if len(l.retries.waiting) == 0 || probe && l.freshTurn() && l.ready.len() > 0 {
		return 0, false
	}
	if l.stuck() {
		return 0, true
	}
	if probe {
		for i, e := range l.retries.waiting {
			if e.ID != l.health.lastProbe {
				return i, true
			}
		}
		return 0, l.ready.len() == 0
	}
	l.retries.turn = !l.retries.turn
	return 0, l.retries.turn || l.ready.len() == 0
}

// freshTurn says that the next probe is an event that has not been tried: what
// is in retry may be just those events that this endpoint cannot take, and
// would keep it open for ever. It is every other probe's turn.
func (l *lane) freshTurn() bool {
	return l.health.probes%2 == 1 && l.health.emptyProbeReads < maxEmptyProbeReads && !l.stuck()
}
