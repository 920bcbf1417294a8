package sender

import (
	"testing"
	"testing/synctest"
	"time"
)

func middle() float64 { return .5 } // no jitter

func tryOnce(t *testing.T, b *breaker, record string, result error) bool {
	t.Helper()
	p, ok := b.allow(time.Now())
	if ok {
		b.settle(p, record, result, time.Now())
	}
	return ok
}

func TestBreaker_OpensOnSeveralRecordsNotOnOnePoisonousEvent(t *testing.T) {
	b := newBreaker(middle)
	for range 50 {
		if !tryOnce(t, b, "poison", errEndpointFault) {
			t.Fatal("one failing record opened the breaker")
		}
	}
	tryOnce(t, b, "a", errEndpointFault)
	tryOnce(t, b, "b", nil)
	tryOnce(t, b, "c", errEndpointFault)
	tryOnce(t, b, "d", errEndpointFault)
	tryOnce(t, b, "e", errEndpointFault)
	tryOnce(t, b, "f", errEndpointFault)
	tryOnce(t, b, "f", errEndpointFault)
	if !b.closed() {
		t.Fatal("a delivery between did not count")
	}
	tryOnce(t, b, "g", errEndpointFault)
	if b.closed() || !b.open(time.Now()) {
		t.Fatal("five records in a row did not open it")
	}
}

func TestBreaker_GrowsFromTenSecondsToTenMinutesAndProbesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(middle)
		for _, r := range []string{"a", "b", "c", "d", "e"} {
			tryOnce(t, b, r, errEndpointFault)
		}
		want := 10 * time.Second
		for range 10 {
			if got := time.Until(b.until); got != want {
				t.Fatalf("open for %v, want %v", got, want)
			}
			time.Sleep(want - time.Nanosecond)
			if _, ok := b.allow(time.Now()); ok {
				t.Fatal("an attempt while open")
			}
			time.Sleep(time.Nanosecond)
			p, ok := b.allow(time.Now())
			if !ok || !p.probe {
				t.Fatalf("no probe after %v", want)
			}
			if _, ok := b.allow(time.Now()); ok {
				t.Fatal("two probes at once")
			}
			b.settle(p, "x", errEndpointFault, time.Now())
			want = min(2*want, 10*time.Minute)
		}
		time.Sleep(want)
		tryOnce(t, b, "x", errNotCounted) // our own fault decides nothing
		if b.closed() {
			t.Fatal("closed by a fault of our own")
		}
		tryOnce(t, b, "x", nil)
		if !b.closed() || b.opens != 0 {
			t.Fatal("a delivered probe did not close it")
		}
		tryOnce(t, b, "x", errEndpointFault)
		if !b.closed() {
			t.Fatal("one failure after closing opened it again")
		}
	})
}

func TestBreaker_RestoredOnesDoNotProbeAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		random := 0.0
		early := 0
		for range 1000 {
			random += .001
			b := restoreBreaker(3, now.Add(-time.Hour), now, func() float64 { return random })
			if b.until.Before(now.Add(time.Second)) {
				early++
			}
		}
		if early > 150 {
			t.Errorf("%d of 1000 probe within a second", early)
		}
		b := restoreBreaker(3, now.Add(time.Minute), now, middle)
		time.Sleep(time.Minute)
		tryOnce(t, b, "x", errEndpointFault)
		if got := time.Until(b.until); got != 80*time.Second {
			t.Errorf("fourth opening lasts %v, want 80s", got)
		}
	})
}

func TestSchedule_DelaysWithJitterAndThenGivesUp(t *testing.T) {
	for _, random := range []float64{0, .5, .999} {
		s := schedule{delays: defaultSchedule, random: func() float64 { return random }}
		for i, delay := range defaultSchedule {
			got, ok := s.after(i + 1)
			if !ok || got < delay*8/10 || got > delay*12/10 {
				t.Errorf("after failure %d: %v, %v; want %v ±20 %%", i+1, got, ok, delay)
			}
		}
		if _, ok := s.after(len(defaultSchedule) + 1); ok {
			t.Error("an attempt after the last delay's")
		}
	}
}
