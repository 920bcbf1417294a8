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
		b.settle(p, verdict{result: result, record: record, weight: 1}, time.Now())
	}
	return ok
}

func TestBreaker_OpensOnSeveralRecordsNotOnOnePoisonousEvent(t *testing.T) {
	failing := errEndpointFault
	type try struct {
		record string
		result error
	}
	for _, c := range []struct {
		name  string
		tries []try
		opens bool
	}{
		{"one record, five times", []try{{"a", failing}, {"a", failing}, {"a", failing}, {"a", failing}, {"a", failing}}, false},
		{"five records", []try{{"a", failing}, {"b", failing}, {"c", failing}, {"d", failing}, {"e", failing}}, true},
		{"two records, five times", []try{{"a", failing}, {"a", failing}, {"b", failing}, {"a", failing}, {"b", failing}}, true},
		{"two records, four times", []try{{"a", failing}, {"a", failing}, {"b", failing}, {"b", failing}}, false},
		{"a delivery between", []try{{"a", failing}, {"b", failing}, {"c", nil}, {"d", failing}, {"e", failing}, {"f", failing}, {"g", failing}}, false},
		{"faults of our own between", []try{{"a", failing}, {"b", failing}, {"c", errNotCounted}, {"d", failing}, {"e", failing}, {"f", failing}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBreaker(middle)
			for i, try := range c.tries {
				if !tryOnce(t, b, try.record, try.result) {
					t.Fatalf("opened before attempt %d", i+1)
				}
			}
			if b.closed() == c.opens {
				t.Errorf("opened: %v, want %v", !b.closed(), c.opens)
			}
		})
	}
}

func TestBreaker_OpensOnOneRecordWhereTheEventNeverLeft(t *testing.T) {
	b := newBreaker(middle)
	for i := range 5 {
		p, ok := b.allow(time.Now())
		if !ok {
			t.Fatalf("opened before attempt %d", i+1)
		}
		b.settle(p, verdict{result: errEndpointFault, record: "a", weight: 1, unsent: true}, time.Now())
	}
	if b.closed() {
		t.Error("five refused connections did not open it")
	}
}

func TestBreaker_OpensSoonOnAttemptsThatHoldTheirSlotForLong(t *testing.T) {
	b := newBreaker(middle)
	for _, record := range []string{"a", "b"} {
		p, ok := b.allow(time.Now())
		if !ok {
			t.Fatal("opened by one attempt")
		}
		b.settle(p, verdict{result: errEndpointFault, record: record, weight: slowWeight}, time.Now())
	}
	if b.closed() {
		t.Error("two attempts that hung did not open it")
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
			b.settle(p, verdict{result: errEndpointFault, record: "x", weight: 1}, time.Now())
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

func TestBreaker_RestoredKeepsItsTimeAndGoesOnGrowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		b := restoreBreaker(3, now.Add(time.Minute), time.Second, now, middle)
		if got := time.Until(b.until); got != time.Minute {
			t.Errorf("open for %v more, want 1m", got)
		}
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
			got, ok := s.after(i+1, nil)
			if !ok || got < delay*8/10 || got > delay*12/10 {
				t.Errorf("after failure %d: %v, %v; want %v ±20 %%", i+1, got, ok, delay)
			}
		}
		if _, ok := s.after(len(defaultSchedule)+1, nil); ok {
			t.Error("an attempt after the last delay's")
		}
	}
}

func TestSchedule_AnEndpointMaySetHowManyRetriesItWants(t *testing.T) {
	for _, test := range []struct {
		name    string
		delays  []time.Duration
		retries int
		want    []time.Duration
	}{
		{"none", defaultSchedule, 0, nil},
		{"two", defaultSchedule, 2, defaultSchedule[:2]},
		{"as many as the schedule has", defaultSchedule, 10, defaultSchedule},
		{"more than a short schedule", []time.Duration{time.Second, time.Minute}, 4, []time.Duration{time.Second, time.Minute, time.Minute, time.Minute}},
		{"a schedule without retries", []time.Duration{}, 4, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := schedule{delays: test.delays, random: middle}
			for i, want := range test.want {
				if got, ok := s.after(i+1, &test.retries); !ok || got != want {
					t.Errorf("after failure %d: %v, %t; want %v", i+1, got, ok, want)
				}
			}
			if _, ok := s.after(len(test.want)+1, &test.retries); ok {
				t.Error("one retry too many")
			}
		})
	}
}
