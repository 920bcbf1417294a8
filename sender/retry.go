package sender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"walhook/internal/retry"
	"walhook/outbox"
)

const (
	retryMin    = 50 * time.Millisecond
	retryMax    = 5 * time.Second
	callTimeout = 15 * time.Second // for one call of the outbox
)

// retry calls the outbox until it answers, with growing waits. It ends when ctx
// does, the lease is lost or what was asked for must not be asked again, with
// that as the error.
func (s *Sender) retry(ctx context.Context, what string, call func(context.Context) error) error {
	caller, backoff := s.outage.Caller(), retry.Backoff{Min: retryMin, Max: retryMax}
	for {
		err := callWithin(ctx, what, call)
		switch {
		case err == nil:
			caller.Answered(s.log)
			return nil
		case errors.Is(err, outbox.ErrLeaseLost) || errors.Is(err, outbox.ErrUncertain):
			caller.Abandoned(s.log)
			return err
		case ctx.Err() != nil:
			caller.Abandoned(s.log)
			return context.Cause(ctx)
		}
		wait := backoff.Next()
		caller.Failed(s.log, what, wait, err)
		if err := retry.Pause(ctx, wait); err != nil {
			caller.Abandoned(s.log)
			return err
		}
	}
}

func callWithin(ctx context.Context, what string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("%s: no answer within %v", what, callTimeout))
	defer cancel()
	return call(ctx)
}
