package sender

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

const (
	retryMin    = 50 * time.Millisecond
	retryMax    = 5 * time.Second
	callTimeout = 15 * time.Second // for one call of the outbox
	remindEvery = time.Minute      // a fault that lasts is logged again
)

// outage is the outbox's present fault, as the log tells of it: when it begins,
// every minute while it lasts, and when it is over, whichever goroutines meet it.
type outage struct {
	told atomic.Bool // that it began, and not yet that it is over

	mu       sync.Mutex
	failing  int // callers whose last call failed
	calls    int // that failed
	since    time.Time
	reminded time.Time
}

func (o *outage) failed(log *zap.Logger, what string, first bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if first {
		if o.failing++; o.failing == 1 && o.calls == 0 {
			o.since, o.reminded = now, time.Time{}
		}
	}
	o.calls++
	if now.Sub(o.reminded) >= remindEvery {
		o.reminded = now
		o.told.Store(true)
		log.Warn("outbox does not answer", zap.String("call", what), zap.Int("failed_calls", o.calls), zap.Error(err))
	}
}

// over ends a caller's part in it. Where the last one gave up without an answer,
// the next call that gets one tells.
func (o *outage) over(log *zap.Logger, failed, answered bool) {
	if !failed && !o.told.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if failed {
		o.failing--
	}
	if o.failing > 0 {
		return
	}
	if answered && o.told.CompareAndSwap(true, false) {
		log.Info("outbox answers again", zap.Int("failed_calls", o.calls), zap.Duration("duration", time.Since(o.since)))
	}
	if !o.told.Load() {
		o.calls = 0
	}
}

// retry calls the outbox until it answers, with growing waits. It ends
// when ctx ends, the lease is lost or what was asked for must not be asked
// again, with that as the error.
func (s *Sender) retry(ctx context.Context, what string, call func(context.Context) error) error {
	wait, failed := retryMin, false
	end := func(err error) error {
		s.outage.over(s.log, failed, err == nil)
		return err
	}
	for {
		err := callWithin(ctx, what, call)
		switch {
		case err == nil || errors.Is(err, outbox.ErrLeaseLost) || errors.Is(err, outbox.ErrUncertain):
			return end(err)
		case ctx.Err() != nil:
			return end(context.Cause(ctx))
		}
		s.outage.failed(s.log, what, !failed, err)
		failed = true
		if err := pause(ctx, jitter(wait, rand.Float64)); err != nil {
			return end(err)
		}
		wait = min(2*wait, retryMax)
	}
}

func callWithin(ctx context.Context, what string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("%s: no answer within %v", what, callTimeout))
	defer cancel()
	return call(ctx)
}

// pause waits, or answers the cause of ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
