package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// settlements is how often the log was asked to settle since the last call.
func (f *fakeLog) settlementsSince() (n int) {
	f.fault(func() { n, f.settlements = f.settlements, 0 })
	return n
}

// At an ordinary rate what was delivered is settled a few times a second and not once
// per event, and no event waits for that: not even the next one of its record.
func TestSettle_WhatIsDeliveredGathersAndDelaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1), active(2))
		r := startSender(t, Config{}, log, always(ok, time.Millisecond))
		after(10 * time.Second)
		log.settlementsSince()
		for i := range int64(1000) { // one record each: each event waits for the one before
			log.append(events(1+i%2, 1+i, 1, 1)...)
			after(time.Millisecond)
		}
		after(time.Second)
		if n := log.settlementsSince(); n > 60 || n < 20 {
			t.Errorf("1,000 events in a second were settled in %d transactions", n)
		}
		for _, endpoint := range []int64{1, 2} {
			for i, a := range r.of(endpoint) {
				if late := a.at.Sub(a.event.CommittedAt); late > 10*time.Millisecond {
					t.Fatalf("event %d arrived after %s", i, late)
				}
			}
		}
		wantOnce(t, log, 1000)
		r.end()
	})
}

// What something depends on is settled at once: a failure, a stop, little room for
// more.
func TestSettle_WhatOthersWaitForIsSettledAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1), active(2))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
			if e.ID == 1 {
				return rejects, time.Millisecond
			}
			return ok, time.Millisecond
		})
		after(10 * time.Second)
		log.append(events(1, 1, 1, 1)...)
		after(2 * time.Millisecond)
		if len(log.view().retry) != 1 {
			t.Error("a failed attempt is not settled after 1 ms")
		}
		log.append(events(2, 2, 1, 1)...)
		after(2 * time.Millisecond)
		if len(log.delivered()) != 0 {
			t.Error("one delivered event was settled by itself at once")
		}
		began := time.Now()
		r.end()
		if took := time.Since(began); took > 5*time.Millisecond || len(log.delivered()) != 1 {
			t.Errorf("the stop took %s, and %d are settled", took, len(log.delivered()))
		}
	})
	synctest.Test(t, func(t *testing.T) { // a sender that may have few attempts unsettled
		log := newFakeLog(active(1))
		r := startSender(t, Config{MaxInFlight: 2}, log, always(ok, time.Millisecond))
		log.append(events(1, 1, 1000, 1000)...)
		after(2 * time.Second)
		if n := len(log.delivered()); n != 1000 {
			t.Errorf("%d of 1,000 were delivered in two seconds: settling holds them up", n)
		}
		r.end()
	})
}
