package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func ordered(id int64, ordering outbox.Ordering) outbox.Endpoint {
	e := active(id)
	e.Ordering = ordering
	return e
}

func TestSender_WithoutAnOrderAFailingEventHoldsBackNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(ordered(1, outbox.OrderingNone))
		failed := 0
		r := startSender(t, Config{}, log, func(_ outbox.Endpoint, e outbox.Event) (deliver.Result, time.Duration) {
			if e.ID == 1 && failed < 3 {
				failed++
				return failing, time.Millisecond
			}
			return ok, time.Second
		})
		log.append(events(1, 1, 100, 1)...) // all of one record
		after(20 * time.Second)
		if n := len(log.delivered()); n != 99 {
			t.Errorf("%d delivered while one fails, want 99", n)
		}
		if n := len(log.view().retry); n != 1 {
			t.Errorf("%d rows in retry, want that of the failing one", n)
		}
		if r.most[1] < 10 {
			t.Errorf("%d of a record in flight at most", r.most[1])
		}
		r.end()
		r.start()
		after(10 * time.Minute)
		r.end()
		wantOnce(t, log, 100)
	})
}

func TestSender_WithoutAnOrderEachEventKeepsItsOwnRetryTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(ordered(1, outbox.OrderingNone))
		attempts := map[int64]int{}
		r := startSender(t, Config{RetrySchedule: []time.Duration{5 * time.Second, time.Hour}}, log, func(_ outbox.Endpoint, e outbox.Event) (deliver.Result, time.Duration) {
			if attempts[e.ID]++; attempts[e.ID] < 2 || e.ID == 1 && attempts[e.ID] < 3 {
				return failing, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 1, 1)...)
		after(10 * time.Second) // event 1 is due in an hour
		log.append(events(1, 2, 1, 1)...)
		after(10 * time.Second)
		if got := log.delivered(); got[2] != 1 {
			t.Errorf("delivered %v, want event 2 while event 1 of its record waits", got)
		}
		after(2 * time.Hour)
		r.end()
		wantOnce(t, log, 2)
	})
}

func TestSender_WithStrictOrderAFailingEventHoldsBackTheEndpointThroughARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(ordered(1, outbox.OrderingStrict), active(2))
		failed := 0
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration) {
			if event.ID == 40 && failed < 5 {
				failed++
				return failing, time.Millisecond
			}
			return ok, 10 * time.Millisecond
		})
		log.append(events(1, 1, 100, 7)...)
		log.append(events(2, 101, 100, 7)...)
		after(20 * time.Second)
		if n := len(log.delivered()); n != 39+100 {
			t.Errorf("%d delivered, want the 39 before the failing one and 100 of the other endpoint", n)
		}
		v := log.view()
		if len(v.retry) != 1 || len(v.attempts[41]) > 0 {
			t.Errorf("%d rows in retry, want the failing one's; %d attempts of the next", len(v.retry), len(v.attempts[41]))
		}
		if l := v.lanes[1]; !l.Behind || l.Cursor > 40 {
			t.Errorf("lane %+v, want one that stands still at event 40", l)
		}
		r.end()
		r.start()
		after(5 * time.Second)
		if n := len(log.view().attempts[41]); n > 0 {
			t.Error("the next owner passed the failing event")
		}
		log.append(events(1, 201, 50, 7)...)
		after(time.Hour)
		r.end()
		wantOnce(t, log, 250)
		last := int64(0)
		for _, a := range r.of(1) {
			if a.event.ID < last {
				t.Fatalf("event %d after %d", a.event.ID, last)
			}
			last = a.event.ID
		}
		if r.most[1] != 1 {
			t.Errorf("%d in flight", r.most[1])
		}
	})
}

func TestSender_WithStrictOrderTheEndpointGoesOnAfterADeadLetter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(ordered(1, outbox.OrderingStrict))
		r := startSender(t, Config{RetrySchedule: []time.Duration{time.Second, time.Second}}, log, func(_ outbox.Endpoint, e outbox.Event) (deliver.Result, time.Duration) {
			if e.ID == 3 {
				return rejects, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 10, 10)...)
		after(time.Minute)
		r.end()
		wantOnce(t, log, 9)
		if v := log.view(); v.dead[3] != "4xx" || len(v.attempts[3]) != 3 {
			t.Errorf("dead letters %v, %d attempts", v.dead, len(v.attempts[3]))
		}
	})
}
