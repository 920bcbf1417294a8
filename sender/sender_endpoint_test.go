package sender

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestSender_GoneDisablesAndEnablingDeliversWhatWasHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		gone := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if gone {
				return disables, time.Millisecond
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 200, 200)...)
		after(time.Hour)
		if n := len(r.of(1)); n != 1 {
			t.Errorf("%d attempts at an endpoint that is gone", n)
		}
		e := log.view().endpoints[1]
		if e.State != outbox.EndpointDisabled {
			t.Fatalf("endpoint %+v", e)
		}
		r.mu.Lock()
		gone = false
		r.mu.Unlock()
		e.State, e.Revision = outbox.EndpointActive, e.Revision+1
		log.set(e)
		after(10 * time.Second)
		r.end()
		wantOnce(t, log, 200)
	})
}

func TestSender_ANewURLStartsAfreshAndALate410OfTheOldOneDoesNotTouchIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration) {
			switch {
			case e.Revision == 2:
				return ok, 0
			case event.ID == 4:
				return disables, 10 * time.Second
			}
			return refused, 0
		})
		log.append(events(1, 1, 3, 3)...)
		after(time.Second)
		log.append(events(1, 4, 100, 100)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL = 2, "http://new"
		log.set(e)
		after(time.Second + settleWithin) // the sender looks for changes each second here
		if n := len(log.delivered()); n != 103 {
			t.Errorf("%d of 103 delivered a second after the change", n)
		}
		after(time.Minute)
		r.end()
		wantOnce(t, log, 103)
		if log.view().endpoints[1].State != outbox.EndpointActive {
			t.Errorf("endpoint %+v", log.view().endpoints[1])
		}
	})
}

func TestSender_ANewerRevisionInTheLogIsReadBeforeItsEventIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, 0))
		log.append(events(1, 1, 1, 1)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL = 2, "http://new"
		log.fault(func() { log.unseen = true }) // nobody tells of it but the event
		log.set(e)
		next := events(1, 2, 1, 1)
		next[0].Revision = 2
		log.append(next...)
		after(time.Second)
		r.end()
		if got := r.of(1); len(got) != 2 || got[0].endpoint.URL != "http://1" || got[1].endpoint.URL != "http://new" {
			t.Errorf("arrivals %+v", got)
		}
	})
}

func TestSender_AClearedURLEndsTheFeedAndANewOneStartsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
			if e.Revision == 1 {
				return failing, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 50, 50)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL, e.State, e.FeedFrom = 2, "", outbox.EndpointCleared, 51
		log.set(e)
		after(2 * time.Second)
		if len(log.view().dead) != 50 || len(log.view().retry) != 0 {
			t.Errorf("%d expired, %d in retry; want 50, 0", len(log.view().dead), len(log.view().retry))
		}
		r.end()
		r.start()
		e.Revision, e.URL, e.State, e.FeedFrom = 3, "http://new", outbox.EndpointActive, 51
		log.set(e)
		next := events(1, 51, 10, 10)
		for i := range next {
			next[i].Revision = 3
		}
		log.append(next...)
		after(5 * time.Second)
		r.end()
		wantOnce(t, log, 10)
	})
}

func TestSender_AnEndpointThatHasOnlyFailedForLongIsDisabled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{DisableAfter: time.Hour}, log, always(refused, 0))
		log.append(events(1, 1, 50, 50)...)
		after(55 * time.Minute)
		if log.view().endpoints[1].State != outbox.EndpointActive {
			t.Fatal("disabled too early")
		}
		after(20 * time.Minute)
		if e := log.view().endpoints[1]; e.State != outbox.EndpointDisabled || e.Reason == "" {
			t.Errorf("endpoint %+v", e)
		}
		if len(log.view().dead) > 0 {
			t.Errorf("%d dead letters: held means not lost", len(log.view().dead))
		}
		r.end()
	})
}

// change is what the publisher makes of an account's row.
func (f *fakeLog) change(id int64, edit func(*outbox.Endpoint)) {
	f.Change(id, edit)
}

func (f *fakeLog) newURL(id int64) {
	f.change(id, func(e *outbox.Endpoint) {
		e.URL, e.State, e.Reason = fmt.Sprintf("http://new%d", e.Revision), outbox.EndpointActive, ""
	})
}

func (f *fakeLog) clear(id, next int64) {
	f.change(id, func(e *outbox.Endpoint) {
		e.URL, e.State, e.Reason, e.FeedFrom = "", outbox.EndpointCleared, "cleared", next
	})
}

// apart gives each event a record of its own.
func apart(list []outbox.Event) []outbox.Event {
	for i := range list {
		list[i].Record = fmt.Sprint(list[i].Endpoint, "/e", list[i].ID)
	}
	return list
}

// onlyNew fails at the first URL and delivers at any other.
func onlyNew(first deliver.Result, takes time.Duration) func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
	return func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
		if e.URL == "http://1" {
			return first, takes
		}
		return ok, time.Millisecond
	}
}

func TestSender_ANewURLStartsAfreshWhateverTheOldOneWasLike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		old  deliver.Result
		was  func(fakeView) bool
	}{
		{"an open breaker", refused, func(v fakeView) bool { return v.lanes[1].Open }},
		{"paused for hours", pauses(36000 * time.Second), func(v fakeView) bool { return !v.lanes[1].PausedUntil.IsZero() }},
		{"disabled", disables, func(v fakeView) bool { return v.endpoints[1].State == outbox.EndpointDisabled }},
		{"failing events", rejects, func(v fakeView) bool { return len(v.retry) == 50 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := newFakeLog(active(1))
				r := startSender(t, Config{}, log, onlyNew(c.old, 0))
				log.append(events(1, 1, 50, 50)...)
				after(4 * time.Second)
				if !c.was(log.view()) {
					t.Fatalf("not what the test is about: lane %+v, endpoint %+v, %d in retry", log.view().lanes[1], log.view().endpoints[1], len(log.view().retry))
				}
				log.newURL(1)
				after(3 * time.Second)
				if n := len(log.delivered()); n != 50 {
					t.Errorf("%d of 50 delivered seconds after the change", n)
				}
				after(time.Hour)
				r.end()
				wantOnce(t, log, 50)
				if v := log.view(); len(v.lanes)+len(v.retry)+len(v.dead) > 0 || v.endpoints[1].State != outbox.EndpointActive {
					t.Errorf("left over: lanes %v, %d in retry, dead %v, endpoint %+v", v.lanes, len(v.retry), v.dead, v.endpoints[1])
				}
			})
		})
	}
}

func TestSender_LateAnswersOfTheOldURLDoNotTouchTheNewOne(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]deliver.Result{
		"410": disables, "503 with Retry-After": pauses(86400 * time.Second), "reset": reset, "404": rejects,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := newFakeLog(active(1))
				slowOnes := 0
				r := startSender(t, Config{}, log, func(e outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration) {
					if event.ID > 20 && e.URL == "http://1" {
						slowOnes++
						return late, 10 * time.Second
					}
					return ok, time.Millisecond
				})
				log.append(events(1, 1, 20, 20)...) // opens the window
				after(time.Second)
				log.append(events(1, 21, 20, 20)...)
				after(time.Second)
				if slowOnes < 10 {
					t.Fatalf("%d attempts in flight at the old URL", slowOnes)
				}
				log.newURL(1)
				after(20 * time.Second) // the late answers are here
				log.append(events(1, 41, 20, 20)...)
				after(2 * time.Second)
				if n := len(log.delivered()); n != 60 {
					t.Errorf("%d of 60 delivered: a late answer of the old URL held something back", n)
				}
				r.end()
				wantOnce(t, log, 60)
				if v := log.view(); len(v.lanes) > 0 || v.endpoints[1].State != outbox.EndpointActive {
					t.Errorf("lanes %+v, endpoint %+v", v.lanes, v.endpoints[1])
				}
			})
		})
	}
}

func TestSender_ClearingExpiresWhatWaitsButNotWhatIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(_ outbox.Endpoint, e outbox.Event) (deliver.Result, time.Duration) {
			switch {
			case e.ID <= 10:
				return rejects, 0 // to retry
			case e.ID <= 30:
				return ok, time.Millisecond
			case e.ID == 31:
				return ok, 8 * time.Second // in flight, and arrives
			}
			return failing, 9 * time.Second // in flight, and fails
		})
		log.append(events(1, 1, 10, 10)...)
		log.append(apart(events(1, 11, 20, 20))...)
		after(time.Second)
		log.append(apart(events(1, 31, 40, 40))...)
		after(time.Second)
		inFlight := r.running[1]
		if inFlight < 5 || len(log.view().retry) != 10 {
			t.Fatalf("%d in flight, %d in retry", inFlight, len(log.view().retry))
		}
		log.clear(1, 71)
		after(30 * time.Second)
		attempts := len(r.of(1))
		v := log.view()
		if v.dead[31] != "" || len(v.dead) != 49 || len(v.retry) != 0 {
			t.Errorf("%d dead, %d in retry; event 31 is %q dead; want 49, none, not", len(v.dead), len(v.retry), v.dead[31])
		}
		for id := range v.dead {
			if log.delivered()[id] > 0 {
				t.Errorf("event %d is both dead and delivered", id)
			}
		}
		after(24 * time.Hour)
		if n := len(r.of(1)); n != attempts {
			t.Errorf("%d attempts at an endpoint without a URL", n-attempts)
		}
		r.end()
	})
}

func TestSender_SettingAURLAgainSendsNothingOfTheEarlierFeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration) {
			switch {
			case e.URL != "http://1":
				return ok, time.Millisecond
			case event.ID <= 10:
				return rejects, 0
			}
			return failing, 10 * time.Second
		})
		log.append(events(1, 1, 10, 10)...)
		after(time.Second)
		log.append(apart(events(1, 11, 30, 30))...)
		after(time.Second)
		log.clear(1, 41) // with rows in retry and attempts in flight
		after(time.Second)
		log.newURL(1) // before those have ended
		next := events(1, 41, 20, 20)
		for i := range next {
			next[i].Revision = 3
		}
		log.append(next...)
		after(time.Minute)
		r.end()
		r.start()
		after(24 * time.Hour)
		r.end()
		wantOnce(t, log, 20)
		for _, a := range r.of(1) {
			if a.endpoint.URL != "http://1" && a.event.ID <= 40 {
				t.Errorf("event %d of the earlier feed went to the new URL", a.event.ID)
			}
		}
		if v := log.view(); len(v.dead) != 40 || len(v.retry) != 0 {
			t.Errorf("%d dead, %d in retry; want the 40 of the earlier feed", len(v.dead), len(v.retry))
		}
	})
}

func TestSender_EndpointsThatOnlyChangedCostNoLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const idle = 10_000
		log := newFakeLog()
		r := startSender(t, Config{}, log, always(ok, 0))
		after(time.Second)
		for id := int64(1); id <= idle; id++ {
			log.set(active(id))
		}
		after(saveEvery) // lanes are counted at each save, before those that rest are let go of
		if n := value(t, r.metrics.lanes.WithLabelValues(string(outbox.LaneLive))); n != 0 {
			t.Errorf("%g lanes for %d endpoints that only changed", n, idle)
		}
		log.append(events(7, 1, 1, 1)...)
		after(saveEvery)
		if n := value(t, r.metrics.lanes.WithLabelValues(string(outbox.LaneLive))); n != 1 {
			t.Errorf("%g lanes for one endpoint with an event and %d that only changed", n, idle-1)
		}
		r.end()
		wantOnce(t, log, 1)
	})
}

// The tailer reads the endpoint, then it changes, and the change is noticed before
// the tailer's batch is taken.
func TestDispatcher_ABatchReadBeforeAChangeDoesNotSendToTheOldURL(t *testing.T) {
	s := quietSender(t)
	d := newDispatcher(s, newLease(time.Now().Add(time.Hour)))
	now := time.Now()
	of := outbox.ShardOf(1)
	d.shards[of] = &shard{id: of}
	newer := active(1)
	newer.Revision, newer.URL = 2, "http://new"
	d.takeChanged([]outbox.EndpointRevision{{ID: 1, Revision: 2}}, now)
	d.takeBatch(tailBatch{shards: []int{of}, upto: 1, events: events(1, 1, 1, 1), endpoints: []outbox.Endpoint{active(1)}}, now)
	l := d.laneOf(1)
	if l == nil || l.startable(now) || d.readQueue.len() != 1 {
		t.Fatalf("lane %+v, %d readQueue; want one that waits for its endpoint", l, d.readQueue.len())
	}
	ask := d.readQueue.pop()
	ask.found = []outbox.Endpoint{newer}
	d.reading++
	d.takeAnswer(ask, now)
	if j, ok := l.start(now); !ok || j.endpoint.URL != "http://new" {
		t.Errorf("job %+v, %v", j.endpoint, ok)
	}
}

func quietSender(t *testing.T) *Sender {
	t.Helper()
	s, err := New(Config{}, newFakeLog(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
