package sender

import (
	"math/rand/v2"
	"time"

	"walhook/internal/retry"
)

// schedule says when a failed event is tried again.
type schedule struct {
	delays []time.Duration
	random func() float64
}

func newSchedule(delays []time.Duration) schedule {
	return schedule{delays: delays, random: rand.Float64}
}

// after is the delay after the failed-th failed attempt, counted from 1; false
// when that was the last. retries is how many an endpoint wants; nil is as many
// as there are delays. More than that are as far apart as the last two.
func (s schedule) after(failed int, retries *int) (time.Duration, bool) {
	last := len(s.delays)
	if retries != nil && last > 0 {
		last = *retries
	}
	if failed > last {
		return 0, false
	}
	return retry.Jitter(s.delays[min(max(failed, 1), len(s.delays))-1], s.random), true
}

// rateSlack is how much a lane that wakes up late may make up for. It is well
// below the pace of ordinary limits, so that a burst after a pause does not go
// beyond them.
const rateSlack = 10 * time.Millisecond

// slowestRate bounds the time between two attempts.
const slowestRate = 24 * time.Hour

// rateLimit spaces attempts evenly where the endpoint limits their rate. next is
// when the next may start; zero for at once.
type rateLimit struct{ next time.Time }

// holds says that it is too early for an attempt.
func (r *rateLimit) holds(rate float64, now time.Time) bool {
	return rate > 0 && now.Before(r.next)
}

// started takes note of an attempt.
func (r *rateLimit) started(rate float64, now time.Time) {
	if rate <= 0 {
		r.next = time.Time{}
		return
	}
	from := now.Add(-rateSlack)
	if r.next.After(from) {
		from = r.next
	}
	r.next = from.Add(time.Duration(min(float64(time.Second)/rate, float64(slowestRate))))
}
