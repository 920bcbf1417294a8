package memory

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"walhook/outbox"
)

// Log is an event log in memory. It is safe for concurrent use.
type Log struct {
	appended chan struct{}

	mu        sync.Mutex // guards all below, and the sessions
	next      int64      // the id of the next event
	events    []outbox.Event
	of        map[int64][]outbox.Event // by endpoint, in order of id
	endpoints map[int64]*endpoint
	attempts  map[int64][]outbox.Attempt // by event
	retries   map[int64]*Retry           // by event
	dead      map[int64]DeadLetter       // by event
	lanes     map[int64]outbox.LaneState // by endpoint
	shards    [outbox.Shards]shard
	sessions  []*Session // those that have not been ended yet
}

type endpoint struct {
	outbox.Endpoint
	changedAt time.Time
	confirmed int64 // the newest revision that a sender confirmed
	awaited   bool  // Await asks for a confirmation
}

type shard struct {
	holder *Session // nil for none
	tail   int64
}

// Retry is a failed event, or one that waits behind a failed one of its record.
type Retry struct {
	Event    outbox.Event
	Attempts int
	Due      time.Time // zero while it waits
	Batch    int64     // its rows are sent again together; 0 for none
}

// DeadLetter is an event that walhook does not attempt any more.
type DeadLetter struct {
	Event    outbox.Event
	Attempts int
	Reason   string
}

// New returns a log with endpoints and no events.
func New(endpoints ...outbox.Endpoint) *Log {
	l := &Log{
		appended: make(chan struct{}, 1), next: 1,
		of: map[int64][]outbox.Event{}, endpoints: map[int64]*endpoint{},
		attempts: map[int64][]outbox.Attempt{}, retries: map[int64]*Retry{}, dead: map[int64]DeadLetter{},
		lanes: map[int64]outbox.LaneState{},
	}
	for _, e := range endpoints {
		l.Set(e)
	}
	return l
}

// Appended is signalled after each append.
func (l *Log) Appended() <-chan struct{} { return l.appended }

// NotifiedUntil is the zero time: a log in memory has no other processes.
func (l *Log) NotifiedUntil() time.Time { return time.Time{} }

// Changed is nil: senders poll for changes of endpoints.
func (l *Log) Changed() <-chan struct{} { return nil }

// Append puts events into the log atomically and returns them as they are stored. An
// event without an id gets the next one, one without a revision that of its endpoint,
// and one without times the present time.
func (l *Log) Append(events ...outbox.Event) []outbox.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	stored := make([]outbox.Event, len(events))
	for i, e := range events {
		if e.ID == 0 {
			e.ID = l.next
		}
		if e.ID < l.next {
			panic(fmt.Sprintf("append event %d: the log is at %d", e.ID, l.next))
		}
		l.next = e.ID + 1
		if to := l.endpoints[e.Endpoint]; e.Revision == 0 && to != nil {
			e.Revision = to.Revision
		}
		now := time.Now()
		if e.CommittedAt.IsZero() {
			e.CommittedAt = now
		}
		if e.AppendedAt.IsZero() {
			e.AppendedAt = now
		}
		l.of[e.Endpoint] = append(l.of[e.Endpoint], e)
		stored[i] = e
	}
	l.events = append(l.events, stored...)
	select {
	case l.appended <- struct{}{}:
	default:
	}
	return slices.Clone(stored)
}

// Next returns the id that the next event gets.
func (l *Log) Next() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Set adds or replaces an endpoint.
func (l *Log) Set(e outbox.Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setLocked(e)
}

// Change changes an endpoint under its next revision, unless edit sets another.
func (l *Log) Change(id int64, edit func(*outbox.Endpoint)) outbox.Endpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.endpoints[id].Endpoint
	e.Revision++
	edit(&e)
	l.setLocked(e)
	return e
}

func (l *Log) setLocked(e outbox.Endpoint) {
	if l.endpoints[e.ID] == nil {
		l.endpoints[e.ID] = &endpoint{}
	}
	stored := l.endpoints[e.ID]
	unordered := e.Ordering == outbox.OrderingNone && stored.Ordering != outbox.OrderingNone
	stored.Endpoint, stored.changedAt = e, time.Now()
	if unordered { // no event waits behind another any more
		for _, r := range l.retries {
			if r.Event.Endpoint == e.ID && r.Due.IsZero() {
				r.Due = time.Now()
			}
		}
	}
}

// Await changes an endpoint and asks its sender to confirm the revision.
func (l *Log) Await(id int64) outbox.Endpoint {
	e := l.Change(id, func(*outbox.Endpoint) {})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endpoints[id].awaited = true
	return e
}

// Confirmed returns the newest revision of an endpoint that a sender confirmed.
func (l *Log) Confirmed(id int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endpoints[id].confirmed
}

// Lapse ends the leases of the sessions with a name, or all for "", as time does.
func (l *Log) Lapse(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if name == "" || s.name == name {
			s.until = time.Now()
		}
	}
}

// Trim drops the events before an id and returns true, if none of them is undelivered.
// Otherwise it asks the senders that hold their shards to make dead letters of them,
// and does so itself for shards that no sender holds.
func (l *Log) Trim(before int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.undeliveredLocked(before)
	for _, e := range left {
		if e.ExpireBefore < before {
			e.ExpireBefore = before
			e.Revision++
			e.changedAt = time.Now()
		}
	}
	l.expireSessionsLocked()
	for _, e := range left {
		if s := &l.shards[outbox.ShardOf(e.ID)]; s.holder == nil {
			l.expireLocked(e.Endpoint, l.cursorLocked(e.ID))
			if lane, ok := l.lanes[e.ID]; ok && lane.Behind && lane.Cursor < before-1 {
				lane.Cursor = before - 1
				l.lanes[e.ID] = lane
			}
		}
	}
	for i := range l.shards {
		// No lane of the shard has anything undelivered before the id any more.
		if s := &l.shards[i]; s.holder == nil && slices.ContainsFunc(left, func(e *endpoint) bool { return outbox.ShardOf(e.ID) == i }) {
			s.tail = max(s.tail, before-1)
		}
	}
	if len(l.undeliveredLocked(before)) > 0 {
		return false
	}
	old := func(e outbox.Event) bool { return e.ID < before }
	l.events = slices.DeleteFunc(slices.Clone(l.events), old)
	for id, events := range l.of {
		l.of[id] = slices.DeleteFunc(slices.Clone(events), old)
	}
	l.next = max(l.next, before)
	return true
}

// undeliveredLocked returns the endpoints that may have an undelivered event before an
// id: beyond a stored tail or cursor, or in retry.
func (l *Log) undeliveredLocked(before int64) (left []*endpoint) {
	for id, e := range l.endpoints {
		lane := l.lanes[id]
		waits := func(e outbox.Event) bool { return e.ID > l.cursorLocked(id) && e.ID < before }
		if lane.Behind && lane.Cursor < before-1 || slices.ContainsFunc(l.of[id], waits) || l.retriesLocked(id, before) {
			left = append(left, e)
		}
	}
	return left
}

func (l *Log) retriesLocked(endpoint, before int64) bool {
	for id, r := range l.retries {
		if r.Event.Endpoint == endpoint && id < before {
			return true
		}
	}
	return false
}

// cursorLocked returns the id up to which an endpoint is stored as settled.
func (l *Log) cursorLocked(endpoint int64) int64 {
	if lane := l.lanes[endpoint]; lane.Behind {
		return lane.Cursor
	}
	return l.shards[outbox.ShardOf(endpoint)].tail
}

// expireLocked makes dead letters of an endpoint's undelivered events before
// [outbox.Endpoint.SendFrom].
func (l *Log) expireLocked(e outbox.Endpoint, cursor int64) {
	reason := func(id int64) string {
		if id < e.FeedFrom {
			return "expired"
		}
		return "retention"
	}
	for _, event := range l.of[e.ID] {
		if event.ID > cursor && event.ID < e.SendFrom() && !l.settledLocked(event.ID) {
			l.dead[event.ID] = DeadLetter{Event: event, Reason: reason(event.ID)}
		}
	}
	for id, r := range l.retries {
		if r.Event.Endpoint == e.ID && id < e.SendFrom() {
			l.dead[id] = DeadLetter{Event: r.Event, Attempts: r.Attempts, Reason: reason(id)}
			delete(l.retries, id)
		}
	}
	for _, r := range l.retries {
		if r.Event.Endpoint == e.ID {
			l.promoteLocked(recordRef{e.ID, r.Event.Record})
		}
	}
}

// settledLocked reports whether an event is delivered, in retry or dead.
func (l *Log) settledLocked(id int64) bool {
	_, dead := l.dead[id]
	return dead || len(l.attempts[id]) > 0 || l.retries[id] != nil
}

// eventLocked reads an event; false when the log has dropped it.
func (l *Log) eventLocked(id int64) (outbox.Event, bool) {
	i, found := slices.BinarySearchFunc(l.events, id, byID)
	if !found {
		return outbox.Event{}, false
	}
	return l.events[i], true
}

func byID(e outbox.Event, id int64) int { return cmp.Compare(e.ID, id) }

// View is a log at one moment.
type View struct {
	Events    []outbox.Event
	Endpoints map[int64]outbox.Endpoint
	Attempts  map[int64][]outbox.Attempt // by event
	Retries   map[int64]Retry            // by event
	Dead      map[int64]DeadLetter       // by event
	Lanes     map[int64]outbox.LaneState // by endpoint
	Tails     [outbox.Shards]int64
}

// View copies the state of the log. The caller must not change its slices.
func (l *Log) View() View {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := View{
		Events: l.events[:len(l.events):len(l.events)], Endpoints: map[int64]outbox.Endpoint{},
		Attempts: maps.Clone(l.attempts), Retries: map[int64]Retry{}, Dead: maps.Clone(l.dead), Lanes: maps.Clone(l.lanes),
	}
	for id, e := range l.endpoints {
		v.Endpoints[id] = e.Endpoint
	}
	for id, r := range l.retries {
		v.Retries[id] = *r
	}
	for i, s := range l.shards {
		v.Tails[i] = s.tail
	}
	return v
}

// Settled reports whether an event is delivered, in retry or dead.
func (l *Log) Settled(id int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settledLocked(id)
}
