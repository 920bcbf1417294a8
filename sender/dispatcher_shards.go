package sender

import (
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

// shard is a held part of the endpoints.
type shard struct {
	id      int
	read    int64 // the log is handed to the lanes up to here
	tail    int64 // as stored, or on its way there; never falls
	horizon int64 // up to here an earlier owner may have settled events
	leaving bool  // to be given up once its lanes are drained
	parting bool  // being given up
}

// deal is news of the shards: gained ones with the endpoints that their lanes
// need, or ones to give up.
type deal struct {
	gained    outbox.Handover
	endpoints []outbox.Endpoint
	surplus   []int
}

// saveRequest stores lanes and tails, and gives shards up after that.
type saveRequest struct {
	lanes  []outbox.LaneState
	tails  []outbox.Shard
	giveUp []outbox.Shard
}

func (d *dispatcher) takeDeal(deal deal, now time.Time) {
	for _, id := range deal.surplus {
		if s := d.shards[id]; s != nil && !s.leaving && !d.stopping {
			d.log.Info("shard is given up", zap.Int("shard", id))
			s.leaving = true
			d.tailer.order(tailOrder{drop: []int{id}})
			d.leaveLanes(now, func(of int) bool { return of == id })
		}
	}
	if len(deal.gained.Shards) > 0 {
		d.gain(deal, now)
	}
	if len(deal.surplus) > 0 {
		d.save(now) // gives up at once what is drained
	}
}

// gain takes over shards where their last owner left them.
func (d *dispatcher) gain(deal deal, now time.Time) {
	h := &deal.gained
	group := tailGroup{after: h.Shards[0].Tail, horizon: h.Horizon}
	for _, s := range h.Shards {
		d.shards[s.ID] = &shard{id: s.ID, read: s.Tail, tail: s.Tail, horizon: h.Horizon, leaving: d.stopping}
		group.shards = append(group.shards, s.ID)
		group.after = min(group.after, s.Tail)
	}
	d.takeEndpoints(deal.endpoints, now)
	spread := probeSpread(h.Lanes)
	for _, state := range h.Lanes {
		if l := d.laneOf(state.Endpoint); l != nil {
			l.restore(state, h.Horizon, spread, now)
			l.saved = state
		}
	}
	for _, state := range h.Blocked {
		if l := d.laneOf(state.Endpoint); l != nil {
			l.recordState(state)
		}
	}
	for _, e := range deal.endpoints {
		if l := d.laneOf(e.ID); l != nil {
			if l.owesExpiry() {
				l.expireFrom(d.tailOf(l))
			}
			d.look(l, now)
		}
	}
	d.log.Info("shards gained", zap.Int("shards", len(h.Shards)), zap.Int("lanes_kept", len(h.Lanes)), zap.Int("records_in_retry", len(h.Blocked)))
	d.tailer.order(tailOrder{gain: group})
}

// probesPerSecond is how many breakers that are taken over together may probe.
const probesPerSecond = 100

func probeSpread(lanes []outbox.LaneState) time.Duration {
	open := 0
	for _, l := range lanes {
		if l.Open {
			open++
		}
	}
	return time.Duration(open) * time.Second / probesPerSecond
}

func (d *dispatcher) leaveLanes(now time.Time, of func(shard int) bool) {
	for id, l := range d.lanes {
		if of(outbox.ShardOf(id)) {
			l.leaving = true
			l.shed(now)
			d.look(l, now)
		}
	}
}

// stop starts nothing more and lets go of what waits.
func (d *dispatcher) stop(now time.Time) {
	d.stopping = true
	d.leaveLanes(now, func(int) bool { return true })
}

// stopped says that all that was begun is settled and saved.
func (d *dispatcher) stopped(now time.Time) bool {
	if d.inFlight > 0 || d.unsettled > 0 || d.saving {
		return false
	}
	if !d.lastSave {
		d.lastSave = true
		d.save(now)
		return !d.saving
	}
	return true
}

func (d *dispatcher) takeSaved(r saveRequest) {
	d.saving = false
	for _, s := range r.giveUp {
		delete(d.shards, s.ID)
		for id, l := range d.lanes {
			if outbox.ShardOf(id) == s.ID {
				d.wakes.set(l, time.Time{})
				d.buffered -= l.counted
				delete(d.lanes, id)
			}
		}
	}
}
