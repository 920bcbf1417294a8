package sender

import (
	"context"

	"walhook/outbox"
)

const (
	readers       = 4   // lanes that read their own part of the log at once
	readEndpoints = 500 // most that are read at once because they changed
)

// laneRequest is one thing that a lane wants of the outbox, or of endpoints
// several lanes: exactly one of its four parts is set. It becomes its own answer.
type laneRequest struct {
	lane    *lane // nil for endpoints
	tail    *outbox.TailQuery
	retries *retryQuery
	expire  *outbox.Endpoint
	cursor  int64 // for expire
	// endpoints are to be read as they stand now.
	endpoints []int64

	stretch outbox.Stretch    // answers tail
	due     outbox.Retries    // answers retries
	found   []outbox.Endpoint // answers endpoints, without those that are not there any more
}

func (s *Sender) serveLanes(ctx context.Context, log Session, requests <-chan laneRequest, answers chan<- laneRequest) error {
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

func (r *laneRequest) serve(ctx context.Context, log Session) (err error) {
	switch {
	case r.tail != nil:
		r.stretch, err = log.Tail(ctx, *r.tail)
	case r.retries != nil:
		r.due, err = log.DueRetries(ctx, r.retries.RetryQuery)
	case r.endpoints != nil:
		r.found, err = log.Endpoints(ctx, r.endpoints)
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
	case r.endpoints != nil:
		return "read endpoints of lanes"
	}
	return "expire"
}
