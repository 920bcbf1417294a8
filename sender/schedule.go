package sender

import (
	"math/rand/v2"
	"time"
)

// jitter spreads d by ±20 %, so that what failed together does not come back
// together. random returns numbers in [0,1).
func jitter(d time.Duration, random func() float64) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*random()))
}

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
	return jitter(s.delays[min(max(failed, 1), len(s.delays))-1], s.random), true
}
