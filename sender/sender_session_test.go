package sender

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestSender_ALostLeaseDropsEverythingAndJoinsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, 50*time.Millisecond))
		log.append(events(1, 1, 2000, 2000)...)
		after(300 * time.Millisecond)
		log.Lapse("")
		after(time.Minute)
		r.end()
		if n := len(log.delivered()); n != 2000 {
			t.Errorf("%d of 2000 delivered", n)
		}
	})
}

func TestSender_StartsNothingOnceItsLeaseIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, time.Millisecond))
		log.append(events(1, 1, 10, 10)...)
		after(time.Second)
		log.fault(func() { log.away = errors.New("network is down") })
		after(time.Hour)
		seen := len(r.of(1))
		log.append(events(1, 11, 10, 10)...)
		log.fault(func() { log.away = nil })
		after(time.Minute)
		r.end()
		if seen != 10 {
			t.Errorf("%d attempts while the outbox was away, want none beyond 10", seen)
		}
		wantOnce(t, log, 20)
	})
}

func TestSender_AStopWaitsForRunningAttemptsWithinABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, time.Hour))
		log.append(events(1, 1, 1, 1)...)
		after(time.Second)
		began := time.Now()
		r.end()
		if took := time.Since(began); took > 26*time.Second {
			t.Errorf("stopping took %v", took)
		}
		if log.view().left != 1 || len(log.view().attempts)+len(log.view().retry) > 0 {
			t.Errorf("left %d, attempts %v", log.view().left, log.view().attempts)
		}
	})
}

func TestSender_AStoredTailNeverPassesAnUnsettledEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1), active(33)) // of one shard
		slow := true
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration) {
			if event.ID == 1 && slow {
				slow = false
				return ok, 19 * time.Second
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 20, 20)...)
		log.append(events(33, 21, 100, 100)...)
		after(10 * time.Second) // saved three times
		if tail := log.view().tails[1]; tail > 0 {
			t.Errorf("tail %d while event 1 is in flight", tail)
		}
		log.Lapse("")
		after(time.Minute)
		r.end()
		wantOnce(t, log, 120)
		if tail := log.view().tails[1]; tail != 120 {
			t.Errorf("tail %d at the end", tail)
		}
	})
}

func TestSender_AnOpenBreakerSurvivesARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(refused, 0))
		log.append(events(1, 1, 100, 100)...)
		after(5 * time.Minute)
		r.end()
		until := log.view().lanes[1].OpenUntil
		before := len(r.of(1))
		r.start()
		after(time.Until(until) - time.Second)
		if n := len(r.of(1)); n != before {
			t.Errorf("%d attempts at an open breaker", n-before)
		}
		after(2 * time.Second)
		if n := len(r.of(1)); n != before+1 {
			t.Errorf("%d attempts when it is half-open, want one probe", n-before)
		}
		r.end()
	})
}

func TestSender_WhatIsBufferedIsNotSentOnceTheLeaseIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, time.Second))
		log.append(events(1, 1, 100, 1)...)
		after(time.Second)
		log.fault(func() { log.away = errors.New("network is down") })
		after(time.Minute)
		if n := len(r.of(1)); n < 6 || n > 11 {
			t.Errorf("%d attempts of a second each in a lease of 10 s", n)
		}
		log.fault(func() { log.away = nil })
		after(2 * time.Minute)
		r.end()
		wantOnce(t, log, 100)
	})
}

func TestLease_EndsByWhicheverClockOfThisMachineIsFirst(t *testing.T) {
	now := time.Now()
	l := newLease(now.Add(15 * time.Second))
	for _, c := range []struct {
		name            string
		monotonic, wall time.Duration // since the lease began
		want            bool
	}{
		{"running", 14 * time.Second, 14 * time.Second, true},
		{"over", 15 * time.Second, 15 * time.Second, false},
		{"suspended: the monotonic clock stood still", time.Second, time.Hour, false},
		{"the wall clock was set back", 20 * time.Second, -time.Hour, false},
		{"the wall clock was set back a little", 14 * time.Second, 13 * time.Second, true},
	} {
		if got := l.holdsBy(now.Add(c.monotonic), now.Round(0).Add(c.wall)); got != c.want {
			t.Errorf("%s: holds %v, want %v", c.name, got, c.want)
		}
	}
}

// A second request to release would free a shard that this sender has gained again, and
// whose events it is sending.
func TestSender_AShardIsGivenUpOnceOrTheSessionEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, time.Millisecond))
		log.append(events(1, 1, 10, 10)...)
		after(5 * time.Second)
		log.fault(func() { log.surplus, log.lostRelease = []int{0}, errors.New("the answer was lost") })
		after(time.Minute)
		var asked, left int
		log.fault(func() { asked, left, log.lostRelease = log.givenUp, log.left, nil })
		if asked != 1 || left != 1 {
			t.Errorf("asked %d times to give a shard up, left %d sessions; want one of each", asked, left)
		}
		log.append(events(1, 11, 10, 10)...)
		after(time.Minute)
		r.end()
		wantOnce(t, log, 20)
	})
}

// A former owner had settled events beyond its stored tails. Its successor finds them in
// attempts, for whatever reason a lane reads the event log: here after a feed was
// cleared, with a record in retry and no lane row.
func TestSender_WhatAnEarlierOwnerSettledIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*outbox.Endpoint){
		"a feed from the start":    func(*outbox.Endpoint) {},
		"a feed that began anew":   func(e *outbox.Endpoint) { e.FeedFrom = 2 },
		"a feed cut by retention":  func(e *outbox.Endpoint) { e.ExpireBefore = 2 },
		"strict":                   func(e *outbox.Endpoint) { e.Ordering = outbox.OrderingStrict },
		"no order, and a new feed": func(e *outbox.Endpoint) { e.Ordering, e.FeedFrom = outbox.OrderingNone, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := active(1)
				edit(&e)
				log := newFakeLog(e)
				log.append(apart(events(1, 1, 40, 40))...)
				var settlements []outbox.Settlement
				for id := int64(1); id <= 20; id++ {
					one := outbox.Settlement{Event: log.View().Events[id-1], Disposition: outbox.Delivered,
						Attempt: &outbox.Attempt{Number: 1, Revision: 1, Outcome: string(deliver.Delivered)}}
					if id == 10 {
						one.Disposition, one.RetryAt, one.Attempt.Outcome = outbox.Retry, time.Now(), string(deliver.Retry)
					}
					settlements = append(settlements, one)
				}
				if err := log.settled(t.Context(), settlements...); err != nil {
					t.Fatal(err)
				}
				r := startSender(t, Config{}, log, always(ok, 10*time.Millisecond))
				after(10 * time.Second)
				log.append(apart(events(1, 41, 20, 20))...)
				after(10 * time.Second)
				r.end()
				sent := map[int64]int{}
				for _, a := range r.of(1) {
					sent[a.event.ID]++
				}
				for id := int64(1); id <= 60; id++ {
					want := 1
					if id <= 20 && id != 10 {
						want = 0
					}
					if sent[id] != want {
						t.Errorf("event %d was sent %d times, want %d", id, sent[id], want)
					}
				}
			})
		})
	}
}
