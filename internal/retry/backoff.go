package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff has the waits of one loop. One goroutine may use it.
type Backoff struct {
	Min, Max time.Duration // before jitter
	next     time.Duration
}

// Next is the wait before the next try. Each is twice as long as the one before.
func (b *Backoff) Next() time.Duration {
	wait := max(b.next, b.Min)
	b.next = min(2*wait, b.Max)
	return Jitter(wait, rand.Float64)
}

// Reset starts again with the shortest wait.
func (b *Backoff) Reset() { b.next = 0 }

// Jitter varies d by ±20 %, so that callers that failed together do not retry
// together. random returns numbers in [0,1).
func Jitter(d time.Duration, random func() float64) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*random()))
}

// Pause waits for d. It returns the cause when ctx ends first.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
