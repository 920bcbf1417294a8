package outbox

import (
	"bytes"
	"sort"
	"sync"
	"time"

	"walhook/outbox/route"
)

const (
	// freshEvents and freshBytes bound what is kept of the newest appends.
	freshEvents = 8192
	freshBytes  = 4 << 20
)

// fresh is the end of the event log in memory: the newest events that a publisher of
// this process has committed, for a sender of this process that keeps up. A sender
// that is behind reads the event log. It holds every event of a range of ids, so nothing
// that it answers can lack one; where it does not know that, it holds nothing.
type fresh struct {
	mu sync.Mutex
	// wanted says that this process has had a sender. Guarded by mu, as is the rest.
	wanted bool
	// timeline is the token of the one that the events are on, and mark its mark.
	timeline, mark string
	asked          int64 // the end of what the sender had when it last asked

	// The events with ids above after and up to upto, in order.
	after, upto int64
	events      []Event
	bytes       int
}

// want has appends kept from now on.
func (f *fresh) want() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = true
}

// add takes the events of a committed plan, whose first id is from. Ids that were
// left out before it may be another writer's: what was held before them is dropped.
func (f *fresh) add(from int64, plan *route.Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	upto := plan.NextID() - 1
	if !f.wanted || upto < from {
		return
	}
	size := 0
	for i := range plan.Events {
		size += len(plan.Events[i].Body)
	}
	if f.upto != from-1 {
		f.reset(from - 1)
	}
	if size > freshBytes || len(plan.Events) > freshEvents || f.asked < upto-freshEvents {
		f.reset(upto) // too much, or nobody comes for it soon
		return
	}
	f.upto = upto
	f.bytes += size
	// The next plan uses this plan's memory. And a body has memory of its own: one that waits
	// in its lane would hold those of all others.
	var body []byte
	appended := plan.AppendedAt.Truncate(time.Microsecond)
	for i := range plan.Events {
		e := &plan.Events[i]
		if i == 0 || !sameBody(e, &plan.Events[i-1]) {
			body = bytes.Clone(e.Body)
		}
		f.events = append(f.events, Event{
			ID: e.ID, Endpoint: e.To.ID, Revision: e.To.Revision, Record: e.Record, WebhookID: e.WebhookID, Schema: e.Schema, Type: e.Type,
			CommittedAt: e.CommittedAt, AppendedAt: appended, Format: e.Format, Body: body, Account: e.Account,
		})
	}
	f.bound()
}

// restart drops all events: those that follow are of a timeline, by its token.
func (f *fresh) restart(timeline string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timeline, f.mark = timeline, timelineMark(timeline)
	f.reset(f.upto)
}

func (f *fresh) reset(at int64) {
	f.after, f.upto, f.bytes = at, at, 0
	clear(f.events)
	f.events = f.events[:0]
}

// sameBody says that routing gave two events one body.
func sameBody(a, b *route.Event) bool {
	return len(a.Body) > 0 && len(a.Body) == len(b.Body) && &a.Body[0] == &b.Body[0]
}

// find is the index of the first event after an id.
func (f *fresh) find(id int64) int {
	return sort.Search(len(f.events), func(i int) bool { return f.events[i].ID > id })
}

// bound drops the oldest. What stays is not moved: at the bound, each append drops some.
func (f *fresh) bound() {
	n := 0
	for len(f.events)-n > freshEvents || f.bytes > freshBytes {
		f.bytes -= len(f.events[n].Body)
		f.after = f.events[n].ID
		n++
	}
	clear(f.events[:n])
	f.events = f.events[n:]
}

// tail answers a query for what follows an id on a timeline, if every event that follows is
// held.
func (f *fresh) tail(timeline string, q *TailQuery) (stretch Stretch, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timeline != timeline || q.Endpoint != 0 || q.Unsettled || q.Upto != 0 {
		return stretch, false
	}
	f.asked = max(f.asked, q.After)
	if q.After < f.after || q.After >= f.upto {
		return stretch, false
	}
	var wanted [Shards]bool
	for _, shard := range q.Shards {
		wanted[shard] = true
	}
	at, count, size := time.Now(), 0, 0
	stretch.Upto = f.upto
	for i := f.find(q.After); i < len(f.events); i++ {
		e := &f.events[i]
		if count == q.Limit || size >= max(q.MaxBytes, 1) {
			stretch.Upto, stretch.More = f.events[i-1].ID, true
			break
		}
		count++
		if wanted[ShardOf(e.Endpoint)] {
			size += len(e.Body)
			stretch.Events = append(stretch.Events, *e)
			stretch.Events[len(stretch.Events)-1].ReadAt = at
		}
	}
	return stretch, true
}

// feed answers the events after an id that somebody waits for, on the timeline of a mark, if
// every event that follows is held.
func (f *fresh) feed(mark string, after int64, wanted map[int64]bool) (stretch Stretch, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted, f.asked = true, max(f.asked, after)
	if f.mark != mark || after < f.after || after >= f.upto {
		return stretch, false
	}
	stretch.Upto = f.upto
	for i := f.find(after); i < len(f.events); i++ {
		if wanted[f.events[i].Endpoint] {
			stretch.Events = append(stretch.Events, f.events[i])
		}
	}
	return stretch, true
}
