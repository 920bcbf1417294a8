package sender

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

const (
	tailEvents = 1000 // read at once
	tailBytes  = 2 << 20
)

// tailBatch is a stretch of the event log: all events of the shards with ids above
// after and up to upto, and the endpoints of theirs that no earlier batch brought.
type tailBatch struct {
	shards    []int
	after     int64
	upto      int64
	events    []outbox.Event
	endpoints []outbox.Endpoint
	// forgotten answers tailCommand.forget: later batches bring these endpoints again
	// with their next event.
	forgotten []int64
}

// tailer reads the event log for the held shards and sends it to the dispatcher. It
// reads shards that it gains later up to where the others are, and then with them.
type tailer struct {
	sender    *Sender
	log       EventLog
	endpoints Endpoints
	batches   chan<- tailBatch

	groups    []tailGroup
	known     map[int64]int64 // endpoint → revision that the dispatcher has
	pulls     map[int64]bool  // known endpoints to which nothing is sent, and of which it has nothing
	forgotten []int64         // not yet sent

	mu       sync.Mutex
	commands []tailCommand // guarded by mu
	signal   chan struct{} // capacity 1
}

// tailGroup is a set of shards whose tails are at the same id.
type tailGroup struct {
	shards  []int
	after   int64
	horizon int64 // up to here an earlier owner may have settled events
}

// tailCommand changes what the tailer reads: shards to add, from an id on, or to drop.
type tailCommand struct {
	gain tailGroup
	drop []int
	// forget holds endpoints whose lanes the dispatcher wants to evict.
	forget []int64
}

func newTailer(s *Sender, log EventLog, endpoints Endpoints, batches chan<- tailBatch) *tailer {
	return &tailer{
		sender: s, log: log, endpoints: endpoints, batches: batches,
		known: map[int64]int64{}, pulls: map[int64]bool{}, signal: make(chan struct{}, 1),
	}
}

// send queues a command. The dispatcher calls it; it never blocks.
func (t *tailer) send(c tailCommand) {
	t.mu.Lock()
	t.commands = append(t.commands, c)
	t.mu.Unlock()
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

func (t *tailer) run(ctx context.Context) error {
	poll := time.NewTimer(t.pollIn())
	defer poll.Stop()
	for {
		t.applyCommands()
		if err := t.sendForgotten(ctx); err != nil {
			return err
		}
		more, err := t.readAll(ctx)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		poll.Reset(t.pollIn())
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.sender.events.Appended():
		case <-t.signal:
		case <-poll.C:
		}
	}
}

// pollIn is when to look without a signal: often, unless all appends are signalled.
func (t *tailer) pollIn() time.Duration {
	notified := time.Until(t.sender.events.NotifiedUntil())
	if notified <= t.sender.tailPoll {
		return t.sender.tailPoll
	}
	return min(notified, t.sender.rarePoll)
}

func (t *tailer) applyCommands() {
	t.mu.Lock()
	commands := t.commands
	t.commands = nil
	t.mu.Unlock()
	for _, c := range commands {
		for i := range t.groups {
			t.groups[i].shards = slices.DeleteFunc(t.groups[i].shards, func(shard int) bool {
				return slices.Contains(c.drop, shard)
			})
		}
		for _, id := range c.forget {
			delete(t.known, id)
		}
		t.forgotten = append(t.forgotten, c.forget...)
		t.forget(append(slices.Clone(c.drop), c.gain.shards...))
		if len(c.gain.shards) > 0 {
			t.groups = append(t.groups, c.gain)
		}
		t.groups = slices.DeleteFunc(t.groups, func(g tailGroup) bool { return len(g.shards) == 0 })
	}
}

// forget makes the endpoints of shards unknown: their next owner makes new lanes.
func (t *tailer) forget(shards []int) {
	for id := range t.known {
		if slices.Contains(shards, outbox.ShardOf(id)) {
			delete(t.known, id)
			delete(t.pulls, id)
		}
	}
}

func (t *tailer) sendForgotten(ctx context.Context) error {
	if len(t.forgotten) == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case t.batches <- tailBatch{forgotten: t.forgotten}:
	}
	t.forgotten = nil
	return nil
}

// readAll reads one stretch for each group. The first group leads; the others
// read up to it and join it. more says that there is more to read without waiting.
func (t *tailer) readAll(ctx context.Context) (more bool, err error) {
	for i := range t.groups {
		upto := int64(0)
		if i > 0 {
			upto = t.groups[0].after
		}
		rest, err := t.read(ctx, &t.groups[i], upto)
		if err != nil {
			return false, err
		}
		more = more || rest
	}
	for i := len(t.groups) - 1; i > 0; i-- {
		lead, g := &t.groups[0], t.groups[i]
		if g.after >= lead.after { // the dispatcher drops the events that lie between
			lead.horizon = max(lead.horizon, g.horizon)
			lead.shards = append(slices.Clone(lead.shards), g.shards...)
			t.groups = slices.Delete(t.groups, i, i+1)
		}
	}
	return more || len(t.groups) > 1, nil
}

// read reads and sends one stretch of a group, up to upto when that is not 0.
func (t *tailer) read(ctx context.Context, g *tailGroup, upto int64) (more bool, err error) {
	q := outbox.TailQuery{After: g.after, Upto: upto, Shards: g.shards, Limit: tailEvents, MaxBytes: tailBytes}
	if g.after < g.horizon {
		q.Unsettled = true
		if q.Upto == 0 || q.Upto > g.horizon {
			q.Upto = g.horizon
		}
	}
	if q.Upto != 0 && q.Upto <= q.After {
		return false, nil
	}
	var stretch outbox.Stretch
	err = t.sender.retry(ctx, "read the event log", func(ctx context.Context) error {
		stretch, err = t.log.Tail(ctx, q)
		return err
	})
	if err != nil {
		return false, err
	}
	if stretch.Upto <= g.after {
		return false, nil
	}
	batch := tailBatch{shards: slices.Clone(g.shards), after: g.after, upto: stretch.Upto, events: stretch.Events}
	if batch.endpoints, err = t.loadEndpoints(ctx, batch.events); err != nil {
		return false, err
	}
	t.leaveOutPulls(&batch)
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case t.batches <- batch:
	}
	g.after = batch.upto
	return stretch.More || q.Upto != 0 && upto == 0, nil
}

// leaveOutPulls takes from a batch the endpoints to which nothing is sent: their receivers
// read their feeds. So they have no lane.
func (t *tailer) leaveOutPulls(batch *tailBatch) {
	for i := range batch.endpoints {
		if batch.endpoints[i].Pull {
			t.pulls[batch.endpoints[i].ID] = true
		}
	}
	if len(t.pulls) == 0 {
		return
	}
	batch.endpoints = slices.DeleteFunc(batch.endpoints, func(e outbox.Endpoint) bool { return e.Pull })
	batch.events = slices.DeleteFunc(batch.events, func(e outbox.Event) bool { return t.pulls[e.Endpoint] })
}

// loadEndpoints reads the endpoints that the dispatcher does not know, or knows in an
// older revision than an event has.
func (t *tailer) loadEndpoints(ctx context.Context, events []outbox.Event) ([]outbox.Endpoint, error) {
	var ids []int64
	need := map[int64]int64{}
	for i := range events {
		e := &events[i]
		if known, ok := t.known[e.Endpoint]; ok && known >= e.Revision {
			continue
		}
		if _, listed := need[e.Endpoint]; !listed {
			ids = append(ids, e.Endpoint)
		}
		need[e.Endpoint] = max(need[e.Endpoint], e.Revision)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	endpoints, err := t.sender.loadEndpoints(ctx, t.endpoints, ids)
	for _, e := range endpoints {
		t.known[e.ID] = max(e.Revision, need[e.ID])
	}
	return endpoints, err
}

// loadEndpoints reads endpoints by id. A missing one becomes unusable, so that its
// lane keeps its events.
func (s *Sender) loadEndpoints(ctx context.Context, from Endpoints, ids []int64) (endpoints []outbox.Endpoint, err error) {
	err = s.retry(ctx, "read endpoints", func(ctx context.Context) error {
		endpoints, err = from.Endpoints(ctx, ids)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !slices.ContainsFunc(endpoints, func(e outbox.Endpoint) bool { return e.ID == id }) {
			s.log.Warn("endpoint of events is missing", zap.Int64("endpoint", id))
			endpoints = append(endpoints, outbox.Endpoint{ID: id, State: outbox.EndpointUnusable, Reason: "endpoint is missing"})
		}
	}
	return endpoints, nil
}
