package sender

import (
	"testing"
	"time"

	"walhook/outbox"
)

// A request to retry now ends a pause and the open time of the breaker once, for a lane
// that lives and for one that another sender continues.
func TestLane_RetriesNowOnceForEachRequest(t *testing.T) {
	t.Parallel()
	now := time.Now()
	half := func() float64 { return .5 }
	e := outbox.Endpoint{ID: 7, Revision: 1, URL: "http://a", State: outbox.EndpointActive, RetryAsked: 3}
	delayed := func() *lane {
		l := newLane(&policy{window: 4, events: 8, random: half}, e)
		l.health.breaker = restoreBreaker(1, now.Add(time.Hour), 0, now, half)
		l.health.pause(now.Add(time.Hour))
		return l
	}
	later := now.Add(time.Minute)
	ended := func(l *lane) bool { return !l.health.gated(later) && !l.health.breaker.open(later) }
	asked := func(n int64) outbox.Endpoint {
		e := e
		e.RetryAsked = n
		return e
	}
	for _, test := range []struct {
		name string
		act  func(*lane)
		want bool
	}{
		{"nobody asked again", func(l *lane) { l.adopt(asked(3), 0, now) }, false},
		{"somebody asked", func(l *lane) { l.adopt(asked(4), 0, now) }, true},
		{"an older row is read late", func(l *lane) { l.adopt(asked(2), 0, now) }, false},
		{"asked by the list of changes", func(l *lane) { l.retryNow(4, now) }, true},
		{"the same request once more", func(l *lane) {
			l.retryNow(4, now)
			l.health.pause(now.Add(time.Hour))
			l.adopt(asked(4), 0, now)
		}, false},
		{"an older row after it", func(l *lane) {
			l.retryNow(4, now)
			l.health.pause(now.Add(time.Hour))
			l.adopt(asked(3), 0, now)
			l.adopt(asked(4), 0, now)
		}, false},
	} {
		l := delayed()
		if test.act(l); ended(l) != test.want {
			t.Errorf("%s: the delays have ended %v, want %v", test.name, ended(l), test.want)
		}
	}

	// The next owner reads retry_asked from the endpoint, and what was seen from the lane.
	for seen, want := range map[int64]bool{2: true, 3: false} {
		l := newLane(&policy{window: 4, events: 8, random: half}, e)
		l.restore(outbox.LaneState{Endpoint: 7, Revision: 1, RetrySeen: seen, PausedUntil: now.Add(time.Hour), Open: true, Opens: 1, OpenUntil: now.Add(time.Hour)}, 0, 0, now)
		if ended(l) != want {
			t.Errorf("restored with %d seen of 3: the delays have ended %v, want %v", seen, ended(l), want)
		}
		if s := l.snapshot(0, now); s.RetrySeen != 3 {
			t.Errorf("restored with %d seen of 3, it saves %d", seen, s.RetrySeen)
		}
	}
}
