package sender

import (
	"context"
	"time"

	"walhook/outbox"
)

// readers is how many lanes read their own part of the log at once.
const readers = 4

// laneLog is what a lane reads by itself.
type laneLog interface {
	Tail(ctx context.Context, q outbox.TailQuery) (outbox.Stretch, error)
	DueRetries(ctx context.Context, endpoint int64, now time.Time, limit int, exclude []int64) ([]outbox.Event, time.Time, error)
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
	due     []outbox.Event // answers retries
	next    time.Time      // of retries
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
		q := r.retries
		r.due, r.next, err = log.DueRetries(ctx, q.endpoint, q.now, q.limit, q.exclude)
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
