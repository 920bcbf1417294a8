package sender

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

// shard is a held part of the endpoints.
type shard struct {
	id        int
	read      int64 // the lanes were offered events up to this id
	tail      int64 // as stored, or as being stored; never falls
	horizon   int64 // up to this id an earlier owner may have settled events
	leaving   bool  // to be released once its lanes are drained
	releasing bool  // its release is under way
}

// assignment is a change of the held shards: gained ones, with the endpoints that
// their lanes need, and ones to release.
type assignment struct {
	gained    outbox.Handover
	endpoints []outbox.Endpoint
	surplus   []int
}

// saveRequest asks to store lanes and tails, and then to release shards.
type saveRequest struct {
	lanes   []outbox.LaneState
	tails   []outbox.Shard
	release []outbox.Shard
}

func (d *dispatcher) takeAssignment(assignment assignment, now time.Time) {
	for _, id := range assignment.surplus {
		if s := d.shards[id]; s != nil && !s.leaving && !d.stopping {
			d.log.Info("releasing shard", zap.Int("shard", id))
			s.leaving = true
			d.tailer.send(tailCommand{drop: []int{id}})
			d.leaveLanes(now, func(of int) bool { return of == id })
		}
	}
	if len(assignment.gained.Shards) > 0 {
		d.gain(assignment, now)
	}
	if len(assignment.surplus) > 0 {
		d.save(now) // releases at once what is drained
	}
}

// gain takes over shards from where their last owner saved them.
func (d *dispatcher) gain(assignment assignment, now time.Time) {
	h := &assignment.gained
	group := tailGroup{after: h.Shards[0].Tail, horizon: h.Horizon}
	for _, s := range h.Shards {
		d.shards[s.ID] = &shard{id: s.ID, read: s.Tail, tail: s.Tail, horizon: h.Horizon, leaving: d.stopping}
		group.shards = append(group.shards, s.ID)
		group.after = min(group.after, s.Tail)
	}
	d.takeEndpoints(assignment.endpoints, now)
	spread := probeSpread(h.Lanes)
	for _, state := range h.Lanes {
		if l := d.laneOf(state.Endpoint); l != nil {
			l.restore(state, h.Horizon, spread, now)
			l.sched.saved = state
		}
	}
	for _, state := range h.Blocked {
		if l := d.laneOf(state.Endpoint); l != nil {
			l.recordState(state)
		}
	}
	for _, e := range assignment.endpoints {
		if l := d.laneOf(e.ID); l != nil {
			if l.owesExpiry() {
				l.expireFrom(d.tailOf(l))
			}
			d.look(l, now)
		}
	}
	d.log.Info("shards gained", zap.Int("shards", len(h.Shards)), zap.Int("lanes_kept", len(h.Lanes)), zap.Int("records_in_retry", len(h.Blocked)))
	d.tailer.send(tailCommand{gain: group})
}

// probesPerSecond limits the probes of breakers that are restored together.
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
			l.dropBuffered(now)
			d.look(l, now)
		}
	}
}

// save counts all lanes, has those evicted that are idle for long, and stores what
// changed since the last save. It scans all lanes, and the dispatcher does nothing
// else meanwhile: most lanes rest, and cost a look at one field.
func (d *dispatcher) save(now time.Time) {
	d.scanLanes(now)
	if d.saving {
		return
	}
	r := saveRequest{tails: d.advanceTails()}
	for _, l := range d.awake {
		if s := l.snapshot(d.shards[outbox.ShardOf(l.endpoint.ID)].tail, now); s != l.sched.saved {
			l.sched.saved = s
			r.lanes = append(r.lanes, s)
		}
		l.sched.rests = l.endpoint.State == outbox.EndpointActive && d.idle(l, now)
	}
	r.release = d.releaseDrained()
	if len(r.lanes)+len(r.tails)+len(r.release) > 0 {
		d.saving = true
		d.saves <- r
	}
}

// scanLanes finds the lanes that are awake, counts all lanes, and asks the tailer to
// forget the endpoints of those that are idle for long. After that the tailer sends
// such an endpoint again with its next event, so the dispatcher may evict the lane.
func (d *dispatcher) scanLanes(now time.Time) {
	clear(d.awake)
	d.awake = d.awake[:0]
	states, held := map[outbox.LaneStatus]int{}, map[string]int{}
	failing := make([]int, len(warnAfter)+1)
	var idle []int64
	for id, l := range d.lanes {
		if !l.sched.rests {
			d.awake = append(d.awake, l)
			states[l.status(now)]++
			if l.endpoint.State == outbox.EndpointActive {
				failing[l.health.stage(now, d.policy.disableAfter)]++
			}
			if reason := l.held(); reason != "" {
				held[reason]++
			}
		}
		if !l.sched.evicting && now.Sub(l.sched.usedAt) >= idleAfter && (l.sched.rests || d.idle(l, now)) {
			l.sched.evicting = true
			idle = append(idle, id)
		}
	}
	states[outbox.LaneLive] += len(d.lanes) - len(d.awake)
	for _, state := range outbox.LaneStatuses() {
		d.sender.metrics.lanes.WithLabelValues(string(state)).Set(float64(states[state]))
	}
	for _, reason := range heldReasons() {
		d.sender.metrics.held.WithLabelValues(reason).Set(float64(held[reason]))
	}
	for i := range warnAfter {
		d.sender.metrics.failing.WithLabelValues(strconv.Itoa(i + 1)).Set(float64(failing[i+1]))
	}
	if len(idle) > 0 {
		d.tailer.send(tailCommand{forget: idle})
	}
}

// advanceTails moves each shard's tail up to the first event of its lanes that is not
// settled. Lanes that are behind, or whose cursor lies before the stored tail, have a
// stored cursor of their own and do not count.
func (d *dispatcher) advanceTails() []outbox.Shard {
	reach := make(map[int]int64, len(d.shards))
	for id, s := range d.shards {
		reach[id] = s.read
	}
	for _, l := range d.awake {
		of := outbox.ShardOf(l.endpoint.ID)
		if cursor := l.cursor.position(); !l.cursor.behind && cursor >= d.shards[of].tail {
			reach[of] = min(reach[of], cursor)
		}
	}
	var moved []outbox.Shard
	for id, s := range d.shards {
		if reach[id] > s.tail {
			s.tail = reach[id]
			moved = append(moved, outbox.Shard{ID: id, Tail: s.tail})
		}
	}
	return moved
}

// releaseDrained finds the leaving shards whose lanes are drained.
func (d *dispatcher) releaseDrained() []outbox.Shard {
	busy := map[int]bool{}
	for _, l := range d.awake {
		if !l.drained() || l.expireAsked {
			busy[outbox.ShardOf(l.endpoint.ID)] = true
		}
	}
	var releasing []outbox.Shard
	for id, s := range d.shards {
		if s.leaving && !s.releasing && !busy[id] && !d.stopping {
			s.releasing = true
			releasing = append(releasing, outbox.Shard{ID: id, Tail: s.tail})
		}
	}
	return releasing
}

func (d *dispatcher) takeSaved(r saveRequest) {
	d.saving = false
	for _, s := range r.release {
		delete(d.shards, s.ID)
		for id, l := range d.lanes {
			if outbox.ShardOf(id) == s.ID {
				d.wakes.set(l, time.Time{})
				d.buffered -= l.sched.counted
				delete(d.lanes, id)
			}
		}
	}
}

// idleAfter is how long the dispatcher keeps a lane that has nothing to remember,
// which takes some kilobytes and a look at each save. To make it again, the tailer
// reads its endpoint, with those of other events.
const idleAfter = 30 * time.Second

// idle says that the lane holds nothing that a new lane would not know.
func (d *dispatcher) idle(l *lane, now time.Time) bool { return !l.sched.inRing && l.idle(now) }

// evict drops lanes that are still idle. A lane whose stored row differs stays until
// that is saved.
func (d *dispatcher) evict(ids []int64, now time.Time) {
	for _, id := range ids {
		l := d.laneOf(id)
		if l == nil {
			continue
		}
		l.sched.evicting = false
		shard := d.shards[outbox.ShardOf(id)]
		if shard == nil || !d.idle(l, now) || l.snapshot(shard.tail, now) != l.sched.saved {
			continue
		}
		d.wakes.set(l, time.Time{})
		d.buffered -= l.sched.counted
		delete(d.lanes, id)
	}
}

// stop makes all lanes leave: they start nothing, and drop what waits.
func (d *dispatcher) stop(now time.Time) {
	d.stopping = true
	d.leaveLanes(now, func(int) bool { return true })
}

// stopped says that every attempt is settled and every lane saved, where that can be.
func (d *dispatcher) stopped(now time.Time) bool {
	if d.inFlight > 0 || d.unsettled > 0 {
		return false
	}
	if d.moved || d.saving {
		return d.moved
	}
	if !d.lastSave {
		d.lastSave = true
		d.save(now)
		return !d.saving
	}
	return true
}

// errShutdown is the cause of the context of running attempts after a stop.
var errShutdown = errors.New("attempt: sender stops")

const (
	drainGrace = 5 * time.Second  // for running attempts, beyond their own limit
	stopGrace  = 10 * time.Second // for settling and saving after that
)

// stopLimits bounds a stop: it first ends running attempts, and then the dispatcher,
// with the rest undone.
type stopLimits struct {
	attempts, all *time.Timer
	attempted     bool
}

func (s *stopLimits) begin(attempt time.Duration, abort context.CancelCauseFunc) {
	s.attempts = time.AfterFunc(attempt+drainGrace, func() { abort(errShutdown) })
	s.all = time.NewTimer(attempt + drainGrace + stopGrace)
}

// done notes that no attempt runs any more: settling and saving then have stopGrace
// from now on.
func (s *stopLimits) done() {
	if s.all != nil && !s.attempted {
		s.attempted = true
		s.all.Reset(stopGrace)
	}
}

func (s *stopLimits) over() <-chan time.Time {
	if s.all == nil {
		return nil
	}
	return s.all.C
}

func (s *stopLimits) end() {
	if s.all != nil {
		s.attempts.Stop()
		s.all.Stop()
	}
}

// noLanes sets the metrics of a sender without lanes.
func (m *metrics) noLanes() {
	for _, state := range outbox.LaneStatuses() {
		m.lanes.WithLabelValues(string(state)).Set(0)
	}
	for i := range warnAfter {
		m.failing.WithLabelValues(strconv.Itoa(i + 1)).Set(0)
	}
}
