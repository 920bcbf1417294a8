package admin

import (
	"testing"
	"time"

	"walhook/outbox"
)

func TestEndpointInfo_AnOlderRevisionsBreakerAndPauseDoNotNameTheLane(t *testing.T) {
	t.Parallel()
	now := time.Now()
	lane := outbox.LaneState{Revision: 3, Open: true, OpenUntil: now.Add(time.Minute), PausedUntil: now.Add(time.Hour), Behind: true}
	for _, c := range []struct {
		name     string
		revision int64
		at       time.Duration
		closed   bool
		want     outbox.LaneStatus
	}{
		{"as it stands", 3, 0, false, outbox.LaneOpen},
		{"at the end of the open time", 3, time.Minute, false, outbox.LaneHalfOpen},
		{"without the breaker", 3, 0, true, outbox.LanePaused},
		{"at the end of the pause", 3, time.Hour, true, outbox.LaneBehind},
		{"a newer URL", 4, 0, false, outbox.LaneBehind},
	} {
		e := EndpointInfo{State: outbox.EndpointActive, Revision: c.revision, Lane: lane}
		e.Lane.Open = !c.closed
		if got := e.LaneStatus(now.Add(c.at)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
