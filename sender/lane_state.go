package sender

import (
	"time"

	"walhook/outbox"
)

// restore continues a lane that another owner, or an earlier run, left. Above
// horizon nobody has settled anything. Probes of open breakers are spread over
// a time at least as long as spread.
func (l *lane) restore(s outbox.LaneState, horizon int64, spread time.Duration, now time.Time) {
	l.behind, l.readTo, l.horizon = s.Behind, s.Cursor, horizon
	if s.Behind {
		l.missed = max(horizon, s.Cursor)
	}
	if s.Revision < l.endpoint.Revision {
		return // a newer endpoint starts afresh
	}
	if s.Open {
		l.breaker = restoreBreaker(s.Opens, s.OpenUntil, spread, now, l.random)
	}
	l.pausedUntil, l.failingSince, l.lastReason = s.PausedUntil, s.FailingSince, s.LastReason
	l.failedAt, l.warned = now, l.stage(now)
	l.heldSince, l.heldReason = s.HeldSince, s.HeldReason
}

// snapshot is what the next owner needs. tail is the shard's tail as it is, or
// will be, stored: a lane whose cursor lies before it is behind for whoever
// comes next, even when it follows the tail in memory.
func (l *lane) snapshot(tail int64, now time.Time) outbox.LaneState {
	s := outbox.LaneState{Endpoint: l.endpoint.ID, Revision: l.endpoint.Revision, FailingSince: l.failingSince, Stage: l.warned, LastReason: l.lastReason,
		HeldSince: l.heldSince, HeldReason: l.heldReason}
	if cursor := l.cursor(); l.behind || cursor < tail {
		s.Behind, s.Cursor = true, cursor
	}
	if !l.breaker.closed() {
		s.Open, s.OpenUntil, s.Opens = true, l.breaker.until, l.breaker.opens
	}
	if now.Before(l.pausedUntil) {
		s.PausedUntil = l.pausedUntil
	}
	return s
}

// adopt takes the endpoint as it stands now. A revision that is not newer says
// nothing, unless what is stored of it could not be read, or cannot any more. What was delivered to, or answered by, an old URL does not bind the
// new one.
func (l *lane) adopt(e outbox.Endpoint, tail int64, now time.Time) {
	if e.Revision < l.endpoint.Revision && !l.endpoint.Unreadable ||
		e.Revision == l.endpoint.Revision && e.Unreadable == l.endpoint.Unreadable {
		return
	}
	old, rate := l.endpoint, l.rate()
	l.endpoint = e
	if l.rate() != rate {
		l.limit = rateLimit{}
	}
	if e.SendFrom() > old.SendFrom() || e.State == outbox.EndpointCleared {
		l.expireFrom(tail)
	}
	if e.URL != old.URL || e.FeedFrom > old.FeedFrom || old.State != outbox.EndpointActive && e.State == outbox.EndpointActive {
		l.generation++
		l.breaker = newBreaker(l.random)
		l.pausedUntil, l.heldUntil, l.failingSince, l.failedAt, l.lastReason = time.Time{}, time.Time{}, time.Time{}, time.Time{}, ""
		l.window, l.probes, l.barren, l.warned, l.retryAll = 1, 0, 0, 0, true
		l.notHeld()
	}
	if e.Ordering != old.Ordering {
		l.shed(now) // and is read again, to wait in another way
		l.retryAll = true
	}
	if !l.buffers(now) {
		l.shed(now)
	}
}

// owesExpiry says that an earlier owner may have left something to expire.
func (l *lane) owesExpiry() bool {
	from := l.endpoint.SendFrom()
	return l.endpoint.State == outbox.EndpointCleared || from > 0 && (l.behind && l.readTo < from-1 || l.blocked > 0)
}

// expireFrom asks for an expiry of what the earlier feed left, or is past
// retention, in the log as well as in retry.
func (l *lane) expireFrom(tail int64) {
	l.expiring = true
	if !l.behind {
		l.behind, l.readTo = true, tail
		l.missed = max(l.missed, tail)
	}
}

// wantExpire says from which cursor on to expire. It waits until nothing of
// the lane is on its way, so that no event is both delivered and expired.
func (l *lane) wantExpire() (int64, bool) {
	if !l.expiring || l.expireAsked || l.leaving || l.reading || l.readingRetries || !l.drained() {
		return 0, false
	}
	l.expireAsked = true
	return l.cursor(), true
}

// expired takes the outbox's word that everything before from is dead.
func (l *lane) expired(from int64) {
	l.expireAsked = false
	if from < l.endpoint.SendFrom() {
		return // the feed ended once more meanwhile
	}
	l.expiring, l.retryAll = false, true
	if l.behind {
		l.readTo = max(l.readTo, from-1)
		if l.readTo >= l.missed {
			l.follow()
		}
	}
}

// The states of a lane, as the metric and people call them.
const (
	laneLive     = "live"
	laneBehind   = "behind"
	lanePaused   = "paused"
	laneOpen     = "open"
	laneHalfOpen = "half_open"
	laneHeld     = "held" // the endpoint is not active
)

var laneStates = []string{laneLive, laneBehind, lanePaused, laneOpen, laneHalfOpen, laneHeld}

func (l *lane) state(now time.Time) string {
	switch {
	case l.endpoint.State != outbox.EndpointActive:
		return laneHeld
	case l.breaker.open(now):
		return laneOpen
	case !l.breaker.closed():
		return laneHalfOpen
	case now.Before(l.pausedUntil):
		return lanePaused
	case l.behind:
		return laneBehind
	}
	return laneLive
}

// held is why nothing can be sent until somebody on this side acts, as
// walhook_lanes_held names it; "" for no such reason.
func (l *lane) held() string {
	switch {
	case l.endpoint.Unreadable:
		return heldUnusable
	case l.endpoint.State != outbox.EndpointActive:
		return ""
	}
	return l.heldReason
}

// wake is when the lane is worth looking at again although nothing happens to
// it; zero for never.
func (l *lane) wake(now time.Time) time.Time {
	if l.endpoint.State != outbox.EndpointActive || l.leaving {
		return time.Time{}
	}
	gate := now
	for _, until := range []time.Time{l.pausedUntil, l.heldUntil, l.breaker.until} {
		if until.After(gate) {
			gate = until
		}
	}
	switch {
	case gate.After(now):
		return gate
	case l.waits() && l.limit.holds(l.rate(), now):
		return earliest(l.limit.next, toCome(l.retryAt, now))
	}
	return toCome(l.retryAt, now)
}

// toCome is an instant that is still to come; zero when it is over.
func toCome(at, now time.Time) time.Time {
	if at.After(now) {
		return at
	}
	return time.Time{}
}
