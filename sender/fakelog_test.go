package sender

import (
	"context"
	"sync"
	"time"

	"walhook/outbox"
	"walhook/outbox/outboxtest/memory"
	"walhook/sender/deliver"
)

// fakeLog is an event log in memory whose calls fail where a test says so. The
// log itself keeps what package outboxtest asks of every log.
type fakeLog struct {
	*memory.Log

	mu          sync.Mutex // guards all below
	away        error      // what calls answer while not nil
	lostRelease error      // the answer to Release, which releases the shards all the same
	surplus     []int      // that the next rebalancing names
	unseen      bool       // no change of an endpoint is reported
	left        int
	givenUp     int
	saves       int
	read        int // bytes of bodies, by the tail
}

func newFakeLog(endpoints ...outbox.Endpoint) *fakeLog {
	return &fakeLog{Log: memory.New(endpoints...)}
}

func (f *fakeLog) append(events ...outbox.Event) { f.Append(events...) }

func (f *fakeLog) set(e outbox.Endpoint) { f.Set(e) }

// fault changes what fails.
func (f *fakeLog) fault(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeLog) absent() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// Join allows every host: those of these tests are names alone.
func (f *fakeLog) Join(_ context.Context, name string, lease time.Duration, _ func(string) error) (Session, error) {
	if err := f.absent(); err != nil {
		return nil, err
	}
	return &fakeSession{Session: f.Log.Join(name, lease, nil), log: f}, nil
}

// settled settles a batch as an owner did that is gone.
func (f *fakeLog) settled(ctx context.Context, batch ...outbox.Settlement) error {
	earlier := f.Log.Join("an earlier owner", time.Minute, nil)
	if _, err := earlier.Settle(ctx, batch); err != nil {
		return err
	}
	return earlier.Leave(ctx)
}

// fakeSession asks the log, unless a call is to fail.
type fakeSession struct {
	Session
	log *fakeLog
}

func (s *fakeSession) Tail(ctx context.Context, q outbox.TailQuery) (stretch outbox.Stretch, err error) {
	if err := s.log.absent(); err != nil {
		return stretch, err
	}
	stretch, err = s.Session.Tail(ctx, q)
	s.log.fault(func() {
		for i := range stretch.Events {
			if q.Endpoint == 0 {
				s.log.read += len(stretch.Events[i].Body)
			}
		}
	})
	return stretch, err
}

func (s *fakeSession) Expire(ctx context.Context, e outbox.Endpoint, cursor int64) error {
	if err := s.log.absent(); err != nil {
		return err
	}
	return s.Session.Expire(ctx, e, cursor)
}

func (s *fakeSession) Settle(ctx context.Context, batch []outbox.Settlement) ([]outbox.RecordState, error) {
	if err := s.log.absent(); err != nil {
		return nil, err
	}
	return s.Session.Settle(ctx, batch)
}

func (s *fakeSession) DueRetries(ctx context.Context, q outbox.RetryQuery) (outbox.Retries, error) {
	if err := s.log.absent(); err != nil {
		return outbox.Retries{}, err
	}
	return s.Session.DueRetries(ctx, q)
}

func (s *fakeSession) Save(ctx context.Context, lanes []outbox.LaneState, shards []outbox.Shard) error {
	if err := s.log.absent(); err != nil {
		return err
	}
	s.log.fault(func() { s.log.saves++ })
	return s.Session.Save(ctx, lanes, shards)
}

func (s *fakeSession) Endpoints(ctx context.Context, ids []int64) ([]outbox.Endpoint, error) {
	if err := s.log.absent(); err != nil {
		return nil, err
	}
	return s.Session.Endpoints(ctx, ids)
}

func (s *fakeSession) EndpointsChanged(ctx context.Context, since time.Time) (changed []outbox.EndpointRevision, now time.Time, err error) {
	if err := s.log.absent(); err != nil {
		return nil, since, err
	}
	changed, now, err = s.Session.EndpointsChanged(ctx, since)
	s.log.fault(func() {
		if s.log.unseen {
			changed = nil
		}
	})
	return changed, now, err
}

func (s *fakeSession) Renew(ctx context.Context) (time.Time, error) {
	if err := s.log.absent(); err != nil {
		return time.Time{}, err
	}
	return s.Session.Renew(ctx)
}

func (s *fakeSession) Rebalance(ctx context.Context) (gained outbox.Handover, surplus []int, err error) {
	if err := s.log.absent(); err != nil {
		return gained, nil, err
	}
	s.log.fault(func() { surplus, s.log.surplus = s.log.surplus, nil })
	if surplus != nil {
		return gained, surplus, nil
	}
	return s.Session.Rebalance(ctx)
}

func (s *fakeSession) Release(ctx context.Context, shards []outbox.Shard) error {
	if err := s.log.absent(); err != nil {
		return err
	}
	err := s.Session.Release(ctx, shards)
	s.log.fault(func() {
		s.log.givenUp++
		if s.log.lostRelease != nil {
			err = s.log.lostRelease
		}
	})
	return err
}

func (s *fakeSession) Leave(ctx context.Context) error {
	s.log.fault(func() { s.log.left++ })
	if err := s.log.absent(); err != nil {
		return err
	}
	return s.Session.Leave(ctx)
}

// view is a copy to look at.
func (f *fakeLog) view() fakeView {
	v := f.View()
	view := fakeView{attempts: v.Attempts, retry: v.Retries, dead: map[int64]string{}, lanes: v.Lanes, endpoints: v.Endpoints, tails: v.Tails}
	for id, d := range v.Dead {
		view.dead[id] = d.Reason
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	view.left, view.saves = f.left, f.saves
	return view
}

type fakeView struct {
	attempts  map[int64][]outbox.Attempt // by event
	retry     map[int64]memory.Retry
	dead      map[int64]string
	lanes     map[int64]outbox.LaneState
	endpoints map[int64]outbox.Endpoint
	tails     [outbox.Shards]int64
	left      int
	saves     int
}

// delivered lists the events with a delivered attempt, and how often.
func (f *fakeLog) delivered() map[int64]int {
	counts := map[int64]int{}
	for id, attempts := range f.View().Attempts {
		for _, a := range attempts {
			if a.Outcome == string(deliver.Delivered) {
				counts[id]++
			}
		}
	}
	return counts
}
