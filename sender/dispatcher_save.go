package sender

import (
	"strconv"
	"time"

	"walhook/outbox"
)

// save tells of all lanes, lets go of those that are idle for long, and hands
// over what has changed since the last time. It goes through all lanes, and so
// holds up everything else: most of them rest, and cost a look at one field.
func (d *dispatcher) save(now time.Time) {
	d.survey(now)
	if d.saving {
		return
	}
	r := saveRequest{tails: d.advanceTails()}
	for _, l := range d.awake {
		if s := l.snapshot(d.shards[outbox.ShardOf(l.endpoint.ID)].tail, now); s != l.saved {
			l.saved = s
			r.lanes = append(r.lanes, s)
		}
		l.rests = l.endpoint.State == outbox.EndpointActive && l.idle(now)
	}
	r.giveUp = d.part()
	if len(r.lanes)+len(r.tails)+len(r.giveUp) > 0 {
		d.saving = true
		d.saves <- r
	}
}

// survey finds the lanes that are awake, counts all, and asks the tailer to
// forget the endpoints of those that are idle for long. Once it has, whatever it
// hands on later brings the endpoint along, and the lane may go.
func (d *dispatcher) survey(now time.Time) {
	clear(d.awake)
	d.awake = d.awake[:0]
	states, held := map[string]int{}, map[string]int{}
	failing := make([]int, len(warnAfter)+1)
	var idle []int64
	for id, l := range d.lanes {
		if !l.rests {
			d.awake = append(d.awake, l)
			states[l.state(now)]++
			if l.endpoint.State == outbox.EndpointActive {
				failing[l.stage(now)]++
			}
			if reason := l.held(); reason != "" {
				held[reason]++
			}
		}
		if !l.evicting && now.Sub(l.usedAt) >= idleAfter && (l.rests || l.idle(now)) {
			l.evicting = true
			idle = append(idle, id)
		}
	}
	states[laneLive] += len(d.lanes) - len(d.awake)
	for _, state := range laneStates {
		d.sender.metrics.lanes.WithLabelValues(state).Set(float64(states[state]))
	}
	for _, reason := range heldReasons() {
		d.sender.metrics.held.WithLabelValues(reason).Set(float64(held[reason]))
	}
	for i := range warnAfter {
		d.sender.metrics.failing.WithLabelValues(strconv.Itoa(i + 1)).Set(float64(failing[i+1]))
	}
	if len(idle) > 0 {
		d.tailer.order(tailOrder{forget: idle})
	}
}

// advanceTails moves each shard's tail up to the first event of a lane that is
// not settled. Lanes that are behind, or whose cursor lies before the tail
// already stored, keep a cursor of their own and do not count.
func (d *dispatcher) advanceTails() []outbox.Shard {
	reach := make(map[int]int64, len(d.shards))
	for id, s := range d.shards {
		reach[id] = s.read
	}
	for _, l := range d.awake {
		of := outbox.ShardOf(l.endpoint.ID)
		if cursor := l.cursor(); !l.behind && cursor >= d.shards[of].tail {
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

// part finds the leaving shards whose lanes are drained.
func (d *dispatcher) part() []outbox.Shard {
	busy := map[int]bool{}
	for _, l := range d.awake {
		if !l.drained() || l.expireAsked {
			busy[outbox.ShardOf(l.endpoint.ID)] = true
		}
	}
	var parting []outbox.Shard
	for id, s := range d.shards {
		if s.leaving && !s.parting && !busy[id] && !d.stopping {
			s.parting = true
			parting = append(parting, outbox.Shard{ID: id, Tail: s.tail})
		}
	}
	return parting
}
