package main

import (
	"errors"
	"testing"
	"time"
)

func TestDemoWait_EndsWithItsDeadlineUnlessAFlakyReceiversBreakerIsOpen(t *testing.T) {
	began := time.Now()
	for name, test := range map[string]struct {
		openUntil   time.Duration // the breaker of a flaky receiver
		interrupted time.Duration // zero for never
		want        time.Duration // until it is over
	}{
		"no breaker":                          {want: verifyWithin},
		"a breaker that closes before":        {openUntil: 50 * time.Second, want: verifyWithin},
		"a breaker for a while":               {openUntil: 100 * time.Second, want: 2 * verifyWithin},
		"a breaker for longer":                {openUntil: 150 * time.Second, want: 3 * verifyWithin},
		"a breaker that never closes":         {openUntil: time.Hour, want: verifyAtMost},
		"interrupted":                         {interrupted: 10 * time.Second, want: 10*time.Second + interruptedWithin},
		"interrupted, and a breaker":          {openUntil: time.Hour, interrupted: 100 * time.Second, want: 100*time.Second + interruptedWithin},
		"interrupted just before it was over": {interrupted: verifyWithin - time.Second, want: verifyWithin - time.Second + interruptedWithin},
	} {
		wait, looks := newDemoWait(began), 0
		flakyOpen := func(at time.Duration) func() (bool, error) {
			return func() (bool, error) { looks++; return at < test.openUntil, nil }
		}
		var at time.Duration
		for ; at < time.Hour; at += time.Second {
			if test.interrupted > 0 && at == test.interrupted {
				wait.interrupt(began.Add(at))
			}
			over, err := wait.over(began.Add(at), flakyOpen(at))
			if err != nil {
				t.Fatal(err)
			}
			if over {
				break
			}
		}
		if at < test.want || at > test.want+15*time.Second {
			t.Errorf("%s: it waits for %s, want %s", name, at, test.want)
		}
		if most := 1 + int(test.want/verifyWithin); looks > most {
			t.Errorf("%s: it asks for the breakers %d times, want at most %d", name, looks, most)
		}
	}
	broken := errors.New("no outbox")
	if _, err := newDemoWait(began).over(began.Add(2*verifyWithin), func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("an outbox that cannot be read: %v, want %v", err, broken)
	}
}
