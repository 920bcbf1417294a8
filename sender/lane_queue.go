package sender

import (
	"slices"
	"time"

	"walhook/outbox"
)

// This file holds what waits in a lane, what it reads and what it starts. It is the
// only one that knows the orderings of an endpoint. The state of a record (its
// events that wait, that are in flight, its rows in retry) is the same in all three,
// so a change of ordering takes effect at once: the lane drops what waits and reads
// it again.
//
//	none    each event is ready by itself; a failed one delays no other
//	record  one event of a record is ready; behind a failed one the lane parks the rest
//	strict  each event is ready in its turn, one in flight; behind a failed one the
//	        lane stops, and writes no rows

// record is the state of one record in its lane. It exists while an event of the
// record waits, is in flight, in retry, or being settled.
type record struct {
	name     string
	queue    []outbox.Event  // from the log, in order
	one      [1]outbox.Event // the queue's first memory: it usually holds at most one
	inFlight int             // more than one only with ordering none, or in one batch
	listed   bool            // in lane.ready
	blocked  bool            // it has rows in retry
	pending  int             // its uncommitted settlements that touch retry
	changed  uint64          // retries.clock at its last change
}

// empty drops the events that wait, with their bodies.
func (r *record) empty() {
	clear(r.queue)
	r.queue = r.one[:0]
}

// maxOffsets bounds how many events a lane accepts behind an unsettled one.
const maxOffsets = 4096

// laneFloor is how many bytes a lane may buffer in any case: large events of other
// lanes must not keep its small ones out.
const laneFloor = 16 << 10

// full says that the lane may buffer no more. room is how many bytes all lanes
// together may still buffer: a lane may have as many as it leaves to others, so that
// the fullest lanes stop first. A lane may always buffer one event.
func (l *lane) full(room int) bool {
	return l.events >= l.policy.events || l.cursor.offsets.len() >= maxOffsets || l.events > 0 && l.bodies >= l.share(room)
}

func (l *lane) share(room int) int { return min(l.policy.bytes, max(room, laneFloor)) }

// offer gives the lane the tail's next event of its endpoint.
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

// accept takes an event of the event log into the lane: into its record's queue, or
// into retry behind an event that failed.
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

// parks says that the endpoint's ordering is per record: events wait in retry behind a
// failed one.
func (l *lane) parks() bool {
	return l.endpoint.Ordering != outbox.OrderingNone && l.endpoint.Ordering != outbox.OrderingStrict
}

// stuck says that, with strict ordering, an event is in retry and all others wait.
func (l *lane) stuck() bool {
	return l.endpoint.Ordering == outbox.OrderingStrict && l.retries.blocked > 0
}

// width is how many attempts may be in flight while the breaker is closed.
func (l *lane) width() int {
	if l.endpoint.Ordering == outbox.OrderingStrict {
		return 1
	}
	return l.health.window
}

// list makes a record's next event ready, with ordering per record.
func (l *lane) list(r *record) {
	if l.parks() && len(r.queue) > 0 && r.inFlight == 0 && !r.blocked && !r.listed {
		r.listed = true
		l.ready.push(r)
	}
}

// requeue returns an event to the queue that it was taken from.
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
		l.dropBuffered(now) // and reads it again, in order
	default:
		l.list(r)
	}
}

// holdBack parks the events that wait behind a failed event of their record. With
// strict ordering the lane is stuck now, and fail drops what it buffers.
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

// block sets whether a record has rows in retry.
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

// dropBuffered drops the events that wait. They stay in the event log and in retry,
// and the lane reads them again.
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

// farAhead makes all retries due, for an endpoint that starts again. It is longer than
// any wait.
const farAhead = 30 * 24 * time.Hour

// maxEmptyProbeReads is how many reads for a probe may find only events that must wait
// for others, and are parked. After that the probe is a retry.
const maxEmptyProbeReads = 8

// wantRead returns the part of the event log that the lane is to read next. A lane
// that has read all that the tail passed returns to the tail.
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
		// A probe needs one event, if retry has none or it is a fresh event's turn.
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

// read takes the answer to a query of wantRead.
func (l *lane) read(q outbox.TailQuery, stretch outbox.Stretch, now time.Time) {
	l.cursor.reading = false
	if !l.cursor.behind || l.cursor.readTo != q.After || !l.buffers(now) {
		return // the lane changed meanwhile; it asks again later
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

// retryQuery is a query for rows in retry, with the lane's state when it was made.
type retryQuery struct {
	outbox.RetryQuery
	clock uint64
	all   bool // also rows that are not due
}

// wantRetries returns the query for the rows in retry that the lane is to read next.
func (l *lane) wantRetries(room int, now time.Time) (retryQuery, bool) {
	if l.retries.reading || !l.retries.due(now) || !l.sends(now) || l.health.breaker.open(now) ||
		len(l.retries.waiting) > 0 || l.inFlight >= l.width() {
		return retryQuery{}, false
	}
	q := retryQuery{clock: l.retries.clock, all: l.retries.all, RetryQuery: outbox.RetryQuery{
		Endpoint: l.endpoint.ID, Now: now, Limit: l.width() - l.inFlight, MaxBytes: l.share(room) - l.bodies,
		Batches: l.batch() > 1,
	}}
	if q.Batches {
		q.Limit = min(q.Limit*l.batch(), outbox.MaxBatch)
	}
	if !l.health.breaker.closed() {
		if l.freshTurn() && (l.cursor.reading || l.ready.len() > 0) {
			return retryQuery{}, false
		}
		q.Limit = 2 // the last probe's event and another
		if q.Batches {
			q.Limit = outbox.MaxBatch + 1 // the last probe's batch and another
		}
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

// readRetries takes the answer to a query of wantRetries. It takes a row only when its
// record has not changed since the query: otherwise another row may be the oldest.
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
	}
	for unit := range units(due.Events, q.Batches) {
		l.acceptRetry(q, unit, now)
	}
	if q.all && !due.More {
		l.freeAbsent(q, found)
	}
}

// acceptRetry takes a row of retry, or a batch, which it takes whole or not at all.
func (l *lane) acceptRetry(q retryQuery, unit []outbox.Event, now time.Time) {
	ordered := l.endpoint.Ordering != outbox.OrderingNone
	for i := range unit {
		if _, again := l.retries.ids[unit[i].ID]; again {
			return
		}
		r := l.records[unit[i].Record]
		if r == nil {
			continue
		}
		if ordered && (r.pending > 0 || r.changed > q.clock) {
			return // the record's state, which comes or has just come, says when to read again
		}
		if ordered && (r.inFlight > 0 || len(r.queue) > 0) {
			// Another process made the row, such as a replayed event.
			l.retries.readBy(now.Add(time.Second))
			return
		}
	}
	if most := max(l.batch(), 1); len(unit) > most { // the webhook asks for less since
		unit = unit[:most]
		l.retries.readBy(now)
	}
	for i := range unit {
		l.block(l.record(unit[i].Record), true)
		l.retries.ids[unit[i].ID] = struct{}{}
		l.events++
		l.bodies += len(unit[i].Body)
	}
	l.retries.waiting = append(l.retries.waiting, unit)
}

// freeAbsent frees the records that a complete read of retry did not return: an
// expiry deleted their rows.
func (l *lane) freeAbsent(q retryQuery, found map[string]bool) {
	for _, r := range l.records {
		if r.blocked && !found[r.name] && r.pending == 0 && r.inFlight == 0 && r.changed <= q.clock && !l.retries.holds(r.name) {
			l.block(r, false)
			l.list(r)
			l.forgetIdle(r)
		}
	}
}

// stallAfter is how long an endpoint may answer no attempt before the lane has at most
// two in flight.
const stallAfter = time.Second

// startable reports whether start would return a job.
func (l *lane) startable(now time.Time) bool {
	if !l.waits() || !l.sends(now) || l.health.limit.holds(l.rate(), now) {
		return false
	}
	if !l.health.breaker.closed() {
		return l.inFlight == 0 && !l.health.breaker.open(now)
	}
	stalled := l.inFlight >= 2 && now.Sub(l.health.movedAt) > stallAfter
	if l.inFlight >= l.width() || stalled {
		return false
	}
	_, again := l.readyRetry()
	return again || l.worthSending()
}

// waits says that an event waits that may be attempted.
func (l *lane) waits() bool { return len(l.retries.waiting) > 0 || l.ready.len() > 0 && !l.stuck() }

// rate is the limit of attempts a second; 0 for none.
func (l *lane) rate() float64 {
	if s := l.endpoint.Settings; s != nil {
		return s.RateLimit
	}
	return 0
}

// start makes a job of the next event.
func (l *lane) start(now time.Time) (*job, bool) {
	if !l.startable(now) {
		return nil, false
	}
	permit, ok := l.health.breaker.allow(now)
	if !ok {
		return nil, false
	}
	j := jobPool.Get().(*job)
	j.lane, j.generation, j.endpoint, j.permit, j.breaker = l, l.generation, l.endpoint, permit, l.health.breaker
	if i, ok := l.pickRetry(permit.probe); ok {
		l.takeRetry(j, i)
	} else if most := l.batch(); most > 1 && !permit.probe {
		l.takeBatch(j, most)
	} else {
		j.record = l.ready.pop()
		j.record.listed = false
		j.event = j.record.queue[0]
		j.record.queue[0] = outbox.Event{}
		j.record.queue = j.record.queue[1:]
		l.cursor.offsets.set(j.event.ID, taken)
	}
	for i := range j.size() {
		e, r := j.at(i)
		l.events--
		l.bodies -= len(e.Body)
		r.inFlight++
	}
	if l.inFlight++; l.inFlight == 1 {
		l.health.movedAt = now
	}
	l.health.limit.started(l.rate(), now)
	if permit.probe {
		l.health.lastProbe = j.event.ID
	}
	return j, true
}

// pickRetry returns the waiting retry that goes next; false when it is the queue's
// turn. A probe is a retry if there is one, so that probes of a dead endpoint add few
// rows. It is not the last probe's event, which may be the only one that fails.
func (l *lane) pickRetry(probe bool) (int, bool) {
	if len(l.retries.waiting) == 0 || probe && l.freshTurn() && l.ready.len() > 0 {
		return 0, false
	}
	if l.stuck() {
		return 0, true
	}
	if probe {
		for i, unit := range l.retries.waiting {
			if unit[0].ID != l.health.lastProbe {
				return i, true
			}
		}
		return 0, l.ready.len() == 0
	}
	i, again := l.readyRetry()
	if !again {
		return 0, false
	}
	l.retries.turn = !l.retries.turn
	return i, l.retries.turn || !l.worthSending()
}

// freshTurn says that the next probe is an event that was not tried before, as every
// other probe is: the endpoint may reject just the events in retry, which would keep
// the breaker open for ever.
func (l *lane) freshTurn() bool {
	return l.health.probes%2 == 1 && l.health.emptyProbeReads < maxEmptyProbeReads && !l.stuck()
}
