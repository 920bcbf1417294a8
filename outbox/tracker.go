package outbox

import (
	"maps"
	"strings"

	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
)

// tracker knows of which records a publisher has appended events for one endpoint since
// the tracker began. A resync leaves out the rows of these: their state in the source's
// snapshot is older than what the endpoint gets anyway. What makes no event for the
// endpoint does not count.
type tracker struct {
	// events are the records that have an event, by the name under which events are kept
	// in order.
	events map[string]tracked
	full   bool // there were more than maxTracked
	lost   bool // an append may have stored events that the tracker does not know
}

// tracked is the last event of a record.
type tracked struct {
	commit  schemas.LSN // a position that its commit is not behind
	partial bool        // it lacks fields that the source did not send
}

// maxTracked bounds what a tracker remembers. A resync that needs more goes on at another
// moment of the source, and so with an empty tracker.
const maxTracked = 100_000

// valid reports whether the tracker knows all events.
func (t *tracker) valid() bool { return !t.full && !t.lost }

// superseded reports whether a record has an event that committed at a position or later,
// and whether that lacks fields: then whoever has only the event does not have the record.
func (t *tracker) superseded(record string, since schemas.LSN) (superseded, partial bool) {
	last, known := t.events[record]
	superseded = known && last.commit >= since
	return superseded, superseded && last.partial
}

// forget drops what committed before a position.
func (t *tracker) forget(before schemas.LSN) {
	maps.DeleteFunc(t.events, func(_ string, last tracked) bool { return last.commit < before })
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
	one := &tracker{events: map[string]tracked{}}
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
			one.events[e.Record] = tracked{reached.Position.Commit, e.Partial}
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

// mostAgain is how many passes one record may ask for.
const mostAgain = 20

// partialRecord is a record of which a resync met a newer event that lacks fields, because
// the source does not send what an update leaves untouched (unchanged TOAST, where the
// replica identity is not FULL). Whoever starts empty needs them: the next pass, with a
// newer snapshot, begins at this record.
type partialRecord struct {
	record string
	times  int
}

// givesUp counts such a meeting, and reports whether the record is left out, since it
// changes each time. The caller holds mu.
func (p *Publisher) givesUp(resync int64, record string) bool {
	one := p.partial[resync]
	if one.record != record {
		one = partialRecord{record: record}
	}
	one.times++
	if p.partial == nil {
		p.partial = map[int64]partialRecord{}
	}
	p.partial[resync] = one
	if one.times <= mostAgain {
		return false
	}
	p.log.Warn("a record changes so often that a resync leaves it out; events of its updates lack fields that the source does not send without REPLICA IDENTITY FULL",
		zap.Int64("resync", resync), zap.String("schema", strings.SplitN(record, ":", 2)[0]))
	return true
}
