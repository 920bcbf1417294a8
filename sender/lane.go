package sender

import (
	"math"
	"slices"
	"time"

	"walhook/outbox"
)

// policy is what all lanes have in common.
type policy struct {
	window       int // most attempts in flight
	events       int // most events waiting
	bytes        int // most bytes of bodies waiting
	schedule     schedule
	disableAfter time.Duration
	random       func() float64
}

// lane is the state of delivery to one endpoint, without I/O or goroutines. Its
// methods get the time as an argument, and return what is to be done: jobs (start),
// reads (wantRead, wantRetries), an expiry (wantExpire) and settlements (out). The
// dispatcher's goroutine owns it. Its state is in four structs with methods of their
// own: its position in the event log (cursor), its rows in retry (retries), the
// condition of its endpoint (health), and the dispatcher's notes (scheduling).
//
// Three rules keep the order of a record's events (other orderings: lane_queue.go).
// At most one request with events of a record is in flight. When it fails, the record is
// blocked, and the lane parks later events of it. The record is free again only when an
// answer of the outbox says so and no settlement of the record is on its way there:
// otherwise a later event could overtake a parked one.
type lane struct {
	*policy
	endpoint outbox.Endpoint
	// newest is the newest known revision of the endpoint: the lane sends nothing
	// while it is newer than endpoint's.
	newest int64
	// retried is the endpoint's RetryAsked that the lane has acted on.
	retried int64
	asked   bool // a request for the endpoint's current state is under way
	// generation rises when the endpoint starts again (new URL, active again). A
	// result of an earlier generation affects its event alone.
	generation int

	records  map[string]*record
	ready    fifo[*record] // those whose next event may start
	events   int           // waiting
	bodies   int           // bytes waiting
	inFlight int
	pending  int                 // settlements sent and not committed
	out      []outbox.Settlement // for the settler, in order

	expiring    bool // events of an earlier feed are to expire first
	expireAsked bool
	leaving     bool // starts nothing any more

	cursor  cursor
	retries retries
	health  health
	sched   scheduling
}

// cursor is the lane's position in the event log.
type cursor struct {
	offsets offsetTracker
	seen    int64 // the highest id accepted from the log or read past

	// behind: the lane lags. It stays at readTo while its shard's tail advances, and
	// reads its own range from there. missed is its newest event that the tail has
	// passed.
	behind  bool
	readTo  int64
	missed  int64
	horizon int64 // reads up to this id leave out events that an earlier owner settled
	reading bool
}

// retries is what the lane knows of its endpoint's rows in retry.
type retries struct {
	waiting [][]outbox.Event // read, due: events by themselves, and batches
	// ids are events that wait, are in flight or whose settlement is on its way: the
	// lane does not read them again.
	ids     map[int64]struct{}
	blocked int       // records with rows
	dueAt   time.Time // when the next rows are due; zero for never
	all     bool      // read the first row of each record, due or not
	reading bool
	turn    bool   // retries and the queue take turns
	clock   uint64 // rises with each change that makes the answer to a read stale
}

// health is the condition of the endpoint, and what delays its attempts.
type health struct {
	breaker         *breaker
	window          int       // attempts that may be in flight
	movedAt         time.Time // when the last attempt ended, or began with none in flight
	limit           rateLimit
	lastProbe       int64
	probes          int // that failed, in a row
	emptyProbeReads int // reads for the next one that found only events that must wait

	pausedUntil time.Time // asked for by the endpoint
	heldUntil   time.Time // after a local error
	ownFaults   int       // local errors in a row
	heldSince   time.Time // the first of them, also of an earlier owner's; zero for none
	heldReason  string    // of the latest

	failingSince time.Time
	failedAt     time.Time // the latest known failure
	warned       int       // the warning stage that was logged
	lastReason   string
}

// scheduling is the dispatcher's notes about a lane. The lane never reads them.
type scheduling struct {
	inRing    bool
	evicting  bool
	rests     bool // is idle and saved, and has not changed since
	usedAt    time.Time
	counted   int // bytes of bodies, as in the dispatcher's sum
	saved     outbox.LaneState
	wakeAt    time.Time
	wakeIndex int
}

func newLane(p *policy, e outbox.Endpoint) *lane {
	return &lane{
		policy:   p,
		endpoint: e,
		retried:  e.RetryAsked,
		records:  map[string]*record{},
		retries:  retries{ids: map[int64]struct{}{}},
		health:   health{window: 1, breaker: newBreaker(p.random)},
	}
}

// restore continues a lane as an earlier owner saved it. No event above horizon is
// settled. Probes of open breakers are spread over a time at least as long as spread.
func (l *lane) restore(s outbox.LaneState, horizon int64, spread time.Duration, now time.Time) {
	l.cursor.behind, l.cursor.readTo, l.cursor.horizon = s.Behind, s.Cursor, horizon
	if s.Behind {
		l.cursor.missed = max(horizon, s.Cursor)
	}
	if s.Revision < l.endpoint.Revision {
		return // the endpoint changed since: it starts again
	}
	if s.Open {
		l.health.breaker = restoreBreaker(s.Opens, s.OpenUntil, spread, now, l.random)
	}
	l.health.pausedUntil, l.health.failingSince, l.health.lastReason = s.PausedUntil, s.FailingSince, s.LastReason
	l.health.failedAt, l.health.warned = now, l.health.stage(now, l.disableAfter)
	l.health.heldSince, l.health.heldReason = s.HeldSince, s.HeldReason
	l.retried = min(l.retried, s.RetrySeen)
	l.retryNow(l.endpoint.RetryAsked, now)
}

// retryNow ends what delays the lane's attempts, where that was asked for since the last
// time: a pause, and the open time of the breaker, which then probes. It reads the rows in
// retry, which the outbox has made due.
func (l *lane) retryNow(asked int64, now time.Time) bool {
	if asked <= l.retried {
		return false
	}
	l.retried = asked
	l.health.retryNow(now)
	l.retries.readBy(now)
	return true
}

// snapshot is the state that the next owner needs. tail is the shard's tail as it is,
// or is being, stored: a lane whose cursor lies before it is behind for the next
// owner, even when it is at the tail in memory.
func (l *lane) snapshot(tail int64, now time.Time) outbox.LaneState {
	s := outbox.LaneState{Endpoint: l.endpoint.ID, Revision: l.endpoint.Revision, FailingSince: l.health.failingSince, Stage: l.health.warned, LastReason: l.health.lastReason,
		HeldSince: l.health.heldSince, HeldReason: l.health.heldReason, RetrySeen: l.retried}
	if cursor := l.cursor.position(); l.cursor.behind || cursor < tail {
		s.Behind, s.Cursor = true, cursor
	}
	if !l.health.breaker.closed() {
		s.Open, s.OpenUntil, s.Opens = true, l.health.breaker.until, l.health.breaker.opens
	}
	if now.Before(l.health.pausedUntil) {
		s.PausedUntil = l.health.pausedUntil
	}
	return s
}

// adopt takes the endpoint's current state. It ignores a revision that is not newer,
// unless the stored endpoint became readable or unreadable. The results of an old URL
// do not count against a new one.
func (l *lane) adopt(e outbox.Endpoint, tail int64, now time.Time) {
	l.retryNow(e.RetryAsked, now)
	if e.Revision < l.endpoint.Revision && !l.endpoint.Unreadable ||
		e.Revision == l.endpoint.Revision && e.Unreadable == l.endpoint.Unreadable {
		return
	}
	old, rate := l.endpoint, l.rate()
	l.endpoint = e
	if l.rate() != rate {
		l.health.limit = rateLimit{}
	}
	if e.SendFrom() > old.SendFrom() || e.State == outbox.EndpointCleared {
		l.expireFrom(tail)
	}
	if e.URL != old.URL || e.FeedFrom > old.FeedFrom || old.State != outbox.EndpointActive && e.State == outbox.EndpointActive {
		l.generation++
		l.health.afresh(l.random)
		l.retries.all = true
	}
	if e.Ordering != old.Ordering {
		l.dropBuffered(now) // and reads it again, to queue it by the new ordering
		l.retries.all = true
	}
	if e.Batch() != old.Batch() {
		l.dropBuffered(now) // and reads it again: other rows of retry are sent together
	}
	if !l.buffers(now) {
		l.dropBuffered(now)
	}
}

// owesExpiry says that an earlier owner may have left events to expire.
func (l *lane) owesExpiry() bool {
	from := l.endpoint.SendFrom()
	return l.endpoint.State == outbox.EndpointCleared || from > 0 && (l.cursor.behind && l.cursor.readTo < from-1 || l.retries.blocked > 0)
}

// expireFrom begins to expire the events of an earlier feed or past retention, in the
// event log and in retry.
func (l *lane) expireFrom(tail int64) {
	l.expiring = true
	if !l.cursor.behind {
		l.cursor.lag(tail, tail)
	}
}

// wantExpire returns the cursor from which to expire. It is false until the lane has
// nothing in flight or unsettled, so that no event is both delivered and expired.
func (l *lane) wantExpire() (int64, bool) {
	if !l.expiring || l.expireAsked || l.leaving || l.cursor.reading || l.retries.reading || !l.drained() {
		return 0, false
	}
	l.expireAsked = true
	return l.cursor.position(), true
}

// expired notes that the outbox has expired the events before from.
func (l *lane) expired(from int64) {
	l.expireAsked = false
	if from < l.endpoint.SendFrom() {
		return // the feed ended again meanwhile
	}
	l.expiring, l.retries.all = false, true
	if l.cursor.behind {
		l.cursor.readTo = max(l.cursor.readTo, from-1)
		l.cursor.rejoin()
	}
}

// sends reports whether attempts may start, as far as neither the window nor the
// breaker decides.
func (l *lane) sends(now time.Time) bool {
	return l.endpoint.State == outbox.EndpointActive && !l.expiring && !l.leaving &&
		!l.outdated() && !l.health.gated(now)
}

// outdated says that the endpoint has a newer revision than the lane.
func (l *lane) outdated() bool { return l.newest > l.endpoint.Revision }

// wantEndpoint says that the lane needs to read its endpoint, once.
func (l *lane) wantEndpoint() bool {
	if !l.outdated() || l.asked {
		return false
	}
	l.asked = true
	return true
}

// wantReadable says that the lane needs to read an unreadable endpoint again, which
// may have become readable in the same revision.
func (l *lane) wantReadable() bool {
	if !l.endpoint.Unreadable || l.asked {
		return false
	}
	l.asked = true
	return true
}

// buffers reports whether the lane keeps events of the tail. After a local error it
// does: that ends soon, and for all lanes at once.
func (l *lane) buffers(now time.Time) bool {
	return l.endpoint.State == outbox.EndpointActive && !l.expiring && !l.leaving &&
		!now.Before(l.health.pausedUntil) && !l.health.breaker.open(now) && !l.stuck()
}

// idle says that the lane holds nothing that a new lane would not know.
func (l *lane) idle(now time.Time) bool {
	return l.quiet() && l.cursor.idle() && l.retries.idle() && l.health.idle(now)
}

// quiet says that the lane has no event and no request under way.
func (l *lane) quiet() bool { return !l.asked && !l.expiring && len(l.records) == 0 && l.drained() }

// drained says that no event of the lane is in flight or unsettled.
func (l *lane) drained() bool {
	return l.inFlight == 0 && l.pending == 0 && len(l.out) == 0
}

// status is the lane's state as metrics name it.
func (l *lane) status(now time.Time) outbox.LaneStatus {
	return outbox.LaneFacts{
		Endpoint: l.endpoint.State, Current: true, Behind: l.cursor.behind,
		Open: !l.health.breaker.closed(), Waits: l.health.breaker.open(now), Paused: now.Before(l.health.pausedUntil),
	}.Status()
}

// held is the reason why the lane sends nothing until an operator acts, as
// walhook_lanes_held names it; "" for none.
func (l *lane) held() string {
	switch {
	case l.endpoint.Unreadable:
		return heldUnusable
	case l.endpoint.State != outbox.EndpointActive:
		return ""
	}
	return l.health.heldReason
}

// wake is when to look at the lane again even if nothing changes it; zero for
// never.
func (l *lane) wake(now time.Time) time.Time {
	if l.endpoint.State != outbox.EndpointActive || l.leaving {
		return time.Time{}
	}
	if gate := l.health.gate(now); gate.After(now) {
		return gate
	}
	if l.waits() && l.health.limit.holds(l.rate(), now) {
		return earliest(l.health.limit.next, toCome(l.retries.dueAt, now))
	}
	return toCome(l.retries.dueAt, now)
}

// position is the highest id up to which every event of the lane is settled;
// math.MaxInt64 when the lane is at the tail and has no unsettled event. It drops
// settled entries.
func (c *cursor) position() int64 {
	upto := int64(math.MaxInt64)
	if c.behind {
		upto = c.readTo
	}
	if first := c.offsets.first(upto); first > 0 {
		return min(upto, first-1)
	}
	return upto
}

// lag makes the cursor stay at an id, while the tail advances to missed.
func (c *cursor) lag(after, missed int64) {
	c.behind, c.readTo = true, after
	c.missed = max(c.missed, missed)
}

// rejoin returns to the tail, if the lane has read all that the tail passed.
func (c *cursor) rejoin() bool {
	if c.readTo < c.missed {
		return false
	}
	c.behind = false
	c.seen = max(c.seen, c.readTo)
	return true
}

// idle says that the lane is at the tail with no unsettled event.
func (c *cursor) idle() bool { return !c.behind && !c.reading && c.offsets.len() == 0 }

// due reports whether rows are to be read now.
func (r *retries) due(now time.Time) bool {
	return r.all || !r.dueAt.IsZero() && !now.Before(r.dueAt)
}

// readBy makes rows due at an instant, unless they are due earlier.
func (r *retries) readBy(at time.Time) { r.dueAt = earliest(r.dueAt, at) }

// holds says that a row of a record waits in the lane.
func (r *retries) holds(record string) bool {
	return slices.ContainsFunc(r.waiting, func(unit []outbox.Event) bool {
		return slices.ContainsFunc(unit, func(e outbox.Event) bool { return e.Record == record })
	})
}

// drop drops the rows that wait; the lane reads them again.
func (r *retries) drop(now time.Time) {
	if len(r.waiting) == 0 {
		return
	}
	for _, unit := range r.waiting {
		for i := range unit {
			delete(r.ids, unit[i].ID)
		}
	}
	r.waiting = nil
	r.readBy(now)
}

// idle says that the endpoint has no rows in retry, and none to look for.
func (r *retries) idle() bool {
	return r.blocked == 0 && len(r.ids) == 0 && !r.reading && !r.all && r.dueAt.IsZero()
}

// toCome is an instant if it is in the future, otherwise zero.
func toCome(at, now time.Time) time.Time {
	if at.After(now) {
		return at
	}
	return time.Time{}
}

// earliest is the earlier of two instants, where zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
