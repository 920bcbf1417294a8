package sender

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// fakeLog keeps the outbox's promises in memory, for tests of time and order.
// What SQL does is proven against PostgreSQL, in outbox and in cmd.
type fakeLog struct {
	mu         sync.Mutex
	events     []outbox.Event
	own        map[int64][]outbox.Event // by endpoint, as far as indexed
	indexed    int
	endpoints  map[int64]outbox.Endpoint
	changed    []outbox.EndpointRevision
	attempts   map[int64][]outbox.Attempt // by event
	retry      map[int64]*retryRow
	dead       map[int64]string
	lanes      map[int64]outbox.LaneState
	tails      map[int]int64
	held       bool
	lost       bool // the lease is lost until the next join
	left       int
	givenUp    int
	surplus    []int // that the next rebalancing names
	lostGiveUp error // the answer to giving up
	away       error // what calls answer while not nil
	unrenewed  error // what Renew answers while not nil
	saves      int
	read       int // bytes of bodies, by the tail
	appended   chan struct{}
	now        func() time.Time
}

type retryRow struct {
	event outbox.Event
	due   time.Time // zero while it waits behind another
}

func newFakeLog(endpoints ...outbox.Endpoint) *fakeLog {
	f := &fakeLog{
		endpoints: map[int64]outbox.Endpoint{}, attempts: map[int64][]outbox.Attempt{},
		retry: map[int64]*retryRow{}, dead: map[int64]string{}, lanes: map[int64]outbox.LaneState{},
		tails: map[int]int64{}, appended: make(chan struct{}, 1), now: time.Now,
	}
	for _, e := range endpoints {
		f.endpoints[e.ID] = e
	}
	return f
}

func (f *fakeLog) append(events ...outbox.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, events...)
	select {
	case f.appended <- struct{}{}:
	default:
	}
}

func (f *fakeLog) set(e outbox.Endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endpoints[e.ID] = e
	f.changed = append(f.changed, outbox.EndpointRevision{ID: e.ID, Revision: e.Revision})
}

func (f *fakeLog) fence() error {
	if f.away != nil {
		return f.away
	}
	if f.lost {
		return outbox.ErrLeaseLost
	}
	return nil
}

func (f *fakeLog) settledLocked(id int64) bool {
	return len(f.attempts[id]) > 0 || f.retry[id] != nil || f.dead[id] != ""
}

func (f *fakeLog) Tail(_ context.Context, q outbox.TailQuery) (stretch outbox.Stretch, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil {
		return stretch, f.away
	}
	stretch.Upto = q.After
	read, size := 0, 0
	events := f.events
	if q.Endpoint != 0 {
		events = f.ownLocked(q.Endpoint)
	}
	from, _ := slices.BinarySearchFunc(events, q.After+1, func(e outbox.Event, id int64) int { return int(e.ID - id) })
	for _, e := range events[from:] {
		if q.Upto != 0 && e.ID > q.Upto || read >= q.Limit || size >= max(q.MaxBytes, 1) {
			break
		}
		mine := slices.Contains(q.Shards, outbox.ShardOf(e.Endpoint))
		mine = mine || q.Endpoint != 0
		read++
		stretch.Upto = e.ID
		if mine && !(q.Unsettled && f.settledLocked(e.ID)) {
			stretch.Events = append(stretch.Events, e)
			size += len(e.Body)
		}
	}
	if q.Endpoint == 0 {
		f.read += size
	}
	stretch.More = read >= q.Limit || size >= q.MaxBytes
	if !stretch.More && q.Upto != 0 {
		stretch.Upto = q.Upto
	}
	return stretch, nil
}

func (f *fakeLog) ownLocked(endpoint int64) []outbox.Event {
	if f.own == nil {
		f.own = map[int64][]outbox.Event{}
	}
	for _, e := range f.events[f.indexed:] {
		f.own[e.Endpoint] = append(f.own[e.Endpoint], e)
	}
	f.indexed = len(f.events)
	return f.own[endpoint]
}

func (f *fakeLog) Endpoints(_ context.Context, ids []int64) (endpoints []outbox.Endpoint, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if e, ok := f.endpoints[id]; ok {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints, f.away
}

func (f *fakeLog) EndpointsChanged(context.Context, time.Time) ([]outbox.EndpointRevision, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := f.changed
	f.changed = nil
	return changed, f.now(), f.away
}

func (f *fakeLog) DueRetries(_ context.Context, q outbox.RetryQuery) (due outbox.Retries, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []*retryRow
	for id, r := range f.retry {
		if r.event.Endpoint != q.Endpoint || r.due.IsZero() {
			continue
		}
		if r.due.After(q.Now) {
			due.Next = earliest(due.Next, r.due)
		} else if !slices.Contains(q.Exclude, id) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *retryRow) int {
		if c := a.due.Compare(b.due); c != 0 {
			return c
		}
		return int(a.event.ID - b.event.ID)
	})
	size := 0
	for _, r := range rows {
		if due.More = len(due.Events) >= q.Limit || size >= max(q.MaxBytes, 1); due.More {
			break
		}
		size += len(r.event.Body)
		due.Events = append(due.Events, r.event)
	}
	due.More = due.More || len(due.Events) >= q.Limit || size >= max(q.MaxBytes, 1)
	return due, f.away
}

func (f *fakeLog) Settle(_ context.Context, batch []outbox.Settlement) (states []outbox.RecordState, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fence(); err != nil {
		return nil, err
	}
	touched := map[string]int64{} // record → endpoint; records are named per endpoint here
	for i := range batch {
		s := &batch[i]
		if s.Attempt != nil {
			f.attempts[s.Event.ID] = append(f.attempts[s.Event.ID], *s.Attempt)
			if e := f.endpoints[s.Event.Endpoint]; s.Disable != "" && e.Revision == s.Attempt.Revision {
				e.Revision++
				e.State, e.Reason = outbox.EndpointDisabled, s.Disable
				f.endpoints[e.ID] = e
				f.changed = append(f.changed, outbox.EndpointRevision{ID: e.ID, Revision: e.Revision})
			}
		}
		if touchesRetry(s) {
			touched[s.Event.Record] = s.Event.Endpoint
		}
		switch s.Disposition {
		case outbox.Delivered, outbox.Dead:
			delete(f.retry, s.Event.ID)
			if s.Disposition == outbox.Dead {
				f.dead[s.Event.ID] = s.Attempt.Reason
			}
		case outbox.Retry:
			e := f.event(s.Event.ID)
			e.Attempts = s.Attempt.Number
			f.retry[e.ID] = &retryRow{event: e, due: s.RetryAt}
		case outbox.Parked:
			f.retry[s.Event.ID] = &retryRow{event: f.event(s.Event.ID)}
		}
	}
	for record, endpoint := range touched {
		states = append(states, f.recordState(endpoint, record))
	}
	return states, nil
}

func (f *fakeLog) event(id int64) outbox.Event {
	i := slices.IndexFunc(f.events, func(e outbox.Event) bool { return e.ID == id })
	return f.events[i]
}

// recordState makes the record's oldest row due, as the outbox does.
func (f *fakeLog) recordState(endpoint int64, record string) outbox.RecordState {
	state := outbox.RecordState{Endpoint: endpoint, Record: record}
	var oldest *retryRow
	for _, r := range f.retry {
		if r.event.Endpoint == endpoint && r.event.Record == record && (oldest == nil || r.event.ID < oldest.event.ID) {
			oldest = r
		}
	}
	if oldest != nil {
		if oldest.due.IsZero() {
			oldest.due = f.now()
		}
		state.Blocked, state.NextAt = true, oldest.due
	}
	return state
}

func (f *fakeLog) Expire(_ context.Context, e outbox.Endpoint, cursor int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fence(); err != nil {
		return err
	}
	for _, event := range f.events {
		if event.Endpoint == e.ID && event.ID > cursor && event.ID < e.SendFrom() && !f.settledLocked(event.ID) {
			f.dead[event.ID] = expiredAs(e, event.ID)
		}
	}
	for id, r := range f.retry {
		if r.event.Endpoint == e.ID && id < e.SendFrom() {
			f.dead[id] = expiredAs(e, id)
			delete(f.retry, id)
		}
	}
	return nil
}

func expiredAs(e outbox.Endpoint, id int64) string {
	if id < e.FeedFrom {
		return "expired"
	}
	return "retention"
}

func (f *fakeLog) Renew(context.Context) (time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unrenewed != nil {
		return time.Time{}, f.unrenewed
	}
	return f.now().Add(10 * time.Second), f.fence()
}

func (f *fakeLog) Rebalance(context.Context) (h outbox.Handover, surplus []int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fence(); err != nil || f.held {
		surplus, f.surplus = f.surplus, nil
		return h, surplus, err
	}
	f.held = true
	for id := range outbox.Shards {
		h.Shards = append(h.Shards, outbox.Shard{ID: id, Tail: f.tails[id]})
	}
	if n := len(f.events); n > 0 {
		h.Horizon = f.events[n-1].ID
	}
	for _, l := range f.lanes {
		h.Lanes = append(h.Lanes, l)
	}
	seen := map[string]bool{}
	for _, r := range f.retry {
		if !seen[r.event.Record] {
			seen[r.event.Record] = true
			h.Blocked = append(h.Blocked, f.recordState(r.event.Endpoint, r.event.Record))
		}
	}
	return h, nil, nil
}

func (f *fakeLog) Save(_ context.Context, lanes []outbox.LaneState, shards []outbox.Shard) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fence(); err != nil {
		return err
	}
	f.saves++
	for _, l := range lanes {
		if l == (outbox.LaneState{Endpoint: l.Endpoint, Revision: l.Revision, LastReason: l.LastReason}) {
			delete(f.lanes, l.Endpoint)
		} else {
			f.lanes[l.Endpoint] = l
		}
	}
	for _, s := range shards {
		f.tails[s.ID] = max(f.tails[s.ID], s.Tail)
	}
	return nil
}

func (f *fakeLog) GiveUp(context.Context, []outbox.Shard) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.givenUp++
	return f.lostGiveUp
}

func (f *fakeLog) Leave(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = false
	f.left++
	return f.away
}

// view is a copy to look at.
func (f *fakeLog) view() fakeView {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fakeView{
		attempts: maps.Clone(f.attempts), retry: maps.Clone(f.retry), dead: maps.Clone(f.dead), lanes: maps.Clone(f.lanes),
		endpoints: maps.Clone(f.endpoints), tails: maps.Clone(f.tails), left: f.left, saves: f.saves,
	}
}

type fakeView struct {
	attempts  map[int64][]outbox.Attempt
	retry     map[int64]*retryRow
	dead      map[int64]string
	lanes     map[int64]outbox.LaneState
	endpoints map[int64]outbox.Endpoint
	tails     map[int]int64
	left      int
	saves     int
}

// delivered lists the events with a delivered attempt, and how often.
func (f *fakeLog) delivered() map[int64]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[int64]int{}
	for id, attempts := range f.attempts {
		for _, a := range attempts {
			if a.Outcome == string(deliver.Delivered) {
				counts[id]++
			}
		}
	}
	return counts
}

func (l *fakeLog) Confirm(context.Context, []outbox.EndpointRevision) error { return nil }
