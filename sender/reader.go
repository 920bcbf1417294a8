package sender

import (
	"context"

	"walhook/outbox"
)

// readers is how many lanes read their own part of the log at once.
const readers = 4

// laneLog is what a lane reads by itself.
type laneLog interface {
	Tail(ctx context.Context, q outbox.TailQuery) (outbox.Stretch, error)
	DueRetries(ctx context.Context, q outbox.RetryQuery) (outbox.Retries, error)
	Expire(ctx context.Context, e outbox.Endpoint, cursor int64) error
}

// laneRequest is one thing that a lane wants of the outbox: exactly one of its
// three parts is set. It becomes its own answer.
type laneRequest struct {
	lane    *lane
	tail    *outbox.TailQuery
	retries *retryQuery
	expire  *outbox.Endpoint
	cursor  int64 // for expire

	stretch outbox.Stretch // answers tail
	due     outbox.Retries // answers retries
}

func (s *Sender) serveLanes(ctx context.Context, log laneLog, requests <-chan laneRequest, answers chan<- laneRequest) error {
	for {
		var r laneRequest
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r = <-requests:
		}
		if err := s.insist(ctx, r.name(), func(ctx context.Context) error { return r.serve(ctx, log) }); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case answers <- r:
		}
	}
}

func (r *laneRequest) serve(ctx context.Context, log laneLog) (err error) {
	switch {
	case r.tail != nil:
		r.stretch, err = log.Tail(ctx, *r.tail)
	case r.retries != nil:
		r.due, err = log.DueRetries(ctx, r.retries.RetryQuery)
	case r.expire != nil:
		err = log.Expire(ctx, *r.expire, r.cursor)
	}
	return err
}

func (r *laneRequest) name() string {
	switch {
	case r.tail != nil:
		return "read a lane's log"
	case r.retries != nil:
		return "read due retries"
	}
	return "expire"
}
