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

// lane is where delivery to one endpoint stands: plain state without I/O or
// goroutines. Time is passed in; what is to be done comes out as jobs (start),
// reads (wantRead, wantRetries), an expiry (wantExpire) and settlements (out).
// The dispatcher's goroutine owns it. What it remembers stands in four structs,
// each with its own methods as owner: where it is in the log (cursor), what it
// knows of its rows in retry (retries), how its endpoint does (health), and what
// the dispatcher notes about it (scheduling).
//
// Order per record rests on three rules (other orderings: lane_queue.go). One
// event of a record is in flight. From the moment that one fails, its record is
// blocked and later events of it are parked. And a record is free again only when
// an answer of the outbox says so and no settlement of it is still on the way
// there: until then an event parked meanwhile could be overtaken.
type lane struct {
	*policy
	endpoint outbox.Endpoint
	// newest is the newest revision of the endpoint that is known of: as long as
	// it is newer than endpoint's, nothing is sent.
	newest int64
	asked  bool // for the endpoint as it stands now
	// generation rises when the endpoint starts afresh (new URL, active
	// again). An answer given to an earlier one changes nothing but its event.
	generation int

	records  map[string]*record
	ready    fifo[*record] // those whose next event may start
	events   int           // waiting
	bodies   int           // bytes waiting
	inFlight int
	pending  int                 // settlements handed out and not answered
	out      []outbox.Settlement // for the settler, in order

	expiring    bool // what an earlier feed left is to be expired first
	expireAsked bool
	leaving     bool // nothing starts any more

	cursor  cursor
	retries retries
	health  health
	sched   scheduling
}

// cursor is where the lane stands in the log.
type cursor struct {
	offsets offsetTracker
	seen    int64 // the highest id accepted from the log or read past

	// behind: the lane lags. It stands at readTo while its shard's tail moves on,
	// and reads its own range from there. missed is the newest event that the
	// tail has passed by.
	behind  bool
	readTo  int64
	missed  int64
	horizon int64 // reads up to here leave out what an earlier owner settled
	reading bool
}

// retries is what the lane knows of its endpoint's rows in retry.
type retries struct {
	waiting []outbox.Event // read, due
	// ids are those that wait, are in flight or whose settlement is on its way:
	// not to be read again.
	ids     map[int64]struct{}
	blocked int       // records with rows
	dueAt   time.Time // when rows are worth reading; zero for never
	all     bool      // all heads are to be read, due or not
	reading bool
	turn    bool   // retries and the queue take turns
	clock   uint64 // rises with whatever makes an answer to a read stale
}

// health is how the endpoint does, and what holds attempts back for it.
type health struct {
	breaker         *breaker
	window          int       // attempts that may be in flight
	movedAt         time.Time // when an attempt ended last, or began with none in flight
	limit           rateLimit
	lastProbe       int64
	probes          int // that failed, in a row
	emptyProbeReads int // reads for the next one that found only what has to wait

	pausedUntil time.Time // asked for by the endpoint
	heldUntil   time.Time // after a fault of our own
	ownFaults   int       // in a row
	heldSince   time.Time // the first of them, also of an earlier owner's; zero for none
	heldReason  string    // the latest of them

	failingSince time.Time
	failedAt     time.Time // the latest failure that is known
	warned       int       // the stage of failing that was logged
	lastReason   string
}

// scheduling is the dispatcher's note about a lane. The lane never looks at it.
type scheduling struct {
	inRing    bool
	evicting  bool
	rests     bool // is idle, is saved as it is, and nothing has happened to it since
	usedAt    time.Time
	counted   int // of bodies, in the dispatcher's sum
	saved     outbox.LaneState
	wakeAt    time.Time
	wakeIndex int
}

func newLane(p *policy, e outbox.Endpoint) *lane {
	return &lane{
		policy:   p,
		endpoint: e,
		records:  map[string]*record{},
		retries:  retries{ids: map[int64]struct{}{}},
		health:   health{window: 1, breaker: newBreaker(p.random)},
	}
}

// restore continues a lane that another owner, or an earlier run, left. Above
// horizon nobody has settled anything. Probes of open breakers are spread over
// a time at least as long as spread.
func (l *lane) restore(s outbox.LaneState, horizon int64, spread time.Duration, now time.Time) {
	l.cursor.behind, l.cursor.readTo, l.cursor.horizon = s.Behind, s.Cursor, horizon
	if s.Behind {
		l.cursor.missed = max(horizon, s.Cursor)
	}
	if s.Revision < l.endpoint.Revision {
		return // a newer endpoint starts afresh
	}
	if s.Open {
		l.health.breaker = restoreBreaker(s.Opens, s.OpenUntil, spread, now, l.random)
	}
	l.health.pausedUntil, l.health.failingSince, l.health.lastReason = s.PausedUntil, s.FailingSince, s.LastReason
	l.health.failedAt, l.health.warned = now, l.health.stage(now, l.disableAfter)
	l.health.heldSince, l.health.heldReason = s.HeldSince, s.HeldReason
}

// snapshot is what the next owner needs. tail is the shard's tail as it is, or
// will be, stored: a lane whose cursor lies before it is behind for whoever
// comes next, even when it is at the tail in memory.
func (l *lane) snapshot(tail int64, now time.Time) outbox.LaneState {
	s := outbox.LaneState{Endpoint: l.endpoint.ID, Revision: l.endpoint.Revision, FailingSince: l.health.failingSince, Stage: l.health.warned, LastReason: l.health.lastReason,
		HeldSince: l.health.heldSince, HeldReason: l.health.heldReason}
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

// adopt takes the endpoint as it stands now. A revision that is not newer says
// nothing, unless what is stored of it could not be read, or cannot any more. What
// was delivered to, or answered by, an old URL does not bind the new one.
func (l *lane) adopt(e outbox.Endpoint, tail int64, now time.Time) {
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
		l.dropBuffered(now) // and is read again, to wait in another way
		l.retries.all = true
	}
	if !l.buffers(now) {
		l.dropBuffered(now)
	}
}

// owesExpiry says that an earlier owner may have left something to expire.
func (l *lane) owesExpiry() bool {
	from := l.endpoint.SendFrom()
	return l.endpoint.State == outbox.EndpointCleared || from > 0 && (l.cursor.behind && l.cursor.readTo < from-1 || l.retries.blocked > 0)
}

// expireFrom asks for an expiry of what the earlier feed left, or is past
// retention, in the log as well as in retry.
func (l *lane) expireFrom(tail int64) {
	l.expiring = true
	if !l.cursor.behind {
		l.cursor.lag(tail, tail)
	}
}

// wantExpire says from which cursor on to expire. It waits until nothing of
// the lane is on its way, so that no event is both delivered and expired.
func (l *lane) wantExpire() (int64, bool) {
	if !l.expiring || l.expireAsked || l.leaving || l.cursor.reading || l.retries.reading || !l.drained() {
		return 0, false
	}
	l.expireAsked = true
	return l.cursor.position(), true
}

// expired takes the outbox's word that everything before from is dead.
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

// sends says whether attempts may start: the gates that are neither window
// nor breaker.
func (l *lane) sends(now time.Time) bool {
	return l.endpoint.State == outbox.EndpointActive && !l.expiring && !l.leaving &&
		!l.outdated() && !l.health.gated(now)
}

// outdated says that a newer revision of the endpoint is known of.
func (l *lane) outdated() bool { return l.newest > l.endpoint.Revision }

// wantEndpoint says that the lane wants to read its endpoint.
func (l *lane) wantEndpoint() bool {
	if !l.outdated() || l.asked {
		return false
	}
	l.asked = true
	return true
}

// wantReadable says that the lane wants to read an endpoint again that could not
// be read, and may be well in the same revision.
func (l *lane) wantReadable() bool {
	if !l.endpoint.Unreadable || l.asked {
		return false
	}
	l.asked = true
	return true
}

// buffers says whether events of the tail are kept. After a fault of our own
// they are: it will be over soon, for all lanes at once.
func (l *lane) buffers(now time.Time) bool {
	return l.endpoint.State == outbox.EndpointActive && !l.expiring && !l.leaving &&
		!now.Before(l.health.pausedUntil) && !l.health.breaker.open(now) && !l.stuck()
}

// idle says that the lane could be made again without anybody noticing.
func (l *lane) idle(now time.Time) bool {
	return l.quiet() && l.cursor.idle() && l.retries.idle() && l.health.idle(now)
}

// quiet says that nothing waits here or is on its way anywhere.
func (l *lane) quiet() bool { return !l.asked && !l.expiring && len(l.records) == 0 && l.drained() }

// drained says that nothing of the lane is on its way anywhere.
func (l *lane) drained() bool {
	return l.inFlight == 0 && l.pending == 0 && len(l.out) == 0
}

// status is how the lane is called in metrics.
func (l *lane) status(now time.Time) outbox.LaneStatus {
	return outbox.LaneFacts{
		Endpoint: l.endpoint.State, Current: true, Behind: l.cursor.behind,
		Open: !l.health.breaker.closed(), Waits: l.health.breaker.open(now), Paused: now.Before(l.health.pausedUntil),
	}.Status()
}

// held is why nothing can be sent until somebody on this side acts, as
// walhook_lanes_held names it; "" for no such reason.
func (l *lane) held() string {
	switch {
	case l.endpoint.Unreadable:
		return heldUnusable
	case l.endpoint.State != outbox.EndpointActive:
		return ""
	}
	return l.health.heldReason
}

// wake is when the lane is worth looking at again although nothing happens to
// it; zero for never.
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

// position is the highest id such that every event of the log up to it is
// settled; math.MaxInt64 when the lane is at the tail and nothing is open. It
// evicts what is settled.
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

// lag stays after an id, while the tail moves on to missed.
func (c *cursor) lag(after, missed int64) {
	c.behind, c.readTo = true, after
	c.missed = max(c.missed, missed)
}

// rejoin is at the tail again, where all that the tail passed by is read.
func (c *cursor) rejoin() bool {
	if c.readTo < c.missed {
		return false
	}
	c.behind = false
	c.seen = max(c.seen, c.readTo)
	return true
}

// idle says that there is nothing of the log to remember.
func (c *cursor) idle() bool { return !c.behind && !c.reading && c.offsets.len() == 0 }

// due says whether rows are worth reading now.
func (r *retries) due(now time.Time) bool {
	return r.all || !r.dueAt.IsZero() && !now.Before(r.dueAt)
}

// readBy has rows read at an instant, unless they are earlier.
func (r *retries) readBy(at time.Time) { r.dueAt = earliest(r.dueAt, at) }

// holds says that a row of a record waits here.
func (r *retries) holds(record string) bool {
	return slices.ContainsFunc(r.waiting, func(e outbox.Event) bool { return e.Record == record })
}

// drop evicts what waits: it is read again.
func (r *retries) drop(now time.Time) {
	if len(r.waiting) == 0 {
		return
	}
	for _, e := range r.waiting {
		delete(r.ids, e.ID)
	}
	r.waiting = nil
	r.readBy(now)
}

// idle says that there is nothing in retry, and nothing to look for there.
func (r *retries) idle() bool {
	return r.blocked == 0 && len(r.ids) == 0 && !r.reading && !r.all && r.dueAt.IsZero()
}

// toCome is an instant that is still to come; zero when it is over.
func toCome(at, now time.Time) time.Time {
	if at.After(now) {
		return at
	}
	return time.Time{}
}

// earliest is the earlier of two instants, of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// offsetTracker remembers which events of the log a lane has accepted and how they
// stand, in order of id. It gives the cursor: everything before the
// first that is not settled is.
type offsetTracker struct {
	entries []entry
	head    int // entries before it are gone
}

type entry struct {
	id    int64
	state entryState
}

type entryState byte

const (
	waiting entryState = iota // in the lane's queue
	taken                     // in flight, or its settlement is not durable yet
	settled
)

func (t *offsetTracker) len() int { return len(t.entries) - t.head }

func (t *offsetTracker) find(id int64) (int, bool) {
	live := t.entries[t.head:]
	if n := len(live); n == 0 || live[n-1].id < id { // the common case
		return t.head + n, false
	}
	i, found := slices.BinarySearchFunc(live, id, func(e entry, id int64) int {
		switch {
		case e.id < id:
			return -1
		case e.id > id:
			return 1
		}
		return 0
	})
	return t.head + i, found
}

// add accepts an event; false when the tracker holds it already.
func (t *offsetTracker) add(id int64, state entryState) bool {
	i, found := t.find(id)
	if !found {
		t.entries = slices.Insert(t.entries, i, entry{id: id, state: state})
	}
	return !found
}

func (t *offsetTracker) set(id int64, state entryState) {
	if i, found := t.find(id); found {
		t.entries[i].state = state
	}
}

// dropWaiting forgets what is waiting and answers the lowest and highest id of that;
// zeros when nothing was waiting.
func (t *offsetTracker) dropWaiting() (lowest, highest int64) {
	kept := t.entries[:t.head]
	for _, e := range t.entries[t.head:] {
		if e.state != waiting {
			kept = append(kept, e)
			continue
		}
		if lowest == 0 {
			lowest = e.id
		}
		highest = e.id
	}
	t.entries = kept
	return lowest, highest
}

// first is the lowest id that is not settled, after letting go of what is
// settled before it and not above upto; zero when there is none.
func (t *offsetTracker) first(upto int64) int64 {
	for t.head < len(t.entries) && t.entries[t.head].state == settled && t.entries[t.head].id <= upto {
		t.head++
	}
	if t.head == len(t.entries) {
		t.entries, t.head = t.entries[:0], 0
		return 0
	}
	if t.head > 1024 && t.head > len(t.entries)/2 {
		t.entries = append(t.entries[:0], t.entries[t.head:]...)
		t.head = 0
	}
	return t.entries[t.head].id
}
