package outboxtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/sender"
)

// brokenLog is a log in memory that does not keep one of its promises. What is
// nil is as it should be.
type brokenLog struct {
	*inMemory
	sessions []sender.Session   // all that joined
	held     map[int]int64      // tails that were saved last, of breaks that go by them
	seen     map[int64]struct{} // of breaks that do something once

	appends   func(e []outbox.Event) []outbox.Event
	signal    <-chan struct{}
	join      func(lease time.Duration, check func(string) error) (time.Duration, func(string) error)
	ask       func(q *outbox.TailQuery)                           // before a tail
	tail      func(q outbox.TailQuery, s *outbox.Stretch)         // after it
	askDue    func(q *outbox.RetryQuery)                          // before due retries
	due       func(q outbox.RetryQuery, d *outbox.Retries)        // after them
	each      func(s *outbox.Settlement)                          // each of a batch
	settle    func(batch []outbox.Settlement) []outbox.Settlement // a batch
	states    func(states []outbox.RecordState) []outbox.RecordState
	save      func(lanes []outbox.LaneState, shards []outbox.Shard) ([]outbox.LaneState, []outbox.Shard)
	rebalance func(h *outbox.Handover, surplus *[]int, err *error)
	renew     func(until *time.Time, err *error)
	giveUp    func(shards []outbox.Shard)
	stays     bool // Leave does nothing
	unfenced  bool // whoever's lease is over writes on
	silent    bool // it gets no error
	endpoints func(e []outbox.Endpoint) []outbox.Endpoint
	changed   func(reported []outbox.EndpointRevision) []outbox.EndpointRevision
	unheard   bool // Confirm does nothing
	expire    func(e *outbox.Endpoint, cursor *int64) bool
	trim      func() bool
	attempts  func(a []outbox.Attempt) []outbox.Attempt
	dead      func(d []DeadLetter) []DeadLetter
}

func (b *brokenLog) Join(ctx context.Context, name string, lease time.Duration, check func(string) error) (sender.Session, error) {
	if b.join != nil {
		lease, check = b.join(lease, check)
	}
	s, err := b.inMemory.Join(ctx, name, lease, check)
	b.sessions = append(b.sessions, s)
	return &brokenSession{s, b}, err
}

func (b *brokenLog) Appended() <-chan struct{} {
	if b.signal != nil {
		return b.signal
	}
	return b.inMemory.Appended()
}

func (b *brokenLog) Append(t testing.TB, drafts ...Draft) []outbox.Event {
	events := b.inMemory.Append(t, drafts...)
	if b.appends != nil {
		events = b.appends(events)
	}
	return events
}

func (b *brokenLog) Trim(t testing.TB) bool {
	if b.trim != nil {
		return b.trim()
	}
	return b.inMemory.Trim(t)
}

func (b *brokenLog) Attempts(t testing.TB, e outbox.Event) []outbox.Attempt {
	a := b.inMemory.Attempts(t, e)
	if b.attempts != nil {
		a = b.attempts(a)
	}
	return a
}

func (b *brokenLog) Dead(t testing.TB) []DeadLetter {
	d := b.inMemory.Dead(t)
	if b.dead != nil {
		d = b.dead(d)
	}
	return d
}

type brokenSession struct {
	sender.Session
	b *brokenLog
}

// write makes a write, by a session that was never dealt anything where the
// fence is broken.
func (s *brokenSession) write(f func(sender.Session) error) error {
	err := f(s.Session)
	if s.b.unfenced && errors.Is(err, outbox.ErrLeaseLost) {
		err = f(s.b.Log.Join("a ghost", time.Hour, nil))
	}
	if s.b.silent && errors.Is(err, outbox.ErrLeaseLost) {
		err = nil
	}
	return err
}

func (s *brokenSession) Tail(ctx context.Context, q outbox.TailQuery) (outbox.Stretch, error) {
	asked := q
	if s.b.ask != nil {
		s.b.ask(&q)
	}
	stretch, err := s.Session.Tail(ctx, q)
	if s.b.tail != nil {
		s.b.tail(asked, &stretch)
	}
	return stretch, err
}

func (s *brokenSession) DueRetries(ctx context.Context, q outbox.RetryQuery) (outbox.Retries, error) {
	asked := q
	if s.b.askDue != nil {
		s.b.askDue(&q)
	}
	due, err := s.Session.DueRetries(ctx, q)
	if s.b.due != nil {
		s.b.due(asked, &due)
	}
	return due, err
}

func (s *brokenSession) Settle(ctx context.Context, batch []outbox.Settlement) (states []outbox.RecordState, err error) {
	if s.b.settle != nil {
		batch = s.b.settle(slices.Clone(batch))
	}
	if s.b.each != nil {
		batch = slices.Clone(batch)
		for i := range batch {
			if batch[i].Attempt != nil {
				batch[i].Attempt = new(*batch[i].Attempt)
			}
			s.b.each(&batch[i])
		}
	}
	err = s.write(func(s sender.Session) (err error) { states, err = s.Settle(ctx, batch); return err })
	if s.b.states != nil {
		states = s.b.states(states)
	}
	return states, err
}

func (s *brokenSession) Save(ctx context.Context, lanes []outbox.LaneState, shards []outbox.Shard) error {
	if s.b.save != nil {
		lanes, shards = s.b.save(slices.Clone(lanes), shards)
	}
	return s.write(func(s sender.Session) error { return s.Save(ctx, lanes, shards) })
}

func (s *brokenSession) Rebalance(ctx context.Context) (outbox.Handover, []int, error) {
	h, surplus, err := s.Session.Rebalance(ctx)
	if s.b.rebalance != nil {
		s.b.rebalance(&h, &surplus, &err)
	}
	return h, surplus, err
}

func (s *brokenSession) Renew(ctx context.Context) (time.Time, error) {
	until, err := s.Session.Renew(ctx)
	if s.b.renew != nil {
		s.b.renew(&until, &err)
	}
	return until, err
}

func (s *brokenSession) Release(ctx context.Context, shards []outbox.Shard) error {
	if s.b.giveUp != nil {
		s.b.giveUp(shards)
	}
	return s.write(func(s sender.Session) error { return s.Release(ctx, shards) })
}

func (s *brokenSession) Leave(ctx context.Context) error {
	if s.b.stays {
		return nil
	}
	return s.Session.Leave(ctx)
}

func (s *brokenSession) Endpoints(ctx context.Context, ids []int64) ([]outbox.Endpoint, error) {
	list, err := s.Session.Endpoints(ctx, ids)
	if s.b.endpoints != nil {
		list = s.b.endpoints(list)
	}
	return list, err
}

func (s *brokenSession) EndpointsChanged(ctx context.Context, since time.Time) ([]outbox.EndpointRevision, time.Time, error) {
	reported, now, err := s.Session.EndpointsChanged(ctx, since)
	if s.b.changed != nil {
		reported = s.b.changed(reported)
	}
	return reported, now, err
}

func (s *brokenSession) Confirm(ctx context.Context, known []outbox.EndpointRevision) error {
	if s.b.unheard {
		return nil
	}
	return s.Session.Confirm(ctx, known)
}

func (s *brokenSession) Expire(ctx context.Context, e outbox.Endpoint, cursor int64) error {
	if s.b.expire != nil && !s.b.expire(&e, &cursor) {
		return nil
	}
	return s.write(func(s sender.Session) error { return s.Expire(ctx, e, cursor) })
}
