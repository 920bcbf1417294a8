package sender

import (
	"testing"
	"time"
)

// notifiedLog is a log whose appends by other processes are signalled for a while.
type notifiedLog struct {
	*fakeLog
	until time.Time
}

func (l *notifiedLog) NotifiedUntil() time.Time { return l.until }

// A sender polls seldom only as long as it may rely on notifications.
func TestTailer_PollsOftenWithoutNotifications(t *testing.T) {
	t.Parallel()
	const often, rare = 100 * time.Millisecond, time.Second
	for _, c := range []struct {
		name        string
		notified    time.Duration // from now on
		least, most time.Duration
	}{
		{"never notified", -time.Hour, often, often},
		{"silent for long", -time.Millisecond, often, often},
		{"for a moment", often / 2, often, often},
		{"until before the next rare poll", rare / 2, often, rare / 2},
		{"for longer", time.Hour, rare, rare},
	} {
		log := &notifiedLog{fakeLog: &fakeLog{}, until: time.Now().Add(c.notified)}
		tailer := &tailer{sender: &Sender{events: log, tailPoll: often, rarePoll: rare}}
		if got := tailer.pollIn(); got < c.least || got > c.most {
			t.Errorf("%s: looks in %s, want %s to %s", c.name, got, c.least, c.most)
		}
	}
}
