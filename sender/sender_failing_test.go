package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestSender_WarnsInStagesBeforeItDisables(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1), active(2))
		lines, seen := observer.New(zapcore.WarnLevel)
		r := startLogged(t, Config{DisableAfter: 100 * time.Hour}, log, zap.New(lines), func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
			if e.ID == 1 {
				return refused, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 50, 50)...)
		log.append(events(2, 51, 50, 50)...)
		for _, c := range []struct {
			at    time.Duration
			stage int
		}{{19, 0}, {21, 1}, {59, 1}, {61, 2}, {79, 2}, {81, 3}, {99, 3}} {
			began := log.view().lanes[1].FailingSince
			if began.IsZero() {
				began = time.Now()
			}
			after(time.Until(began.Add(c.at * time.Hour)))
			if n := seen.FilterMessage("endpoint failing continuously").Len(); n != c.stage {
				t.Errorf("after %d h: %d warnings, want %d", c.at, n, c.stage)
			}
			for i, name := range []string{"1", "2", "3"} {
				want := 0.
				if i+1 == c.stage {
					want = 1
				}
				if got := value(t, r.metrics.failing.WithLabelValues(name)); got != want {
					t.Errorf("after %d h: walhook_endpoints_failing{stage=%q} %v, want %v", c.at, name, got, want)
				}
			}
			if c.at == 61 { // told once, whoever owns the lane
				r.end()
				r.start()
			}
		}
		if e := log.view().endpoints[1]; e.State != outbox.EndpointActive {
			t.Fatalf("disabled too early: %+v", e)
		}
		after(2 * time.Hour)
		if e := log.view().endpoints[1]; e.State != outbox.EndpointDisabled || e.Reason == "" {
			t.Errorf("endpoint %+v", e)
		}
		if got := value(t, r.metrics.disabled.WithLabelValues(disabledFailing)); got != 1 {
			t.Errorf("walhook_endpoints_disabled_total{reason=failing} %v", got)
		}
		if got := value(t, r.metrics.failing.WithLabelValues("3")); got != 0 {
			t.Errorf("%v endpoints failing, and disabled", got)
		}
		if seen.FilterMessage("endpoint disabled").Len() != 1 {
			t.Error("no line, or several, that it was disabled")
		}
		r.end()
	})
}

func TestSender_ASuccessEndsTheWarning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		dead := true
		r := startSender(t, Config{DisableAfter: 10 * time.Hour}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if dead {
				return refused, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 50, 50)...)
		after(9 * time.Hour)
		r.mu.Lock()
		dead = false
		r.mu.Unlock()
		after(time.Hour)
		if got := value(t, r.metrics.failing.WithLabelValues("3")); got != 0 || len(log.view().lanes) > 0 {
			t.Errorf("walhook_endpoints_failing %v, lanes %v", got, log.view().lanes)
		}
		r.mu.Lock()
		dead = true
		r.mu.Unlock()
		log.append(events(1, 51, 50, 50)...)
		after(9 * time.Hour)
		r.end()
		if e := log.view().endpoints[1]; e.State != outbox.EndpointActive {
			t.Errorf("disabled, counting from before the success: %+v", e)
		}
	})
}

func TestSender_TwoFailuresWithAQuietWeekBetweenDisableNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{RetrySchedule: []time.Duration{time.Second}}, log, always(rejects, 0))
		log.append(events(1, 1, 1, 1)...)
		after(7 * 24 * time.Hour)
		log.append(events(1, 2, 1, 1)...)
		after(time.Hour)
		r.end()
		if e := log.view().endpoints[1]; e.State != outbox.EndpointActive {
			t.Errorf("endpoint %+v", e)
		}
	})
}

func TestSender_EvictsIdleLanesAndMakesThemAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		log := newFakeLog()
		for id := int64(1); id <= n; id++ {
			log.set(active(id))
		}
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
			if e.ID == 7 {
				return refused, 0 // has something to remember
			}
			return ok, time.Millisecond
		})
		lanes := func() (sum float64) {
			for _, state := range outbox.LaneStatuses() {
				sum += value(t, r.metrics.lanes.WithLabelValues(string(state)))
			}
			return sum
		}
		id := int64(1)
		for round := range 3 {
			for endpoint := int64(1); endpoint <= n; endpoint++ {
				log.append(events(endpoint, id, 1, 1)...)
				id++
			}
			after(10 * time.Second)
			if got := lanes(); got != n {
				t.Errorf("round %d: %v lanes while they are in use, want %d", round, got, n)
			}
			after(idleAfter + time.Minute)
			if got := lanes(); got != 1 {
				t.Errorf("round %d: %v lanes are kept, want the failing one", round, got)
			}
		}
		// Events keep coming just as lanes go.
		for range 200 {
			log.append(events(9, id, 1, 1)...)
			id++
			after(idleAfter/100 + 3*time.Second)
		}
		log.append(events(9, id, 1, 1)...)
		after(idleAfter - 2*time.Second)
		for range 20 {
			id++
			log.append(events(9, id, 1, 1)...)
			after(500 * time.Millisecond)
		}
		r.end()
		wantOnce(t, log, int(id)-3)
	})
}

// An event that is too large for a request affects neither other events nor the endpoint.
func TestSender_AnEventWhoseRequestIsTooLongIsADeadLetterAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(_ outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration) {
			if event.ID%2 == 0 {
				return tooLarge, 0
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 100, 10)...)
		after(time.Second)
		if dead, delivered := len(log.view().dead), len(log.delivered()); dead != 50 || delivered != 50 {
			t.Errorf("%d dead letters and %d delivered, want 50 of each", dead, delivered)
		}
		if n := len(r.of(1)); n != 100 {
			t.Errorf("%d attempts for 100 events", n)
		}
		if n := len(log.view().retry); n > 0 {
			t.Errorf("%d rows in retry", n)
		}
		if lane := log.view().lanes[1]; lane.Open || !lane.FailingSince.IsZero() {
			t.Errorf("the endpoint is blamed: %+v", lane)
		}
		r.end()
	})
}
