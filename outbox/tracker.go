package outbox

import (
	"maps"

	"walhook/outbox/route"
	"walhook/schemas"
)

// tracker knows of which records a publisher has appended events for one endpoint since
// the tracker began. A resync leaves out the rows of these: their state in the source's
// snapshot is older than what the endpoint gets anyway. What makes no event for the
// endpoint does not count.
type tracker struct {
	// events are the records that have an event, by the name under which events are kept
	// in order, each with a position that the commit of its last event is not behind.
	events map[string]schemas.LSN
	full   bool // there were more than maxTracked
	lost   bool // an append may have stored events that the tracker does not know
}

// maxTracked bounds what a tracker remembers. A resync that needs more goes on at another
// moment of the source, and so with an empty tracker.
const maxTracked = 100_000

// valid reports whether the tracker knows all events.
func (t *tracker) valid() bool { return !t.full && !t.lost }

// superseded reports whether a record has an event that committed at a position or later.
func (t *tracker) superseded(record string, since schemas.LSN) bool {
	commit, known := t.events[record]
	return known && commit >= since
}

// forget drops what committed before a position.
func (t *tracker) forget(before schemas.LSN) {
	maps.DeleteFunc(t.events, func(_ string, commit schemas.LSN) bool { return commit < before })
}

// trackers are those of the resyncs that run, by endpoint. The publisher's lock guards
// them.
type trackers struct {
	byEndpoint map[int64]*tracker
	most       int // of events in each; tests have less
}

func (t *trackers) begin(endpoint int64) *tracker {
	if t.byEndpoint == nil {
		t.byEndpoint = map[int64]*tracker{}
	}
	one := &tracker{events: map[string]schemas.LSN{}}
	t.byEndpoint[endpoint] = one
	return one
}

func (t *trackers) end(endpoint int64, one *tracker) {
	if t.byEndpoint[endpoint] == one {
		delete(t.byEndpoint, endpoint)
	}
}

// note notes the events of a transaction that is committed. Of its plans the last has the
// position that it reaches, and without one its events come from no change.
func (t *trackers) note(plans []*route.Plan) {
	reached := plans[len(plans)-1].Reached
	if len(t.byEndpoint) == 0 || reached == nil {
		return
	}
	most := t.most
	if most == 0 {
		most = maxTracked
	}
	for _, plan := range plans {
		for i := range plan.Events {
			e := &plan.Events[i]
			one := t.byEndpoint[e.To.ID]
			if one == nil || one.full {
				continue
			}
			one.events[e.Record] = reached.Position.Commit
			if len(one.events) > most {
				one.full, one.events = true, nil
			}
		}
	}
}

// lose says that nobody knows what the last append stored.
func (t *trackers) lose() {
	for _, one := range t.byEndpoint {
		one.lost, one.events = true, nil
	}
	clear(t.byEndpoint)
}
