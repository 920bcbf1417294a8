package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the waits of one loop. Not for several goroutines.
type Backoff struct {
	Min, Max time.Duration // before jitter
	next     time.Duration
}

// Next is the wait before the next try, and twice as long the next time.
func (b *Backoff) Next() time.Duration {
	wait := max(b.next, b.Min)
	b.next = min(2*wait, b.Max)
	return Jitter(wait, rand.Float64)
}

// Reset begins with the shortest wait again.
func (b *Backoff) Reset() { b.next = 0 }

// Jitter spreads d by ±20 %, so that what failed together does not come back
// together. random returns numbers in [0,1).
func Jitter(d time.Duration, random func() float64) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*random()))
}

// Pause waits, or answers the cause of ctx's end.
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
