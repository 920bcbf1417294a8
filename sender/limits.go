package sender

import (
	"math/rand/v2"
	"runtime"
	"time"

	"walhook/internal/retry"
)

// schedule says when a failed event is retried.
type schedule struct {
	delays []time.Duration
	random func() float64
}

func newSchedule(delays []time.Duration) schedule {
	return schedule{delays: delays, random: rand.Float64}
}

// after is the delay after a number of failed attempts; false when no attempt is
// left. retries is how many the endpoint's settings ask for; nil for as many as there
// are delays. Retries beyond the delays use the last delay.
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

// rateSlack is how much lost time a lane that wakes up late may make up for. It is
// short enough that a burst after a pause does not exceed ordinary limits.
const rateSlack = 10 * time.Millisecond

// slowestRate bounds the time between two attempts.
const slowestRate = 24 * time.Hour

// rateLimit spaces attempts evenly where the endpoint's settings limit their rate. next
// is when the next attempt may start; zero for at once.
type rateLimit struct{ next time.Time }

// holds says that it is too early for an attempt.
func (r *rateLimit) holds(rate float64, now time.Time) bool {
	return rate > 0 && now.Before(r.next)
}

// started notes an attempt.
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

const (
	// fastWindow is how long an attempt counts as one that keeps this machine busy. A
	// near receiver has answered by then; an older attempt waits for a distant or slow
	// one, and costs nothing meanwhile.
	fastWindow = 10 * time.Millisecond

	// maxFastPerCPU is how many such attempts may run per processor. More of them
	// make none faster: they wait for one another, here and at the receiver.
	maxFastPerCPU = 32
)

// attemptLimiter bounds the attempts that are younger than fastWindow. Attempts that
// hang soon leave the limit, so they delay no others; and distant receivers may have
// as many in flight as MaxInFlight allows, with thousands begun each second. The
// dispatcher's goroutine owns it.
type attemptLimiter struct {
	limit  int
	fast   int // begun, not ended, and younger than fastWindow at the last look
	begun  int64
	starts fifo[start] // the last one has number begun
}

type start struct {
	at    time.Time
	ended bool
}

func newAttemptLimiter() *attemptLimiter {
	return &attemptLimiter{limit: maxFastPerCPU * max(runtime.GOMAXPROCS(0), 2)}
}

// begin counts an attempt, and returns its number for end.
func (p *attemptLimiter) begin(now time.Time) int64 {
	p.begun++
	p.fast++
	p.starts.push(start{at: now})
	return p.begun
}

func (p *attemptLimiter) end(number int64) {
	first := p.begun - int64(p.starts.len()) + 1
	if number < first {
		return // not fast any more
	}
	p.starts.at(int(number - first)).ended = true
	p.fast--
}

// full says that no attempt may begin now. It drops the attempts that are not fast
// any more.
func (p *attemptLimiter) full(now time.Time) bool {
	for p.starts.len() > 0 {
		oldest := p.starts.at(0)
		if !oldest.ended && now.Sub(oldest.at) < fastWindow {
			break
		}
		if !oldest.ended {
			p.fast--
		}
		p.starts.pop()
	}
	return p.fast >= p.limit
}

// next is when the oldest attempt stops counting. It is for a full limiter.
func (p *attemptLimiter) next() time.Time { return p.starts.at(0).at.Add(fastWindow) }
