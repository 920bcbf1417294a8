package outbox

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/internal/retry"
)

const (
	feedTailRows  = 5000    // ids that one look reads
	feedTailBytes = 4 << 20 // bodies that one look reads for all who wait

	// What one who waits may have before it, in bytes and events. Whoever takes longer
	// reads the event log instead.
	feedQueueEvents = 500
	feedQueueBytes  = 1 << 20

	feedPoll     = 100 * time.Millisecond
	feedRarePoll = time.Second // while appends are notified
	feedTimeout  = 15 * time.Second

	feedRetryMin = 200 * time.Millisecond
	feedRetryMax = 5 * time.Second
)

// FeedTail reads the end of the event log for all who wait for events of an endpoint: one
// look serves them all, and none is made while nobody waits. [Store.FeedTail] makes one.
//
//	Wait ─▶ reads the log up to Joined ─▶ Take, Take, … ─▶ Leave
//	              ▲                          │
//	              └──────── behind ──────────┘
type FeedTail struct {
	store *Store
	log   *zap.Logger

	mu      sync.Mutex                         // guards what follows
	waiting map[int64]map[*FeedWaiter]struct{} // by endpoint
	live    bool                               // upto is the place of who waits
	mark    string                             // of the timeline that upto was read on
	upto    int64                              // every event up to here was handed out
	wake    chan struct{}                      // capacity 1: somebody waits
}

// FeedWaiter is one who waits for events of an endpoint.
type FeedWaiter struct {
	tail     *FeedTail
	endpoint int64
	signal   chan struct{} // capacity 1

	// Guarded by the tail's mu.
	joined   int64 // the tail hands it all events after this one; -1 before it is known
	revision int64 // of the endpoint, read after the latest event; 0 where it is deleted
	events   []Event
	bytes    int
	behind   bool   // events were left out
	sent     string // the mark of a reader that was sent to the log, since the tail has another
}

// FeedTail is the one tail of this process. It reads once Run runs.
func (s *Store) FeedTail() *FeedTail {
	return &FeedTail{store: s, log: s.log, waiting: map[int64]map[*FeedWaiter]struct{}{}, wake: make(chan struct{}, 1)}
}

// Wait begins to wait. Whoever waits calls Leave in the end.
func (t *FeedTail) Wait(endpoint int64) *FeedWaiter {
	w := &FeedWaiter{tail: t, endpoint: endpoint, signal: make(chan struct{}, 1), joined: -1}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live {
		w.joined = t.upto
	}
	if t.waiting[endpoint] == nil {
		t.waiting[endpoint] = map[*FeedWaiter]struct{}{}
	}
	t.waiting[endpoint][w] = struct{}{}
	signal(t.wake)
	return w
}

// Leave ends the wait.
func (w *FeedWaiter) Leave() {
	t := w.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.waiting[w.endpoint], w); len(t.waiting[w.endpoint]) == 0 {
		delete(t.waiting, w.endpoint)
	}
	if len(t.waiting) == 0 {
		t.live = false
	}
}

// Signal is signalled when Take may have something.
func (w *FeedWaiter) Signal() <-chan struct{} { return w.signal }

// Taken is what one who waits is handed.
type Taken struct {
	Events []Event
	// Upto is the last id up to which nothing is missing, where Behind is false. It is on the
	// timeline of the caller's place.
	Upto int64
	// Revision is the endpoint's, read after the events; 0 where it is deleted.
	Revision int64
	// Behind says that events after the place are in the event log alone: read it.
	Behind bool
}

// Take hands out what has come after a place up to which the caller has read, on the
// timeline of a mark.
func (w *FeedWaiter) Take(place int64, mark string) Taken {
	t := w.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live { // it begins soon, and then sends everybody to the log
		return Taken{Upto: place}
	}
	if mark != t.mark {
		if w.sent == mark { // the reader comes from the log: the tail has not moved on yet
			signal(t.wake)
			return Taken{Upto: place}
		}
		w.sent = mark
		return Taken{Behind: true}
	}
	if w.behind || place < w.joined {
		// What follows is handed out from here on, and the log has the rest.
		w.events, w.bytes, w.behind, w.joined = nil, 0, false, t.upto
		return Taken{Behind: true}
	}
	taken := Taken{Upto: max(t.upto, place), Revision: w.revision}
	for _, e := range w.events {
		if e.ID > place {
			taken.Events = append(taken.Events, e)
		}
	}
	w.events, w.bytes = nil, 0
	return taken
}

// hand gives an event to one who waits. The caller holds mu.
func (w *FeedWaiter) hand(e *Event) {
	if w.behind || w.joined < 0 {
		return
	}
	if len(w.events) >= feedQueueEvents || len(w.events) > 0 && w.bytes+len(e.Body) > feedQueueBytes {
		w.leaveBehind()
		return
	}
	w.events, w.bytes = append(w.events, *e), w.bytes+len(e.Body)
	signal(w.signal)
}

// leaveBehind sends one who waits to the event log. The caller holds mu.
func (w *FeedWaiter) leaveBehind() {
	w.events, w.bytes, w.behind = nil, 0, true
	signal(w.signal)
}

// Run reads for who waits, until ctx ends. It returns nil.
func (t *FeedTail) Run(ctx context.Context) error {
	backoff := retry.Backoff{Min: feedRetryMin, Max: feedRetryMax}
	var reminder retry.Reminder
	for {
		wait := t.pollIn()
		more, err := t.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if wait = backoff.Next(); reminder.Due("") {
				reminder.Logged("")
				t.log.Warn("reading the event log for feeds failed, retrying", zap.Duration("retry_in", wait), zap.Error(err))
			}
		default:
			backoff.Reset()
		}
		if more {
			continue
		}
		if !t.anybody() {
			select {
			case <-ctx.Done():
				return nil
			case <-t.wake:
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.store.fed:
		case <-t.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pollIn is when to look without a signal: often, unless all appends are signalled.
func (t *FeedTail) pollIn() time.Duration {
	if time.Until(t.store.NotifiedUntil()) <= feedPoll {
		return feedPoll
	}
	return feedRarePoll
}

func (t *FeedTail) anybody() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting) > 0
}

// look reads the log once for all who wait; more says that there is more at once.
func (t *FeedTail) look(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, feedTimeout, fmt.Errorf("read the event log for feeds: timed out"))
	defer cancel()
	t.mu.Lock()
	live, mark, after, anybody := t.live, t.mark, t.upto, len(t.waiting) > 0
	wanted := make(map[int64]bool, len(t.waiting)) // the endpoints that somebody waits for
	for id := range t.waiting {
		wanted[id] = true
	}
	t.mu.Unlock()
	if !anybody {
		return false, nil
	}
	if !live {
		return false, t.begin(ctx)
	}
	stretch, heads, on, err := t.read(ctx, mark, after, wanted)
	if err == nil && on != mark { // the outbox failed over, and may lack what was handed out
		return false, t.begin(ctx)
	}
	if err != nil || stretch.Upto <= after {
		return false, err
	}
	revisions, err := t.revisions(ctx, heads)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live { // all left meanwhile
		return false, nil
	}
	byID := make(map[int64]*Event, len(stretch.Events))
	for i := range stretch.Events {
		byID[stretch.Events[i].ID] = &stretch.Events[i]
	}
	for id, of := range t.waiting {
		if !wanted[id] { // they came while this was read, which has nothing of theirs
			for w := range of {
				w.leaveBehind()
			}
		}
	}
	for _, h := range heads {
		e := byID[h.id]
		for w := range t.waiting[h.endpoint] {
			w.revision = revisions[h.endpoint]
			if e == nil { // too much at once, or unreadable
				w.leaveBehind()
			} else {
				w.hand(e)
			}
		}
	}
	t.upto = stretch.Upto
	return stretch.More, nil
}

// begin finds the end of the log, from which on those who wait are handed events.
func (t *FeedTail) begin(ctx context.Context) error {
	log, err := t.store.feedLog(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		return nil
	}
	t.live, t.mark, t.upto = true, log.Timeline, log.Newest
	for _, of := range t.waiting {
		for w := range of {
			w.leaveBehind() // it reads up to here
			w.sent = ""
		}
	}
	return nil
}

// revisions are those of the endpoints that events were read of, at present: who is handed
// the events must not sign them with a secret that ended before they came.
func (t *FeedTail) revisions(ctx context.Context, heads []eventHead) (map[int64]int64, error) {
	if len(heads) == 0 {
		return nil, nil
	}
	endpoints := make([]int64, len(heads))
	for i, h := range heads {
		endpoints[i] = h.endpoint
	}
	slices.Sort(endpoints)
	return t.store.Revisions(ctx, slices.Compact(endpoints))
}

// eventHead is what a look reads of every event.
type eventHead struct{ id, endpoint, size int64 }

const (
	// One row without an event where none follows, since the timeline may be another one.
	feedHeadsSQL = `SELECT t.mark, coalesce(e.id, 0), coalesce(e.endpoint, 0), coalesce(e.size, 0)
		FROM (SELECT coalesce((SELECT ` + timelineMarkSQL + ` FROM walhook.timeline ORDER BY id DESC LIMIT 1), '') AS mark) t
		LEFT JOIN (SELECT e.id, e.endpoint, ` + SizeSQL + ` AS size FROM walhook.event e WHERE e.id > $1 ORDER BY e.id LIMIT $2) e ON true
		ORDER BY e.id`

	feedEventsSQL = readStartSQL + `true THEN ` + SizeSQL + ` END AS size FROM walhook.event e
		WHERE e.id >= $1 AND e.id <= $2 AND e.id = ANY ($3)` + readEndSQL
)

// read returns the events of wanted endpoints after one, and the heads of all of them:
// those of which there is no event have to be read alone. on is the mark of the timeline
// that they are on; events of another one than mark's are not read.
func (t *FeedTail) read(ctx context.Context, mark string, after int64, wanted map[int64]bool) (stretch Stretch, heads []eventHead, on string, err error) {
	if stretch, ok := t.store.fresh.feed(mark, after, wanted); ok {
		for i := range stretch.Events {
			heads = append(heads, eventHead{id: stretch.Events[i].ID, endpoint: stretch.Events[i].Endpoint})
		}
		return stretch, heads, mark, nil
	}
	rows, err := t.store.pool.Query(ctx, feedHeadsSQL, after, feedTailRows)
	stretch.Upto = after
	var h eventHead
	var ids []int64
	n, size := 0, int64(0)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&on, &h.id, &h.endpoint, &h.size}, func() error {
			if h.id == 0 {
				return nil
			}
			n++
			stretch.Upto = h.id
			if wanted[h.endpoint] {
				heads = append(heads, h)
				if size += h.size; size <= feedTailBytes {
					ids = append(ids, h.id)
				}
			}
			return nil
		})
	}
	if err != nil || on != mark {
		return stretch, nil, on, err
	}
	stretch.More = n == feedTailRows
	if len(ids) == 0 {
		return stretch, heads, on, nil
	}
	part := Stretch{}
	q := TailQuery{Limit: len(ids) + 1, MaxBytes: 2 * feedTailBytes}
	rows, err = t.store.pool.Query(ctx, feedEventsSQL, pgx.QueryResultFormats{pgx.BinaryFormatCode}, ids[0], ids[len(ids)-1], ids, q.Limit, feedTailBytes)
	if err == nil {
		err = part.read(rows, &q, len(ids))
	}
	whole := false
	if err == nil {
		whole, err = t.store.readBodies(ctx, part.Events)
	}
	if isReadFault(err) {
		return stretch, heads, on, nil // whoever waits for them reads each alone
	}
	if whole {
		stretch.Events = part.Events
	}
	return stretch, heads, on, err
}
