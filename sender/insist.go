package sender

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

const (
	insistMin   = 50 * time.Millisecond
	insistMax   = 5 * time.Second
	callTimeout = 15 * time.Second // for one call of the outbox
	remindEvery = time.Minute      // a fault that lasts is logged again
)

// insist calls the outbox until it answers, with growing waits. It gives up
// when ctx ends or the lease is lost, with that as the error. A fault that
// lasts is logged when it begins, every minute, and when it ends.
func (s *Sender) insist(ctx context.Context, what string, call func(context.Context) error) error {
	wait, failed := insistMin, 0
	var since, reminded time.Time
	for {
		err := callWithin(ctx, what, call)
		switch {
		case err == nil:
			if failed > 0 {
				s.log.Info("outbox answers again", zap.String("call", what), zap.Int("failed_calls", failed),
					zap.Duration("duration", time.Since(since)))
			}
			return nil
		case errors.Is(err, outbox.ErrLeaseLost):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		now := time.Now()
		if failed++; failed == 1 {
			since = now
		}
		if now.Sub(reminded) >= remindEvery {
			reminded = now
			s.log.Warn("outbox does not answer", zap.String("call", what), zap.Int("failed_calls", failed), zap.Error(err))
		}
		if err := pause(ctx, jitter(wait, rand.Float64)); err != nil {
			return err
		}
		wait = min(2*wait, insistMax)
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
