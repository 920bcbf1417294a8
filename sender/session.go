package sender

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"walhook/internal/retry"
	"walhook/outbox"
)

const rebalanceEvery = 2 * time.Second

// runSession runs one session: from joining until the lease is lost or stop ends. It
// returns errDrained after a clean stop. The session owns the dispatcher and all
// lanes, which end with it.
func (s *Sender) runSession(ctx, stop context.Context) error {
	var session Session
	var asked time.Time
	err := s.retry(stop, "join", func(ctx context.Context) (err error) {
		asked = time.Now()
		session, err = s.events.Join(ctx, s.config.Name, s.config.Lease, s.deliveries.HostFault)
		return err
	})
	if err != nil {
		return err
	}
	lease := newLease(asked.Add(s.config.Lease))
	s.lease.Store(lease)
	moved := make(chan struct{})
	// A log that moved is read by another session: this one starts nothing more. What it
	// has in flight ends and is settled first.
	unlessMoved := func(part func() error) func() error {
		return func() error {
			err := part()
			if errors.Is(err, outbox.ErrMoved) {
				if lease.end() {
					close(moved)
				}
				return nil
			}
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	d := newDispatcher(s, lease)
	d.tailer = newTailer(s, session, session, d.batches)

	g.Go(unlessMoved(func() error { return s.renew(gctx, session, lease) }))
	g.Go(unlessMoved(func() error { return s.rebalance(gctx, session, d.assignments) }))
	g.Go(unlessMoved(func() error { return s.watchEndpoints(gctx, session, d.changed) }))
	g.Go(unlessMoved(func() error { return d.tailer.run(gctx) }))
	g.Go(func() error { return s.settle(gctx, session, d.settle, d.settled) })
	g.Go(unlessMoved(func() error { return s.keep(gctx, stop, session, d.saves, d.saved) }))
	for range readers {
		g.Go(unlessMoved(func() error { return s.serveLanes(gctx, session, d.requests, d.answers) }))
	}
	g.Go(func() error { return d.run(gctx, stop.Done(), moved) })
	err = g.Wait()
	if errors.Is(err, outbox.ErrLeaseLost) {
		return err
	}
	leaveErr := callWithin(ctx, "leave", session.Leave)
	switch {
	case !errors.Is(err, errDrained):
		return err
	case leaveErr != nil:
		return fmt.Errorf("stop: %w", leaveErr)
	case lease.over.Load() && stop.Err() == nil:
		return outbox.ErrMoved
	}
	return err
}

// lease is the time until which this sender may start attempts. The renewing
// goroutine writes it, others read it.
type lease struct {
	until   atomic.Pointer[time.Time]
	over    atomic.Bool   // whatever until says
	renewed chan struct{} // capacity 1
}

func newLease(until time.Time) *lease {
	l := &lease{renewed: make(chan struct{}, 1)}
	l.until.Store(&until)
	return l
}

// holds checks both clocks of this machine. Nobody sets the monotonic one, but it
// stops while the machine is suspended; the wall clock shows that time.
func (l *lease) holds(now time.Time) bool { return l.holdsBy(now, now.Round(0)) }

func (l *lease) holdsBy(monotonic, wall time.Time) bool {
	until := *l.until.Load()
	return !l.over.Load() && monotonic.Before(until) && wall.Before(until.Round(0))
}

// end ends it at once; false where it was ended before.
func (l *lease) end() bool { return l.over.CompareAndSwap(false, true) }

func (l *lease) extend(until time.Time) {
	l.until.Store(&until)
	select {
	case l.renewed <- struct{}{}:
	default:
	}
}

// renew extends the lease three times in its length. It returns only when the lease
// is lost or ctx ends; an outbox that is away may come back in time. It abandons a
// call without an answer while there is still time for another one, on another
// connection.
func (s *Sender) renew(ctx context.Context, session Leases, lease *lease) error {
	for {
		if err := retry.Pause(ctx, s.config.Lease/3); err != nil {
			return err
		}
		err := s.retry(ctx, "renew the lease", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeoutCause(ctx, s.config.Lease/3, errors.New("renew the lease: timed out"))
			defer cancel()
			until, err := session.Renew(ctx)
			if err == nil {
				lease.extend(until)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
}

// rebalance asks for shards, and sends the dispatcher those that it gained and those
// that it is to release.
func (s *Sender) rebalance(ctx context.Context, session Session, assignments chan<- assignment) error {
	for {
		var news assignment
		err := s.retry(ctx, "rebalance", func(ctx context.Context) (err error) {
			news.gained, news.surplus, err = session.Rebalance(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if news.endpoints, err = s.endpointsOf(ctx, session, news.gained); err != nil {
			return err
		}
		if len(news.gained.Shards)+len(news.surplus) > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case assignments <- news:
			}
		}
		if err := retry.Pause(ctx, retry.Jitter(rebalanceEvery, s.policy.random)); err != nil {
			return err
		}
	}
}

// endpointsOf reads the endpoints of the lanes in a hand-over.
func (s *Sender) endpointsOf(ctx context.Context, from Endpoints, h outbox.Handover) ([]outbox.Endpoint, error) {
	seen := map[int64]bool{}
	var ids []int64
	for _, l := range h.Lanes {
		if !seen[l.Endpoint] {
			seen[l.Endpoint] = true
			ids = append(ids, l.Endpoint)
		}
	}
	for _, r := range h.Blocked {
		if !seen[r.Endpoint] {
			seen[r.Endpoint] = true
			ids = append(ids, r.Endpoint)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return s.loadEndpoints(ctx, from, ids)
}

// watchEndpoints looks for endpoints that changed, whether or not an event follows: at a
// signal and every changesPoll. It sends their revisions to the dispatcher.
func (s *Sender) watchEndpoints(ctx context.Context, session Endpoints, changed chan<- []outbox.EndpointRevision) error {
	since, signalled := time.Now(), false
	for {
		var endpoints []outbox.EndpointRevision
		err := s.retry(ctx, "watch endpoints", func(ctx context.Context) (err error) {
			endpoints, since, err = session.EndpointsChanged(ctx, since)
			return err
		})
		if err != nil {
			return err
		}
		if len(endpoints) > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case changed <- endpoints:
			}
			// The dispatcher has them: no lane uses an older revision any more.
			if err := s.retry(ctx, "confirm endpoints", func(ctx context.Context) error { return session.Confirm(ctx, endpoints) }); err != nil {
				return err
			}
		}
		if signalled, err = s.awaitChanges(ctx, signalled); err != nil {
			return err
		}
	}
}

// changesGap follows a look that a signal caused, so that many edits cost few looks.
const changesGap = 250 * time.Millisecond

// awaitChanges waits until it is time to look for changed endpoints, and says whether a
// signal caused that. before says it of the last time.
func (s *Sender) awaitChanges(ctx context.Context, before bool) (signalled bool, err error) {
	if before {
		if err := retry.Pause(ctx, changesGap); err != nil {
			return false, err
		}
	}
	poll := time.NewTimer(s.changesPoll)
	defer poll.Stop()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-poll.C:
		return false, nil
	case <-s.events.Changed():
		return true, nil
	}
}

// keep saves lanes and tails, and then releases the shards that are drained.
func (s *Sender) keep(ctx, stop context.Context, session Session, saves <-chan saveRequest, saved chan<- saveRequest) error {
	for {
		var r saveRequest
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r = <-saves:
		}
		err := s.retry(ctx, "save lanes", func(ctx context.Context) error { return session.Save(ctx, r.lanes, r.tails) })
		if err == nil && len(r.release) > 0 {
			err = s.release(ctx, stop, session, r.release)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case saved <- r:
		}
	}
}

// release asks once. If the answer is lost, the shards may be free, and this sender
// may gain them again: a second request, or the first one arriving late, would then
// free shards whose events are being sent, and another sender would send them too. So
// the session ends, and the outbox refuses its late requests. While stopping, the
// sender gains no shards, so it may ask again.
func (s *Sender) release(ctx, stop context.Context, session Leases, shards []outbox.Shard) error {
	const what = "release shards"
	ask := func(ctx context.Context) error { return session.Release(ctx, shards) }
	if stop.Err() != nil {
		return s.retry(ctx, what, ask)
	}
	if err := callWithin(ctx, what, ask); err != nil {
		return fmt.Errorf("%s, with an unknown result: %w", what, err)
	}
	return nil
}

// settledBatch is a batch that is committed, with the states in retry of the records
// that it touched.
type settledBatch struct {
	batch  []outbox.Settlement
	states []outbox.RecordState
}

// settle commits batches, one after the other: while one commits, the dispatcher
// collects the next. So batches grow with the load, and an idle sender settles at
// once.
func (s *Sender) settle(ctx context.Context, log Settlements, batches <-chan []outbox.Settlement, done chan<- settledBatch) error {
	for {
		var answer settledBatch
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case answer.batch = <-batches:
		}
		err := s.retry(ctx, "settle", func(ctx context.Context) (err error) {
			answer.states, err = log.Settle(ctx, answer.batch)
			return err
		})
		if err != nil {
			return err
		}
		s.metrics.countSettled(answer.batch)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case done <- answer:
		}
	}
}

const (
	readers       = 4   // lanes that read their own part of the log at once
	readEndpoints = 500 // most changed endpoints that are read at once
)

// laneRequest is one request of a lane to the outbox, or one for the endpoints of
// several lanes: exactly one of its four parts is set. A reader fills in the answer.
type laneRequest struct {
	lane    *lane // nil for endpoints
	tail    *outbox.TailQuery
	retries *retryQuery
	expire  *outbox.Endpoint
	cursor  int64 // for expire
	// endpoints are the ids of endpoints whose current state is to be read.
	endpoints []int64

	stretch outbox.Stretch    // answers tail
	due     outbox.Retries    // answers retries
	found   []outbox.Endpoint // answers endpoints, without those that do not exist any more
}

func (s *Sender) serveLanes(ctx context.Context, log Session, requests <-chan laneRequest, answers chan<- laneRequest) error {
	for {
		var r laneRequest
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r = <-requests:
		}
		if err := s.retry(ctx, r.name(), func(ctx context.Context) error { return r.serve(ctx, log) }); err != nil {
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
		return "read a lane's events"
	case r.retries != nil:
		return "read due retries"
	case r.endpoints != nil:
		return "read endpoints of lanes"
	}
	return "expire"
}

const (
	retryMin    = 50 * time.Millisecond
	retryMax    = 5 * time.Second
	callTimeout = 15 * time.Second // for one call of the outbox
)

// retry calls the outbox until it answers, with growing waits. It returns an error
// when ctx ends, when the lease is lost, or when the call must not be repeated.
func (s *Sender) retry(ctx context.Context, what string, call func(context.Context) error) error {
	caller, backoff := s.outage.Caller(), retry.Backoff{Min: retryMin, Max: retryMax}
	for {
		err := callWithin(ctx, what, call)
		switch {
		case err == nil:
			caller.Answered(s.log)
			return nil
		case errors.Is(err, outbox.ErrLeaseLost) || errors.Is(err, outbox.ErrMoved) || errors.Is(err, outbox.ErrUncertain):
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
