package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
)

func TestSender_RetriesAsTheEndpointSetsThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		none, two := active(1), active(2)
		none.Settings = &outbox.EndpointSettings{HTTPVerb: "post", Retries: new(0)}
		two.Settings = &outbox.EndpointSettings{HTTPVerb: "post", Retries: new(2)}
		log := newFakeLog(none, two, active(3))
		r := startSender(t, Config{}, log, always(rejects, time.Millisecond))
		for id := range int64(3) {
			log.append(events(id+1, id+1, 1, 1)...)
		}
		after(time.Hour)
		r.end()
		for id, want := range map[int64]int{1: 1, 2: 3, 3: 6} {
			if got := len(r.of(id)); got != want {
				t.Errorf("endpoint %d: %d attempts, want %d", id, got, want)
			}
			if _, dead := log.view().dead[id]; dead != (id < 3) {
				t.Errorf("endpoint %d: dead letter %t", id, dead)
			}
		}
	})
}

func TestSender_ARateLimitHoldsThroughABurst(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.5, 7, 200} {
		synctest.Test(t, func(t *testing.T) {
			slow := active(1)
			slow.Settings = &outbox.EndpointSettings{HTTPVerb: "post", RateLimit: rate}
			log := newFakeLog(slow, active(2))
			r := startSender(t, Config{}, log, always(ok, time.Millisecond))
			log.append(events(1, 1, 2000, 2000)...)
			log.append(events(2, 2001, 2000, 2000)...)
			after(20 * time.Second)
			if got := len(r.of(2)); got != 2000 {
				t.Errorf("the endpoint without a limit got %d of 2000", got)
			}
			arrivals := r.of(1)
			if got, want := float64(len(arrivals)), min(20*rate, 2000); got < 0.9*want || got > want+1 {
				t.Errorf("rate %v: %v arrivals in 20 s, want %v", rate, got, want)
			}
			for i, a := range arrivals { // in any second
				n := 0
				for _, b := range arrivals[i:] {
					if b.at.Sub(a.at) < time.Second {
						n++
					}
				}
				if float64(n) > rate*1.02+1 {
					t.Fatalf("rate %v: %d arrivals within a second", rate, n)
				}
			}
			slow.Revision, slow.Settings = 2, nil
			log.set(slow)
			after(time.Minute)
			if got := len(r.of(1)); got != 2000 {
				t.Errorf("%d of 2000 after the limit was lifted", got)
			}
			r.end()
		})
	}
}

// Failures are attempts too.
func TestSender_ARateLimitCountsRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := active(1)
		slow.Settings = &outbox.EndpointSettings{HTTPVerb: "post", RateLimit: 2}
		log := newFakeLog(slow)
		r := startSender(t, Config{RetrySchedule: []time.Duration{time.Millisecond, time.Millisecond}}, log, always(rejects, time.Millisecond))
		log.append(events(1, 1, 20, 20)...)
		after(60 * time.Second)
		r.end()
		arrivals := r.of(1)
		if len(arrivals) != 60 {
			t.Errorf("%d attempts, want 60", len(arrivals))
		}
		for i := 1; i < len(arrivals); i++ {
			if gap := arrivals[i].at.Sub(arrivals[i-1].at); gap < 489*time.Millisecond {
				t.Fatalf("%v between two attempts", gap)
			}
		}
	})
}
