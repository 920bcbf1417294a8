package sender

import (
	"math"
	"time"

	"walhook/outbox"
	"walhook/schemas"
)

// result is what an attempt came to.
type result struct {
	outcome  outcome
	failure  failure
	at       time.Time // when it began
	duration time.Duration
	status   int
	detail   string
}

// result judges an answer that was asked for at a time.
func (a answer) result(at, now time.Time) result {
	return result{
		outcome:  judge(a.status, a.failure, a.retryAfter, a.clock(now)),
		failure:  a.failure,
		at:       at,
		duration: now.Sub(at),
		status:   a.status,
		detail:   a.detail,
	}
}

// reason is why, as the account may see it.
func (r *result) reason() string {
	if r.failure != "" {
		return string(r.failure.shown())
	}
	return r.outcome.reason
}

// longestAttempt is beyond what any attempt takes; a clock may say otherwise.
const longestAttempt = 24 * time.Hour

// attempt is the result as it is stored. Whatever an answer or a clock said,
// what leaves here fits its column: this is the one place where it is made.
func (r *result) attempt(number int, revision int64, kind string) outbox.Attempt {
	status := r.status
	if status < 0 || status > 999 {
		status = 0
	}
	return outbox.Attempt{
		At: r.at, Number: min(max(number, 0), math.MaxInt32), Revision: revision,
		Duration: min(max(r.duration, 0), longestAttempt),
		Status:   status, Outcome: kind, Reason: r.reason(), Detail: schemas.Storable(clip(r.detail)),
	}
}
