package sender

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"walhook/outbox"
)

const rebalanceEvery = 2 * time.Second

// lease is until when this sender may start attempts. The renewing goroutine
// writes it, others read it.
type lease struct {
	until   atomic.Pointer[time.Time]
	renewed chan struct{} // capacity 1
}

func newLease(until time.Time) *lease {
	l := &lease{renewed: make(chan struct{}, 1)}
	l.until.Store(&until)
	return l
}

// holds goes by both clocks of this machine. The monotonic one is not set by
// anybody, but stands still while the machine is suspended; the wall clock
// shows that time.
func (l *lease) holds(now time.Time) bool { return l.holdsBy(now, now.Round(0)) }

func (l *lease) holdsBy(monotonic, wall time.Time) bool {
	until := *l.until.Load()
	return monotonic.Before(until) && wall.Before(until.Round(0))
}

func (l *lease) extend(until time.Time) {
	l.until.Store(&until)
	select {
	case l.renewed <- struct{}{}:
	default:
	}
}

// tenure is the life of one session: from joining until the lease is lost or
// stop ends. It returns errDrained after a clean stop. What is in memory
// belongs to the tenure and ends with it.
func (s *Sender) tenure(ctx, stop context.Context) error {
	var session Session
	var asked time.Time
	err := s.insist(stop, "join", func(ctx context.Context) (err error) {
		asked = time.Now()
		session, err = s.events.Join(ctx, s.config.Name, s.config.Lease, s.http.HostFault)
		return err
	})
	if err != nil {
		return err
	}
	lease := newLease(asked.Add(s.config.Lease))
	s.lease.Store(lease)
	g, gctx := errgroup.WithContext(ctx)
	d := newDispatcher(s, lease)
	d.tailer = newTailer(s, session, session, d.batches)

	g.Go(func() error { return s.renew(gctx, session, lease) })
	g.Go(func() error { return s.rebalance(gctx, session, d.dealt) })
	g.Go(func() error { return s.watchEndpoints(gctx, session, d.changed) })
	g.Go(func() error { return d.tailer.run(gctx) })
	g.Go(func() error { return s.settle(gctx, session, d.settle, d.settled) })
	g.Go(func() error { return s.keep(gctx, stop, session, d.saves, d.saved) })
	for range readers {
		g.Go(func() error { return s.serveLanes(gctx, session, d.requests, d.answers) })
	}
	g.Go(func() error { return d.run(gctx, stop.Done()) })
	err = g.Wait()
	if errors.Is(err, outbox.ErrLeaseLost) {
		return err
	}
	if leaveErr := callWithin(ctx, "leave", session.Leave); leaveErr != nil && errors.Is(err, errDrained) {
		return fmt.Errorf("stop: %w", leaveErr)
	}
	return err
}

// renew extends the lease three times in its length. Only a lost lease ends
// it; an outbox that is away may come back in time. A call that gets no answer
// is given up while there is still time for another, on another connection.
func (s *Sender) renew(ctx context.Context, session Leases, lease *lease) error {
	for {
		if err := pause(ctx, s.config.Lease/3); err != nil {
			return err
		}
		err := s.insist(ctx, "renew the lease", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeoutCause(ctx, s.config.Lease/3, errors.New("renew the lease: no answer in time"))
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

// rebalance asks for shards and hands on which came and which should go.
func (s *Sender) rebalance(ctx context.Context, session Session, dealt chan<- deal) error {
	for {
		var news deal
		err := s.insist(ctx, "rebalance", func(ctx context.Context) (err error) {
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
			case dealt <- news:
			}
		}
		if err := pause(ctx, jitter(rebalanceEvery, s.policy.random)); err != nil {
			return err
		}
	}
}

// endpointsOf reads the endpoints of the lanes that a hand-over names.
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

// watchEndpoints hands on which endpoints changed, without an event that says so.
func (s *Sender) watchEndpoints(ctx context.Context, session Endpoints, changed chan<- []outbox.EndpointRevision) error {
	since := time.Now()
	for {
		var endpoints []outbox.EndpointRevision
		err := s.insist(ctx, "watch endpoints", func(ctx context.Context) (err error) {
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
			// Lanes that were told start nothing by what they knew before.
			if err := s.insist(ctx, "confirm endpoints", func(ctx context.Context) error { return session.Confirm(ctx, endpoints) }); err != nil {
				return err
			}
		}
		if err := pause(ctx, s.changesPoll); err != nil {
			return err
		}
	}
}

// keep stores lanes and tails, and then gives up the shards that are drained.
func (s *Sender) keep(ctx, stop context.Context, session Session, saves <-chan saveRequest, saved chan<- saveRequest) error {
	for {
		var r saveRequest
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case r = <-saves:
		}
		err := s.insist(ctx, "save lanes", func(ctx context.Context) error { return session.Save(ctx, r.lanes, r.tails) })
		if err == nil && len(r.giveUp) > 0 {
			err = s.giveUp(ctx, stop, session, r.giveUp)
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

// giveUp asks once. If the answer is lost, the shards may be free, and be gained
// again: asking again, or the first request arriving late, would then free what
// is being sent, and another would send it too. So the session ends, with which
// whatever it asked for is refused. On stopping nothing is gained any more.
func (s *Sender) giveUp(ctx, stop context.Context, session Leases, shards []outbox.Shard) error {
	const what = "give up shards"
	ask := func(ctx context.Context) error { return session.GiveUp(ctx, shards) }
	if stop.Err() != nil {
		return s.insist(ctx, what, ask)
	}
	if err := callWithin(ctx, what, ask); err != nil {
		return fmt.Errorf("%s, and it is not known whether they are: %w", what, err)
	}
	return nil
}
