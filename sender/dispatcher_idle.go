package sender

import (
	"strconv"
	"time"

	"walhook/outbox"
)

// idleAfter is how long a lane that has nothing to remember is kept: some
// kilobytes, and a look at each save. To make it anew its endpoint is read, with
// those of the other events of a stretch of the log.
const idleAfter = 30 * time.Second

// idle says that the lane could be made anew without anybody noticing.
func (l *lane) idle(now time.Time) bool {
	return !l.asked && !l.behind && !l.expiring && l.blocked == 0 && len(l.records) == 0 && len(l.ofRetry) == 0 &&
		l.drained() && !l.reading && !l.readingRetries && !l.inRing && l.ledger.len() == 0 &&
		l.breaker.closed() && len(l.breaker.failing) == 0 && l.failingSince.IsZero() && l.retryAt.IsZero() && !l.retryAll &&
		!now.Before(l.pausedUntil) && !now.Before(l.heldUntil)
}

// letGo asks the tailer to forget endpoints whose lanes are idle for long. Once
// it has, whatever it hands on later brings the endpoint along, and the lane
// may go.
func (d *dispatcher) letGo(now time.Time) {
	var ids []int64
	for id, l := range d.lanes {
		if !l.evicting && now.Sub(l.usedAt) >= idleAfter && l.idle(now) {
			l.evicting = true
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		d.tailer.order(tailOrder{forget: ids})
	}
}

// evict lets go of lanes that are still idle. A lane whose stored row is to
// go first stays until then.
func (d *dispatcher) evict(ids []int64, now time.Time) {
	for _, id := range ids {
		l := d.laneOf(id)
		if l == nil {
			continue
		}
		l.evicting = false
		shard := d.shards[outbox.ShardOf(id)]
		if shard == nil || !l.idle(now) || l.snapshot(shard.tail, now) != l.saved {
			continue
		}
		d.wakes.set(l, time.Time{})
		d.buffered -= l.counted
		delete(d.lanes, id)
	}
}

func (d *dispatcher) countLanes(now time.Time) {
	states := map[string]int{}
	failing := make([]int, len(warnAfter)+1)
	for _, l := range d.lanes {
		states[l.state(now)]++
		if l.endpoint.State == outbox.EndpointActive {
			failing[l.stage(now)]++
		}
	}
	for _, state := range laneStates {
		d.sender.metrics.lanes.WithLabelValues(state).Set(float64(states[state]))
	}
	for i := range warnAfter {
		d.sender.metrics.failing.WithLabelValues(strconv.Itoa(i + 1)).Set(float64(failing[i+1]))
	}
}

// noLanes says that this sender has none.
func (m *metrics) noLanes() {
	for _, state := range laneStates {
		m.lanes.WithLabelValues(state).Set(0)
	}
	for i := range warnAfter {
		m.failing.WithLabelValues(strconv.Itoa(i + 1)).Set(0)
	}
}
