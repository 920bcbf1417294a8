package sender

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestSender_TenThousandOpenBreakersDoNotProbeAtOnceAfterARestart(t *testing.T) {
	t.Parallel()
	for _, overdue := range []bool{true, false} {
		t.Run(fmt.Sprint("overdue ", overdue), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const n = 10_000
				log := newFakeLog()
				until := time.Now().Add(time.Second)
				if overdue {
					until = time.Now().Add(-time.Hour)
				}
				var lanes []outbox.LaneState
				for id := int64(1); id <= n; id++ {
					log.set(active(id))
					lanes = append(lanes, outbox.LaneState{Endpoint: id, Revision: 1, Behind: true, Open: true, Opens: 1, OpenUntil: until})
					log.append(events(id, id, 1, 1)...)
				}
				earlier := log.Log.Join("an earlier owner", time.Minute, nil)
				if err := errors.Join(earlier.Save(t.Context(), lanes, nil), earlier.Leave(t.Context())); err != nil {
					t.Fatal(err)
				}
				r := startSender(t, Config{}, log, always(ok, time.Millisecond))
				began := time.Now()
				after(5 * time.Minute)
				r.end()
				perSecond := map[int]int{}
				most := 0
				for _, a := range r.arrivals {
					second := int(a.at.Sub(began) / time.Second)
					perSecond[second]++
					most = max(most, perSecond[second])
				}
				if most > 5*probesPerSecond/2 {
					t.Errorf("%d probes in a second", most)
				}
				wantOnce(t, log, n)
			})
		})
	}
}

func TestSender_StartsSlowlyOnceABreakerCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		dead := false
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if dead {
				return refused, time.Millisecond
			}
			return ok, 500 * time.Millisecond
		})
		log.append(events(1, 1, 300, 300)...)
		after(10 * time.Second)
		if r.most[1] < 30 {
			t.Fatalf("%d in flight at most while all is well", r.most[1])
		}
		r.mu.Lock()
		dead = true
		r.mu.Unlock()
		log.append(events(1, 301, 2000, 2000)...)
		for log.view().lanes[1].Open == false {
			after(time.Second)
		}
		r.mu.Lock()
		dead = false
		clear(r.most)
		r.mu.Unlock()
		for len(r.of(1)) == 0 || r.of(1)[len(r.of(1))-1].result.Outcome != deliver.Delivered {
			after(100 * time.Millisecond)
		}
		// The probe was one; each round may be twice the one before.
		for _, most := range []int{3, 6, 12, 24} {
			if r.mu.Lock(); r.most[1] > most {
				t.Errorf("%d in flight, want at most %d", r.most[1], most)
			}
			r.mu.Unlock()
			after(500 * time.Millisecond)
		}
		after(10 * time.Minute)
		r.end()
		wantOnce(t, log, 2300)
	})
}

func TestSender_AHangingEndpointIsLeftAloneSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(hung, 15*time.Second))
		log.append(events(1, 1, 500, 500)...)
		after(40 * time.Second)
		if !log.view().lanes[1].Open || len(r.of(1)) > 2 || r.most[1] > 1 {
			t.Errorf("after 40 s: %d attempts, %d at once, lane %+v", len(r.of(1)), r.most[1], log.view().lanes[1])
		}
		r.end()
	})
}

func TestSender_AnEndpointThatBeginsToHangGetsNoMoreSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		hangs := false
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if hangs {
				return hung, 15 * time.Second
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 500, 500)...) // opens the window wide
		after(time.Second)
		r.mu.Lock()
		hangs = true
		clear(r.most)
		r.mu.Unlock()
		for id := int64(501); id < 540; id++ { // a few a second
			log.append(apart(events(1, id, 1, 1))...)
			after(300 * time.Millisecond)
		}
		if r.most[1] > 5 {
			t.Errorf("%d slots held by an endpoint that gives nothing back", r.most[1])
		}
		r.mu.Lock()
		hangs = false
		r.mu.Unlock()
		after(time.Hour)
		r.end()
		wantOnce(t, log, 539)
	})
}

func TestSender_EventsThatAnEndpointCannotTakeDoNotKeepItOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(_ outbox.Endpoint, e outbox.Event) (deliver.Result, time.Duration) {
			if e.ID <= 8 {
				return failing, time.Millisecond
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 8, 8)...)
		after(10 * time.Second)
		log.append(apart(events(1, 9, 500, 500))...)
		after(time.Hour)
		if n := len(log.delivered()); n != 500 {
			t.Errorf("%d of 500 good events delivered", n)
		}
		if n := len(log.view().retry); n != 8 {
			t.Errorf("%d in retry, want the 8 that it cannot take", n)
		}
		r.end()
	})
}

func TestSender_OneRecordOfADeadEndpointIsNotParkedForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(refused, time.Millisecond))
		log.append(events(1, 1, 1, 1)...)
		after(30 * time.Minute)
		log.append(events(1, 2, 1000, 1)...)
		after(time.Hour)
		// Open for ten minutes less a fifth at the least, the lane is half-open
		// eight times in that hour at most.
		if n := len(log.view().retry); n > 8*maxEmptyProbeReads {
			t.Errorf("%d rows in retry for one record of a dead endpoint", n)
		}
		r.end()
	})
}

// The dispatcher takes a batch of results at one instant, and lags while it processes it.
// A breaker that opens then must allow its probe at the instant that the lane has, or
// every turn of the dispatcher finds a startable lane that does not start.
func TestDispatcher_TakesOneTurnForAProbeHoweverLateTheBreakerOpened(t *testing.T) {
	t.Parallel()
	for _, lag := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 30 * time.Millisecond, time.Minute} {
		for _, taken := range []bool{false, true} {
			t.Run(fmt.Sprintf("lag %s, taken over %t", lag, taken), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { probesInOneTurn(t, lag, taken) })
			})
		}
	}
}

// probesInOneTurn opens an endpoint's breaker, by failures or as another owner
// left it, and counts the dispatcher's turns until the probe starts.
func probesInOneTurn(t *testing.T, lag time.Duration, takenOver bool) {
	s, err := New(Config{}, newFakeLog(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s.policy.random = middle
	lease := newLease(time.Now().Add(time.Hour))
	s.lease.Store(lease)
	d := newDispatcher(s, lease)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(errShutdown)
	d.attempts, d.abort = ctx, cancel
	s.destination = refusing{}
	defer d.attempted.Wait()
	defer close(d.jobs)
	d.shards[outbox.ShardOf(1)] = &shard{id: outbox.ShardOf(1)}
	d.takeEndpoints([]outbox.Endpoint{active(1)}, time.Now())
	l := d.lanes[1]
	if takenOver {
		now := time.Now()
		time.Sleep(lag)
		l.restore(outbox.LaneState{Endpoint: 1, Revision: 1, Open: true, Opens: 1, OpenUntil: now.Add(2 * time.Minute)}, 0, time.Second, now)
		d.look(l, now)
	}
	for i, e := range events(1, 1, breakerFailures, breakerFailures) {
		if takenOver {
			break
		}
		l.offer(e, d.room(), time.Now())
		d.look(l, time.Now())
		d.startNext(time.Now())
		j := <-d.results
		now := time.Now()
		if i == breakerFailures-1 {
			time.Sleep(lag) // the batch that it is the last of takes so long
		}
		d.takeResults(j, now)
	}
	if l.health.breaker.closed() {
		t.Fatal("the breaker did not open")
	}
	time.Sleep(time.Until(l.health.breaker.until))
	now := time.Now()
	// A retry is due, which is the probe.
	l.acceptRetry(retryQuery{clock: l.retries.clock}, []outbox.Event{{ID: 100, Endpoint: 1, Record: "1/probe", WebhookID: "evt_100"}}, now)
	d.look(l, now)
	turns, inFlight := 0, d.inFlight
	for d.startNext(now) {
		if turns++; turns > 1000 {
			t.Fatalf("%d turns, and no probe: the breaker opens later than the lane says", turns)
		}
	}
	if d.inFlight != inFlight+1 || turns != 1 {
		t.Errorf("%d attempts began in %d turns, want the probe in one", d.inFlight-inFlight, turns)
	}
	if d.inFlight > 0 {
		d.takeResults(<-d.results, time.Now())
	}
	if want := 20 * time.Second; l.health.breaker.open(time.Now()) && time.Until(l.health.breaker.until) != want {
		t.Errorf("open for %v after a failed probe, want %v", time.Until(l.health.breaker.until), want)
	} else if !l.health.breaker.open(time.Now()) {
		t.Error("not open after a failed probe")
	}
}

// refusing is a destination that refuses every event.
type refusing struct{}

func (refusing) Deliver(context.Context, outbox.Endpoint, outbox.Event) deliver.Result {
	return refused
}

func (refusing) DeliverBatch(context.Context, outbox.Endpoint, []outbox.Event) deliver.Result {
	return refused
}
