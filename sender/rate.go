package sender

import "time"

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
