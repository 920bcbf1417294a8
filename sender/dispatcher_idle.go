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

// noLanes says that this sender has none.
func (m *metrics) noLanes() {
	for _, state := range laneStates {
		m.lanes.WithLabelValues(state).Set(0)
	}
	for i := range warnAfter {
		m.failing.WithLabelValues(strconv.Itoa(i + 1)).Set(0)
	}
}
