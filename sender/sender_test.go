package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"

	"walhook/outbox"
)

// run is a sender on a fake log with scripted endpoints, in a synctest bubble.
type run struct {
	*Sender
	t    *testing.T
	log  *fakeLog
	stop context.CancelFunc
	done chan error

	mu       sync.Mutex
	arrivals []arrival
	running  map[int64]int // by endpoint
	most     map[int64]int
	script   func(e outbox.Endpoint, event outbox.Event) (answer, time.Duration)
}

type arrival struct {
	endpoint outbox.Endpoint
	event    outbox.Event
	at       time.Time
	answer   answer
}

func startSender(t *testing.T, cfg Config, log *fakeLog, script func(outbox.Endpoint, outbox.Event) (answer, time.Duration)) *run {
	t.Helper()
	s, err := newSender(cfg, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Sender: s, t: t, log: log, script: script, running: map[int64]int{}, most: map[int64]int{}}
	s.appended = log.appended
	s.deliver = r.receive
	s.join = func(context.Context) (session, error) {
		log.mu.Lock()
		defer log.mu.Unlock()
		if log.away != nil {
			return nil, log.away
		}
		log.lost, log.held = false, false
		return log, nil
	}
	r.start()
	return r
}

func (r *run) start() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.done = stop, make(chan error, 1)
	go func() { r.done <- r.Run(ctx) }()
}

func (r *run) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

func (r *run) receive(ctx context.Context, e outbox.Endpoint, event outbox.Event, at time.Time) answer {
	r.mu.Lock()
	a, takes := r.script(e, event)
	r.running[e.ID]++
	r.most[e.ID] = max(r.most[e.ID], r.running[e.ID])
	r.mu.Unlock()
	if pause(ctx, takes) != nil {
		a = answer{failure: failShutdown}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[e.ID]--
	r.arrivals = append(r.arrivals, arrival{endpoint: e, event: event, at: time.Now(), answer: a})
	return a
}

func (r *run) of(endpoint int64) (of []arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.arrivals {
		if a.endpoint.ID == endpoint {
			of = append(of, a)
		}
	}
	return of
}

func active(id int64) outbox.Endpoint {
	return outbox.Endpoint{ID: id, Account: fmt.Sprint("account", id), Revision: 1, URL: fmt.Sprint("http://", id), State: outbox.EndpointActive}
}

// events makes n events from id first on, of as many records as records says.
func events(endpoint, first int64, n, records int) []outbox.Event {
	list := make([]outbox.Event, n)
	for i := range list {
		list[i] = outbox.Event{
			ID: first + int64(i), Endpoint: endpoint, Revision: 1, Record: fmt.Sprintf("%d/r%d", endpoint, i%records),
			WebhookID: fmt.Sprint("evt_", first+int64(i)), Body: []byte("{}"), CommittedAt: time.Now(),
		}
	}
	return list
}

var (
	ok      = answer{status: 200}
	failing = answer{status: 500}
)

// after lets time pass, and what it brings about.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func always(a answer, takes time.Duration) func(outbox.Endpoint, outbox.Event) (answer, time.Duration) {
	return func(outbox.Endpoint, outbox.Event) (answer, time.Duration) { return a, takes }
}

func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

func wantOnce(t *testing.T, log *fakeLog, n int) {
	t.Helper()
	delivered := log.delivered()
	if len(delivered) != n {
		t.Errorf("%d events delivered, want %d", len(delivered), n)
	}
	for id, times := range delivered {
		if times != 1 {
			t.Errorf("event %d delivered %d times", id, times)
		}
	}
}

func TestSender_DeliversInOrderWithinARecordAndStopsCleanly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, 10*time.Millisecond))
		log.append(events(1, 1, 1000, 10)...)
		after(10 * time.Second)
		log.append(events(1, 1001, 500, 10)...)
		after(100 * time.Millisecond)
		r.end() // amid deliveries
		before := len(log.delivered())
		if before < 1000 || before == 1500 {
			t.Fatalf("%d delivered before the stop", before)
		}
		r.start()
		after(10 * time.Second)
		r.end()
		wantOnce(t, log, 1500)
		last := map[string]int64{}
		for _, a := range r.of(1) {
			if a.event.ID < last[a.event.Record] {
				t.Fatalf("event %d after %d", a.event.ID, last[a.event.Record])
			}
			last[a.event.Record] = a.event.ID
		}
		if r.most[1] > 10 {
			t.Errorf("%d in flight of 10 records", r.most[1])
		}
		if log.view().left != 2 || log.view().tails[1] != 1500 {
			t.Errorf("left %d times, tail %d", log.view().left, log.view().tails[1])
		}
	})
}

func TestSender_AHangingEndpointHoldsASlotAndNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1), active(2))
		r := startSender(t, Config{MaxInFlight: 8}, log, func(e outbox.Endpoint, _ outbox.Event) (answer, time.Duration) {
			if e.ID == 1 {
				return answer{failure: failTimeoutTotal}, 20 * time.Second
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 500, 500)...)
		log.append(events(2, 501, 500, 500)...)
		after(2 * time.Second)
		if got := len(r.of(2)); got != 500 {
			t.Errorf("the healthy endpoint got %d of 500", got)
		}
		if r.most[1] > 2 {
			t.Errorf("the hanging endpoint held %d slots", r.most[1])
		}
		r.end()
	})
}

func TestSender_ADeadEndpointCostsProbesOnlyAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		dead := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (answer, time.Duration) {
			if dead {
				return answer{failure: failRefused}, time.Millisecond
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 5000, 5000)...)
		after(time.Hour)
		if n := len(r.of(1)); n > 30 {
			t.Errorf("%d attempts in an hour", n)
		}
		if n := len(log.view().retry); n > 10 {
			t.Errorf("%d rows in retry", n)
		}
		if len(log.view().dead) > 0 {
			t.Errorf("probes counted against their events: %d dead letters", len(log.view().dead))
		}
		if l := log.view().lanes[1]; !l.Open || !l.Behind {
			t.Errorf("kept lane %+v", l)
		}
		if got := value(t, r.metrics.lanes.WithLabelValues(laneOpen)) + value(t, r.metrics.lanes.WithLabelValues(laneHalfOpen)); got != 1 {
			t.Errorf("%v lanes open", got)
		}
		r.mu.Lock()
		dead = false
		r.mu.Unlock()
		after(15 * time.Minute)
		r.end()
		wantOnce(t, log, 5000)
	})
}

func TestSender_AFailingEventHoldsBackItsRecordOnlyThroughARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		attempts := 0
		r := startSender(t, Config{}, log, func(_ outbox.Endpoint, e outbox.Event) (answer, time.Duration) {
			if e.ID == 1 {
				if attempts++; attempts < 4 {
					return failing, time.Millisecond
				}
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 100, 5)...) // 1, 6, 11 … share a record
		after(20 * time.Second)
		if n := len(log.delivered()); n != 80 {
			t.Errorf("%d delivered while one fails, want 80", n)
		}
		r.end()
		r.start()
		after(10 * time.Minute)
		r.end()
		wantOnce(t, log, 100)
		last := int64(0)
		for _, a := range r.of(1) {
			if a.event.Record == "1/r0" && a.answer.status == 200 {
				if a.event.ID < last {
					t.Fatalf("event %d after %d", a.event.ID, last)
				}
				last = a.event.ID
			}
		}
		if len(log.view().retry) > 0 || len(log.view().lanes) > 0 {
			t.Errorf("left over: %d retry rows, lanes %v", len(log.view().retry), log.view().lanes)
		}
	})
}

func TestSender_GivesUpAfterTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		schedule := make([]time.Duration, 10)
		for i := range schedule {
			schedule[i] = time.Duration(1+i) * time.Second
		}
		r := startSender(t, Config{RetrySchedule: schedule}, log, func(_ outbox.Endpoint, e outbox.Event) (answer, time.Duration) {
			if e.ID == 1 {
				return answer{status: 404}, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 3, 1)...)
		after(5 * time.Minute)
		r.end()
		if n := len(log.view().attempts[1]); n != 11 {
			t.Errorf("%d attempts, want 11", n)
		}
		if log.view().dead[1] != "4xx" || len(log.view().dead) != 1 {
			t.Errorf("dead letters %v", log.view().dead)
		}
		if got := value(t, r.metrics.deadLetters); got != 1 {
			t.Errorf("walhook_dead_letters_total %v", got)
		}
		wantOnce(t, log, 2)
	})
}

func TestSender_RetryAfterPausesTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		first := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (answer, time.Duration) {
			if first {
				first = false
				return answer{status: 503, retryAfter: "3600"}, 0
			}
			return ok, 0
		})
		began := time.Now()
		log.append(events(1, 1, 50, 50)...)
		after(30 * time.Minute)
		r.end()
		r.start() // the pause survives a restart
		after(time.Hour)
		r.end()
		for i, a := range r.of(1) {
			if i > 0 && a.at.Sub(began) < time.Hour {
				t.Fatalf("attempt %d after %v", i+1, a.at.Sub(began))
			}
		}
		wantOnce(t, log, 50)
	})
}

func TestSender_GoneDisablesAndEnablingDeliversWhatWasHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		gone := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (answer, time.Duration) {
			if gone {
				return answer{status: 410}, time.Millisecond
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
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, event outbox.Event) (answer, time.Duration) {
			switch {
			case e.Revision == 2:
				return ok, 0
			case event.ID == 4:
				return answer{status: 410}, 10 * time.Second
			}
			return answer{failure: failRefused}, 0
		})
		log.append(events(1, 1, 3, 3)...)
		after(time.Second)
		log.append(events(1, 4, 100, 100)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL = 2, "http://new"
		log.set(e)
		after(time.Second)
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
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, 0))
		log.append(events(1, 1, 1, 1)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL = 2, "http://new"
		log.mu.Lock()
		log.endpoints[1] = e // nobody tells of it but the event
		log.mu.Unlock()
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
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, _ outbox.Event) (answer, time.Duration) {
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
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{DisableAfter: time.Hour}, log, always(answer{failure: failRefused}, 0))
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

func TestSender_FaultsOfOurOwnCostTheEndpointNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		down := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (answer, time.Duration) {
			if down {
				return answer{failure: failDNSHere}, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 20, 20)...)
		after(time.Hour)
		if len(log.view().attempts)+len(log.view().retry)+len(log.view().dead) > 0 {
			t.Errorf("attempts %v, retry %v, dead %v", log.view().attempts, log.view().retry, log.view().dead)
		}
		r.mu.Lock()
		down = false
		r.mu.Unlock()
		after(2 * time.Minute)
		r.end()
		wantOnce(t, log, 20)
	})
}

func TestSender_ALostLeaseDropsEverythingAndJoinsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, 50*time.Millisecond))
		log.append(events(1, 1, 2000, 2000)...)
		after(300 * time.Millisecond)
		log.mu.Lock()
		log.lost = true
		log.mu.Unlock()
		after(time.Minute)
		r.end()
		if n := len(log.delivered()); n != 2000 {
			t.Errorf("%d of 2000 delivered", n)
		}
	})
}

func TestSender_StartsNothingOnceItsLeaseIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, time.Millisecond))
		log.append(events(1, 1, 10, 10)...)
		after(time.Second)
		log.mu.Lock()
		log.away = errors.New("network is down")
		log.mu.Unlock()
		after(time.Hour)
		seen := len(r.of(1))
		log.mu.Lock()
		log.events = append(log.events, events(1, 11, 10, 10)...)
		log.away = nil
		log.mu.Unlock()
		after(time.Minute)
		r.end()
		if seen != 10 {
			t.Errorf("%d attempts while the outbox was away, want none beyond 10", seen)
		}
		wantOnce(t, log, 20)
	})
}

func TestSender_AStopWaitsForRunningAttemptsWithinABound(t *testing.T) {
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

func TestSender_AMillionWaitingEventsOnADeadEndpointTakeNoMemoryAndNoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(answer{failure: failRefused}, 0))
		log.append(events(1, 1, 10, 10)...)
		after(time.Second)
		rows := len(log.view().retry)
		log.append(events(1, 11, 100_000, 50_000)...)
		after(5 * time.Second)
		saves := log.view().saves
		after(4 * time.Second)
		if len(log.view().retry) != rows || log.view().saves != saves {
			t.Errorf("%d rows in retry after %d, %d saves after %d", len(log.view().retry), rows, log.view().saves, saves)
		}
		r.end()
	})
}
