package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestSender_DeliversInOrderWithinARecordAndStopsCleanly(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1), active(2))
		r := startSender(t, Config{MaxInFlight: 8}, log, func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
			if e.ID == 1 {
				return hung, 20 * time.Second
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		dead := true
		r := startSender(t, Config{RetrySchedule: []time.Duration{time.Second, time.Second}}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if dead {
				return refused, time.Millisecond
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
		if got := value(t, r.metrics.lanes.WithLabelValues(string(outbox.LaneOpen))) + value(t, r.metrics.lanes.WithLabelValues(string(outbox.LaneHalfOpen))); got != 1 {
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		attempts := 0
		r := startSender(t, Config{}, log, func(_ outbox.Endpoint, e outbox.Event) (deliver.Result, time.Duration) {
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
			if a.event.Record == "1/r0" && a.result.Outcome == deliver.Delivered {
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		schedule := make([]time.Duration, 10)
		for i := range schedule {
			schedule[i] = time.Duration(1+i) * time.Second
		}
		r := startSender(t, Config{RetrySchedule: schedule}, log, func(_ outbox.Endpoint, e outbox.Event) (deliver.Result, time.Duration) {
			if e.ID == 1 {
				return rejects, 0
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
		wantOnce(t, log, 2)
	})
}

func TestSender_RetryAfterPausesTheEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		first := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if first {
				first = false
				return pauses(3600 * time.Second), 0
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

func TestSender_FaultsOfOurOwnCostTheEndpointNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		down := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if down {
				return ownFault, 0
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

func TestSender_AMillionWaitingEventsOnADeadEndpointTakeNoMemoryAndNoWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(refused, 0))
		log.append(events(1, 1, 10, 10)...)
		after(time.Second)
		rows := len(log.view().retry)
		log.append(events(1, 11, 100_000, 50_000)...)
		after(3 * time.Second)
		saves := log.view().saves
		after(3 * time.Second) // before the first probe
		if len(log.view().retry) != rows || log.view().saves != saves {
			t.Errorf("%d rows in retry after %d, %d saves after %d", len(log.view().retry), rows, log.view().saves, saves)
		}
		r.end()
	})
}
