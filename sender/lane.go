package sender

import (
	"math"
	"time"

	"walhook/outbox"
)

// maxLedger bounds how far a lane runs ahead of an event that takes long.
const maxLedger = 4096

// policy is what all lanes have in common.
type policy struct {
	window       int // most attempts in flight
	events       int // most events waiting
	bytes        int // most bytes of bodies waiting
	schedule     schedule
	disableAfter time.Duration
	random       func() float64
}

// lane is where delivery to one endpoint stands: plain state without I/O,
// goroutines or a clock. Time is passed in; what is to be done comes out as
// jobs (start), reads (wantRead, wantRetries), an expiry (wantExpire) and
// settlements (out). The dispatcher's goroutine owns it.
//
// Order per record rests on three rules (other orderings: lane_order.go). One
// event of a record is in flight. From the moment that one fails, its record is
// blocked and later events of it are parked. And a record is free again only when an answer of the outbox
// says so and no settlement of it is still on the way there: until then an
// event parked meanwhile could be overtaken.
type lane struct {
	*policy
	endpoint outbox.Endpoint
	// newest is the newest revision of the endpoint that was told: as long as
	// it is newer than endpoint's, nothing is sent.
	newest int64
	asked  bool // for the endpoint as it stands now
	// generation rises when the endpoint starts afresh (new URL, active
	// again). An answer given to an earlier one changes nothing but its event.
	generation int

	records map[string]*record
	blocked int            // records with rows in retry
	ready   fifo[*record]  // those whose next event may start
	retries []outbox.Event // read from retry, due, waiting
	// ofRetry holds the ids from retry that wait, are in flight or whose
	// settlement is on its way: not to be read again.
	ofRetry map[int64]struct{}
	retryAt time.Time // when retries are worth reading; zero for never
	// retryAll asks for all heads of retry, due or not.
	retryAll       bool
	readingRetries bool
	turn           bool // retries and the queue take turns

	ledger   ledger
	seen     int64 // the highest id accepted from the log or read past
	events   int   // waiting
	bodies   int   // bytes waiting
	inFlight int
	movedAt  time.Time // when an attempt ended last, or began with none in flight
	pending  int       // settlements handed out and not answered
	clock    uint64

	// behind: the lane stands still while its shard's tail moves on, and
	// reads its own range from readTo. missed is the newest event that the
	// tail has passed by.
	behind  bool
	readTo  int64
	missed  int64
	horizon int64 // reads up to here leave out what an earlier owner settled
	reading bool

	window      int
	breaker     *breaker
	lastProbe   int64
	probes      int       // that failed, in a row
	barren      int       // reads for the next one that found only what has to wait
	pausedUntil time.Time // asked for by the endpoint
	heldUntil   time.Time // after a fault of our own
	ownFaults   int       // in a row
	heldSince   time.Time // the first of them, also of an earlier owner's; zero for none
	heldReason  string    // the latest of them
	limit       rateLimit

	failingSince time.Time
	failedAt     time.Time // the latest failure that is known
	warned       int       // the stage of failing that was told
	lastReason   string

	expiring    bool // what an earlier feed left is to be expired first
	expireAsked bool
	leaving     bool // nothing starts any more

	out []outbox.Settlement // for the settler, in order

	// The dispatcher's notes.
	inRing    bool
	evicting  bool
	rests     bool // is idle, is saved as it is, and nothing has happened to it since
	usedAt    time.Time
	counted   int // of bodies, in the dispatcher's sum
	saved     outbox.LaneState
	wakeAt    time.Time
	wakeIndex int
}

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

// empty lets go of what waits, and of its bodies.
func (r *record) empty() {
	clear(r.queue)
	r.queue = r.one[:0]
}

func newLane(p *policy, e outbox.Endpoint) *lane {
	return &lane{
		policy:   p,
		endpoint: e,
		records:  map[string]*record{},
		ofRetry:  map[int64]struct{}{},
		window:   1,
		breaker:  newBreaker(p.random),
	}
}

// sends says whether attempts may start: the gates that are neither window
// nor breaker.
func (l *lane) sends(now time.Time) bool {
	return l.endpoint.State == outbox.EndpointActive && !l.expiring && !l.leaving &&
		!l.outdated() && !now.Before(l.pausedUntil) && !now.Before(l.heldUntil)
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
		!now.Before(l.pausedUntil) && !l.breaker.open(now) && !l.stuck()
}

// laneFloor is what a lane may hold in any case: others' large events must not
// keep small ones out.
const laneFloor = 16 << 10

// full says that no more may wait here. room is what is left of the bytes for
// all lanes together: a lane may have as much of them as it leaves to others,
// so that those with much waiting make way first. One event is always let in.
func (l *lane) full(room int) bool {
	return l.events >= l.policy.events || l.ledger.len() >= maxLedger || l.events > 0 && l.bodies >= l.share(room)
}

func (l *lane) share(room int) int { return min(l.policy.bytes, max(room, laneFloor)) }

// offer hands over the tail's next event of this endpoint.
func (l *lane) offer(e outbox.Event, room int, now time.Time) {
	if e.ID <= l.seen && !l.behind {
		return
	}
	if !l.behind && (!l.buffers(now) || !l.breaker.closed() || l.full(room) || e.ID < l.endpoint.SendFrom()) {
		l.behind, l.readTo = true, e.ID-1
	}
	if e.ID < l.endpoint.SendFrom() || l.endpoint.State == outbox.EndpointCleared {
		l.expiring = true
	}
	if l.behind {
		l.missed = max(l.missed, e.ID)
		return
	}
	l.accept(e)
}

func (l *lane) accept(e outbox.Event) {
	l.seen = max(l.seen, e.ID)
	if !l.ledger.add(e.ID, waiting) {
		return
	}
	r := l.record(e.Record)
	if r.blocked && l.parks() {
		l.park(r, e)
		return
	}
	l.enqueue(r, e)
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

// cursor is the highest id such that every event of the log up to it is
// settled; math.MaxInt64 when the lane follows the tail and nothing is open.
func (l *lane) cursor() int64 {
	upto := int64(math.MaxInt64)
	if l.behind {
		upto = l.readTo
	}
	if first := l.ledger.first(upto); first > 0 {
		return min(upto, first-1)
	}
	return upto
}

// shed lets go of what is waiting: it stays in the log and in retry, and is
// read again.
func (l *lane) shed(now time.Time) {
	for r := range l.ready.all() {
		r.listed = false
	}
	l.ready = fifo[*record]{}
	for _, r := range l.records {
		r.empty()
		l.forgetIdle(r)
	}
	if len(l.retries) > 0 {
		for _, e := range l.retries {
			delete(l.ofRetry, e.ID)
		}
		l.retries = nil
		l.retryAt = earliest(l.retryAt, now)
	}
	l.events, l.bodies = 0, 0
	lowest, highest := l.ledger.shed()
	if lowest == 0 {
		return
	}
	if l.behind {
		lowest = min(lowest, l.readTo+1)
	}
	l.behind, l.readTo = true, lowest-1
	l.missed = max(l.missed, highest)
}

// drained says that nothing of the lane is on its way anywhere.
func (l *lane) drained() bool {
	return l.inFlight == 0 && l.pending == 0 && len(l.out) == 0
}

// earliest is the earlier of two instants, of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
