// Package carriertest runs the carrier's activity in tests: until it has done enough, and
// not for a time, in which a busy machine does nothing.
package carriertest

import (
	"context"
	"testing"
	"time"

	"walhook/internal/carrier"
)

// patience bounds how long an activity may take to do enough.
const patience = 5 * time.Minute

// RunUntil runs an activity at a rate, as [carrier.Activity.Run] does, until enough
// reports true of what it has done.
func RunUntil(t testing.TB, activity *carrier.Activity, rate float64, enough func(carrier.Stats) bool) carrier.Stats {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil && !enough(activity.Stats()) {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	stats, err := activity.Run(ctx, rate, patience)
	cancel()
	<-watched // it has called enough for the last time
	if err != nil {
		t.Fatal(err)
	}
	if !enough(stats) {
		t.Fatalf("not enough in %s: %+v", patience, stats)
	}
	return stats
}

// Committed is enough once so many transactions are committed.
func Committed(n int) func(carrier.Stats) bool {
	return func(stats carrier.Stats) bool { return stats.Committed >= n }
}
