package memory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"walhook/outbox"
)

// farAhead is the longest time that a lease may have left. A sender asks for seconds,
// so a lease that ends later is from before the clock was set back.
const farAhead = 10 * time.Minute

// Session is one sender's lease of its shards, as [outbox.Session] is.
type Session struct {
	log       *Log
	name      string
	lease     time.Duration
	checkHost func(url string) error // nil allows every host

	until time.Time // guarded by log.mu
	ended bool      // by Leave, or by another sender after the lease ended; guarded by log.mu
}

// Join registers a sender whose lease ends after lease unless it is renewed. The
// session holds every endpoint whose URL checkHost rejects.
func (l *Log) Join(name string, lease time.Duration, checkHost func(url string) error) *Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &Session{log: l, name: name, lease: lease, checkHost: checkHost, until: time.Now().Add(lease)}
	l.sessions = append(l.sessions, s)
	return s
}

// fenceLocked is the check that every write of a sender makes first.
func (s *Session) fenceLocked() error {
	if s.ended || !time.Now().Before(s.until) {
		return fmt.Errorf("%w (the lease of sender %s is over)", outbox.ErrLeaseLost, s.name)
	}
	return nil
}

// Renew extends the lease and returns its end.
func (s *Session) Renew(context.Context) (time.Time, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if err := s.fenceLocked(); err != nil {
		return time.Time{}, err
	}
	s.until = time.Now().Add(s.lease)
	return s.until, nil
}

// expireSessionsLocked ends the sessions whose lease has ended, and frees their shards.
func (l *Log) expireSessionsLocked() {
	now := time.Now()
	for _, s := range slices.Clone(l.sessions) {
		if !now.Before(s.until) || s.until.After(now.Add(farAhead)) {
			l.endLocked(s)
		}
	}
}

func (l *Log) endLocked(s *Session) {
	s.ended = true
	l.sessions = slices.DeleteFunc(l.sessions, func(o *Session) bool { return o == s })
	for i := range l.shards {
		if l.shards[i].holder == s {
			l.shards[i].holder = nil
		}
	}
}

// Rebalance frees the shards of senders whose lease has ended, takes free shards up to
// this sender's fair share, and names the shards that it holds beyond that share.
func (s *Session) Rebalance(context.Context) (gained outbox.Handover, surplus []int, err error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireSessionsLocked()
	if s.ended {
		return outbox.Handover{}, nil, fmt.Errorf("rebalance shards: %w", outbox.ErrLeaseLost)
	}
	var held []int
	for id := range l.shards {
		if l.shards[id].holder == s {
			held = append(held, id)
		}
	}
	share := (outbox.Shards + len(l.sessions) - 1) / len(l.sessions)
	if len(held) > share {
		return outbox.Handover{}, held[share:], nil
	}
	for id := range l.shards {
		if free := &l.shards[id]; free.holder == nil && len(held)+len(gained.Shards) < share {
			free.holder = s
			gained.Shards = append(gained.Shards, outbox.Shard{ID: id, Tail: free.tail})
		}
	}
	if len(gained.Shards) > 0 {
		l.handOverLocked(&gained)
	}
	return gained, nil, nil
}

// handOverLocked reads the state from which the new owner of h.Shards starts.
func (l *Log) handOverLocked(h *outbox.Handover) {
	mine := func(endpoint int64) bool {
		return slices.ContainsFunc(h.Shards, func(s outbox.Shard) bool { return s.ID == outbox.ShardOf(endpoint) })
	}
	if n := len(l.events); n > 0 {
		h.Horizon = l.events[n-1].ID
	}
	for id, lane := range l.lanes {
		if mine(id) {
			h.Lanes = append(h.Lanes, lane)
		}
	}
	seen := map[recordRef]bool{}
	for _, r := range l.retries {
		if ref := (recordRef{r.Event.Endpoint, r.Event.Record}); mine(ref.endpoint) && !seen[ref] {
			seen[ref] = true
			h.Blocked = append(h.Blocked, l.stateLocked(ref))
		}
	}
}

// Save stores lanes and shard tails. It drops a lane without state to store. It does
// not change the tail of a shard that another sender holds, and moves no tail back.
func (s *Session) Save(_ context.Context, lanes []outbox.LaneState, shards []outbox.Shard) error {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.fenceLocked(); err != nil {
		return err
	}
	for _, lane := range lanes {
		if !lane.Behind && !lane.Open && lane.Opens == 0 && lane.PausedUntil.IsZero() && lane.FailingSince.IsZero() && lane.HeldSince.IsZero() {
			delete(l.lanes, lane.Endpoint)
		} else {
			l.lanes[lane.Endpoint] = lane
		}
	}
	for _, given := range shards {
		if stored := &l.shards[given.ID]; stored.holder == s {
			stored.tail = max(stored.tail, given.Tail)
		}
	}
	return nil
}

// Release stores the tails of drained shards and releases them.
func (s *Session) Release(_ context.Context, shards []outbox.Shard) error {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.fenceLocked(); err != nil {
		return err
	}
	for _, given := range shards {
		if stored := &l.shards[given.ID]; stored.holder == s {
			stored.tail, stored.holder = max(stored.tail, given.Tail), nil
		}
	}
	return nil
}

// Leave ends the session and frees its shards.
func (s *Session) Leave(context.Context) error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.endLocked(s)
	return nil
}

// Tail reads a stretch of the event log: the events of shards, or of one endpoint, in
// order of id.
func (s *Session) Tail(_ context.Context, q outbox.TailQuery) (outbox.Stretch, error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	stretch := outbox.Stretch{Upto: q.After}
	events := l.events
	if q.Endpoint != 0 {
		events = l.of[q.Endpoint]
	}
	now := time.Now()
	read, size, most := 0, 0, max(q.MaxBytes, 1)
	from, _ := slices.BinarySearchFunc(events, q.After+1, byID)
	for _, e := range events[from:] {
		if q.Upto != 0 && e.ID > q.Upto || read >= q.Limit || size >= most {
			break
		}
		read++
		stretch.Upto = e.ID
		wanted := q.Endpoint != 0 || slices.Contains(q.Shards, outbox.ShardOf(e.Endpoint))
		if wanted && !(q.Unsettled && l.settledLocked(e.ID)) {
			e.ReadAt = now
			stretch.Events = append(stretch.Events, e)
			size += len(e.Body)
		}
	}
	stretch.More = read >= q.Limit || size >= most
	if !stretch.More && q.Upto != 0 {
		stretch.Upto = q.Upto
	}
	return stretch, nil
}

// Endpoints reads the present state of the named endpoints; it leaves out those that
// do not exist.
func (s *Session) Endpoints(_ context.Context, ids []int64) (endpoints []outbox.Endpoint, err error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	seen := map[int64]bool{}
	for _, id := range ids {
		if e := s.log.endpoints[id]; e != nil && !seen[id] {
			seen[id] = true
			endpoints = append(endpoints, s.held(e.Endpoint))
		}
	}
	return endpoints, nil
}

// held returns an endpoint, unusable if checkHost rejects its URL.
func (s *Session) held(e outbox.Endpoint) outbox.Endpoint {
	if s.checkHost == nil || e.State != outbox.EndpointActive {
		return e
	}
	if err := s.checkHost(e.URL); err != nil {
		e.State, e.Reason, e.Unreadable = outbox.EndpointUnusable, err.Error(), true
	}
	return e
}

// EndpointsChanged returns the endpoints of the held shards that changed since an
// instant, or whose URL checkHost rejects, and the instant for the next call.
func (s *Session) EndpointsChanged(_ context.Context, since time.Time) (changed []outbox.EndpointRevision, now time.Time, err error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.endpoints {
		if l.shards[outbox.ShardOf(id)].holder != s || e.changedAt.Before(since) && !s.held(e.Endpoint).Unreadable {
			continue
		}
		changed = append(changed, outbox.EndpointRevision{ID: id, Revision: e.Revision, Confirm: e.awaited && e.confirmed < e.Revision})
	}
	return changed, time.Now(), nil
}

// Confirm notes that this sender starts no more attempts under older revisions of
// these endpoints.
func (s *Session) Confirm(_ context.Context, known []outbox.EndpointRevision) error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for _, k := range known {
		if e := s.log.endpoints[k.ID]; k.Confirm && e != nil {
			e.confirmed = max(e.confirmed, k.Revision)
		}
	}
	return nil
}

// Expire makes dead letters of an endpoint's undelivered events after cursor, and of
// its rows in retry, that belong to an earlier feed or are past retention.
func (s *Session) Expire(_ context.Context, e outbox.Endpoint, cursor int64) error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if err := s.fenceLocked(); err != nil {
		return err
	}
	s.log.expireLocked(e, cursor)
	return nil
}
