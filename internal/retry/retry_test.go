package retry

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestBackoff_DoublesWithJitterUpToItsMaximum(t *testing.T) {
	t.Parallel()
	b := Backoff{Min: time.Second, Max: 5 * time.Second}
	for range 2 {
		for i, want := range []time.Duration{1, 2, 4, 5, 5} {
			if got := b.Next(); got < want*time.Second*8/10 || got > want*time.Second*12/10 {
				t.Errorf("wait %d is %s, want %ds ±20 %%", i+1, got, want)
			}
		}
		b.Reset()
	}
}

// Whoever met an outage last may end without an answer, as a session that
// has lost its lease does.
func TestOutage_IsOverWithTheNextAnswerWhoeverGetsIt(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	core, logs := observer.New(zap.InfoLevel)
	log := zap.New(core)
	o := NewOutage("outbox")
	tail, settle, other := o.Caller(), o.Caller(), o.Caller()
	other.Answered(log)
	tail.Failed(log, "tail", time.Second, refused)
	settle.Failed(log, "settle", time.Second, refused)
	tail.Answered(log) // the other is still failing
	settle.Abandoned(log)
	if n := logs.FilterMessage("outbox available again").Len(); n != 0 {
		t.Errorf("logged %d times before it was over", n)
	}
	for range 3 {
		other.Answered(log)
	}
	tail.Failed(log, "tail", time.Second, refused)
	tail.Answered(log)
	again := logs.FilterMessage("outbox available again").All()
	if len(again) != 2 || logs.FilterMessage("outbox unavailable, retrying").Len() != 2 {
		t.Errorf("logged %d times that it was over, want 2", len(again))
	} else if calls := again[0].ContextMap()["failed_calls"]; calls != int64(2) {
		t.Errorf("%v calls failed, want 2", calls)
	}
}

func TestOutage_IsLoggedOnceAMinuteHoweverOftenItIsMet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		log := zap.New(core)
		c := NewOutage("inbox").Caller()
		for range 125 {
			c.Failed(log, "append", time.Second, errors.New("refused"))
			time.Sleep(time.Second)
		}
		c.Answered(log)
		if n := logs.FilterMessage("inbox unavailable, retrying").Len(); n != 3 {
			t.Errorf("%d lines for an outage of 125 s, want 3", n)
		}
		again := logs.FilterMessage("inbox available again").All()
		if len(again) != 1 || again[0].ContextMap()["duration"] != 125*time.Second {
			t.Errorf("the end is logged as %v, want once, after 125 s", again)
		}
	})
}

func TestReminder_IsDueAtOnceAtTheFirstChangesAndEveryMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := Reminder{Changes: 2}
		lines := func(texts ...string) (n int) {
			for _, text := range texts {
				if r.Due(text) {
					r.Logged(text)
					n++
				}
			}
			return n
		}
		if n := lines("a", "a", "b", "a", "c"); n != 2 {
			t.Errorf("%d lines at first, want the first two texts", n)
		}
		time.Sleep(remindEvery)
		if n := lines("c", "c", "d"); n != 1 {
			t.Errorf("%d lines a minute later, want 1", n)
		}
		r.Reset()
		if n := lines("d", "d"); n != 1 {
			t.Errorf("%d lines for the next error, want 1", n)
		}
	})
}
