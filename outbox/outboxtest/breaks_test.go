package outboxtest

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/outbox/outboxtest/memory"
)

// recorder is a test whose failure is what is wanted.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Failed() bool          { return r.failed }
func (r *recorder) Error(...any)          { r.failed = true }
func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Fatal(...any)          { r.FailNow() }
func (r *recorder) Fatalf(string, ...any) { r.FailNow() }
func (r *recorder) FailNow() {
	r.failed = true
	runtime.Goexit()
}

// red runs a case on a log and says whether it failed, in time of its own.
func red(t *testing.T, c testCase, open func() Harness) bool {
	failed := false
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() {
				if recover() != nil { // a case may reach for what is not there
					r.failed = true
				}
			}()
			c.run(newCase(r, open()))
		}()
		<-done
		failed = r.failed
	})
	return failed
}

// Each break of a promise turns at least one case red, and each case is turned
// red by at least one break. So a case that asks for nothing is seen, and so is a
// promise that nobody asks for.
func TestBreaks_TurnTheSuiteRed(t *testing.T) {
	t.Parallel()
	all := cases()
	for _, c := range all {
		if red(t, c, func() Harness { return newMemory() }) {
			t.Fatalf("red without a break: %s", c.name)
		}
	}
	turned := make([]bool, len(all)) // red by any break so far
	for _, name := range slices.Sorted(maps.Keys(breaks)) {
		open := func() Harness {
			b := &brokenLog{inMemory: newMemory(), held: map[int]int64{}, seen: map[int64]struct{}{}}
			breaks[name](b)
			return b
		}
		// Those that no break has turned red yet, and where that does not help
		// the others, until one is.
		seen := false
		before := slices.Clone(turned)
		for i, c := range all {
			if !before[i] && red(t, c, open) {
				turned[i], seen = true, true
			}
		}
		for i, c := range all {
			seen = seen || before[i] && red(t, c, open)
		}
		if !seen {
			t.Errorf("no case sees that %s", name)
		}
	}
	for i, c := range all {
		if !turned[i] {
			t.Errorf("no break turns this case red: %s", c.name)
		}
	}
}

var breaks = map[string]func(b *brokenLog){
	// Append and tail.
	"events come in another order": func(b *brokenLog) {
		b.tail = func(_ outbox.TailQuery, s *outbox.Stretch) { slices.Reverse(s.Events) }
	},
	"an event is lost at a bound": func(b *brokenLog) {
		b.tail = func(_ outbox.TailQuery, s *outbox.Stretch) {
			if n := len(s.Events); s.More && n > 0 {
				s.Events = s.Events[:n-1]
			}
		}
	},
	"a tail reads every shard": func(b *brokenLog) {
		b.ask = func(q *outbox.TailQuery) {
			for id := range outbox.Shards {
				q.Shards = append(q.Shards, id)
			}
		}
	},
	"a tail begins with the event before": func(b *brokenLog) {
		b.ask = func(q *outbox.TailQuery) { q.After = max(q.After-1, 0) }
	},
	"a tail reads beyond its bound": func(b *brokenLog) {
		b.ask = func(q *outbox.TailQuery) { q.Upto = 0 }
	},
	"a lane reads its shard": func(b *brokenLog) {
		b.ask = func(q *outbox.TailQuery) {
			if q.Endpoint != 0 {
				q.Shards, q.Endpoint = []int{outbox.ShardOf(q.Endpoint)}, 0
			}
		}
	},
	"a tail has come as far as its last event": func(b *brokenLog) {
		b.tail = func(q outbox.TailQuery, s *outbox.Stretch) {
			if s.Upto = q.After; len(s.Events) > 0 {
				s.Upto = s.Events[len(s.Events)-1].ID
			}
		}
	},
	"a tail never says that there is more": func(b *brokenLog) {
		b.tail = func(_ outbox.TailQuery, s *outbox.Stretch) { s.More = false }
	},
	"a tail reads more bytes than there is room for": func(b *brokenLog) {
		b.ask = func(q *outbox.TailQuery) { q.MaxBytes = 1 << 30 }
	},
	"a tail reads nothing without room": func(b *brokenLog) {
		b.tail = func(q outbox.TailQuery, s *outbox.Stretch) {
			if q.MaxBytes < 100 {
				s.Events = nil
			}
		}
	},
	"long bodies are cut": func(b *brokenLog) {
		b.tail = func(_ outbox.TailQuery, s *outbox.Stretch) {
			for i := range s.Events {
				s.Events[i].Body = s.Events[i].Body[:min(len(s.Events[i].Body), 64<<10)]
			}
		}
	},
	"the webhook-id is lost": func(b *brokenLog) {
		b.tail = func(_ outbox.TailQuery, s *outbox.Stretch) {
			for i := range s.Events {
				s.Events[i].WebhookID = ""
			}
		}
	},
	"the revision is always the first": func(b *brokenLog) {
		b.tail = func(_ outbox.TailQuery, s *outbox.Stretch) {
			for i := range s.Events {
				s.Events[i].Revision = 1
			}
		}
	},
	"it is not said when an event was read": func(b *brokenLog) {
		b.tail = func(_ outbox.TailQuery, s *outbox.Stretch) {
			for i := range s.Events {
				s.Events[i].ReadAt = time.Time{}
			}
		}
	},
	"nobody is woken":                       func(b *brokenLog) { b.signal = make(chan struct{}) },
	"what is settled is read again":         func(b *brokenLog) { b.ask = func(q *outbox.TailQuery) { q.Unsettled = false } },
	"what is settled is read by nobody":     func(b *brokenLog) { b.ask = func(q *outbox.TailQuery) { q.Unsettled = true } },
	"of what is unsettled the last is lost": unsettledLoses,

	// Leases.
	"everybody gains every shard": func(b *brokenLog) {
		b.rebalance = func(h *outbox.Handover, surplus *[]int, err *error) {
			h.Shards, *surplus = nil, nil
			for id := range outbox.Shards {
				h.Shards = append(h.Shards, outbox.Shard{ID: id})
			}
		}
	},
	"a shard is left to nobody": func(b *brokenLog) {
		b.rebalance = func(h *outbox.Handover, _ *[]int, _ *error) { h.Shards = h.Shards[:max(len(h.Shards)-1, 0)] }
	},
	"no sender is notified that it holds too many": func(b *brokenLog) {
		b.rebalance = func(_ *outbox.Handover, surplus *[]int, _ *error) { *surplus = nil }
	},
	"a sender without a lease gains nothing and gets no error": func(b *brokenLog) {
		b.rebalance = func(_ *outbox.Handover, _ *[]int, err *error) { *err = nil }
	},
	"a lease that is over is renewed": func(b *brokenLog) {
		b.renew = func(until *time.Time, err *error) { *until, *err = time.Now().Add(time.Minute), nil }
	},
	"a lease lasts longer than asked for": func(b *brokenLog) {
		b.renew = func(until *time.Time, _ *error) { *until = until.Add(time.Minute) }
	},
	"a lease never ends by itself": func(b *brokenLog) {
		b.join = func(_ time.Duration, c func(string) error) (time.Duration, func(string) error) { return time.Hour, c }
	},
	"renewing ends the lease": func(b *brokenLog) {
		b.renew = func(*time.Time, *error) { b.Log.Lapse("") }
	},
	"whoever's lease is over writes on":          func(b *brokenLog) { b.unfenced = true },
	"whoever's lease is over takes it as stored": func(b *brokenLog) { b.silent = true },
	"shards are released without their tails": func(b *brokenLog) {
		b.giveUp = func(shards []outbox.Shard) {
			for i := range shards {
				shards[i].Tail = 0
			}
		}
	},
	"a shard is released by anybody": func(b *brokenLog) {
		b.giveUp = func(shards []outbox.Shard) {
			for _, s := range b.sessions {
				_ = s.Release(context.Background(), shards)
			}
		}
	},
	"a tail is saved by anybody": func(b *brokenLog) {
		b.save = func(lanes []outbox.LaneState, shards []outbox.Shard) ([]outbox.LaneState, []outbox.Shard) {
			for _, s := range b.sessions {
				_ = s.Save(context.Background(), nil, shards)
			}
			return lanes, shards
		}
	},
	"leaving frees nothing": func(b *brokenLog) { b.stays = true },

	// Settlement.
	"an attempt that is settled again is stored again": func(b *brokenLog) {
		b.each = func(s *outbox.Settlement) {
			if s.Attempt != nil {
				b.seen[int64(len(b.seen))] = struct{}{}
				s.Attempt.At = s.Attempt.At.Add(time.Duration(len(b.seen)))
			}
		}
	},
	"what an attempt says is not stored": func(b *brokenLog) { b.each = changeAttempt(func(a *outbox.Attempt) { a.Detail = "" }) },
	"an attempt is not stored":           func(b *brokenLog) { b.each = func(s *outbox.Settlement) { s.Attempt = nil } },
	"the end of a long batch is lost": func(b *brokenLog) {
		b.settle = func(batch []outbox.Settlement) []outbox.Settlement { return batch[:min(len(batch), 100)] }
	},
	"the first of a batch is lost": func(b *brokenLog) {
		b.settle = func(batch []outbox.Settlement) []outbox.Settlement { return batch[min(len(batch), 1):] }
	},
	"it is not answered how records stand": func(b *brokenLog) {
		b.states = func([]outbox.RecordState) []outbox.RecordState { return nil }
	},
	"records that have left retry are answered as blocked": func(b *brokenLog) {
		b.states = func(states []outbox.RecordState) []outbox.RecordState {
			for i := range states {
				states[i].Blocked = true
			}
			return states
		}
	},
	"a record is answered as due never": func(b *brokenLog) {
		b.states = func(states []outbox.RecordState) []outbox.RecordState {
			for i := range states {
				states[i].NextAt = states[i].NextAt.Add(24 * time.Hour)
			}
			return states
		}
	},
	"a dead letter loses its body": func(b *brokenLog) { b.dead = changeDead(func(d *DeadLetter) { d.Event.Body = nil }) },
	"a dead letter does not count attempts": func(b *brokenLog) {
		b.dead = changeDead(func(d *DeadLetter) { d.Attempts = 0 })
	},
	"a dead event is none":   func(b *brokenLog) { b.each = dispose(outbox.Dead, outbox.Delivered) },
	"a delivered event dies": func(b *brokenLog) { b.each = dispose(outbox.Delivered, outbox.Dead) },
	"what is delivered stays in retry": func(b *brokenLog) {
		b.each = func(s *outbox.Settlement) { s.FromRetry = false }
	},
	"an answer disables whatever the endpoint is by now": func(b *brokenLog) {
		b.each = func(s *outbox.Settlement) {
			if s.Disable != "" {
				s.Attempt.Revision = b.View().Endpoints[s.Event.Endpoint].Revision
			}
		}
	},
	"no answer disables": func(b *brokenLog) { b.each = func(s *outbox.Settlement) { s.Disable = "" } },
	"each answer that disables does so again": func(b *brokenLog) {
		b.each = func(s *outbox.Settlement) {
			if s.Disable != "" {
				b.Change(s.Event.Endpoint, func(e *outbox.Endpoint) { e.State, e.Reason = outbox.EndpointDisabled, s.Disable })
			}
		}
	},
	"disabling one disables its shard": func(b *brokenLog) {
		b.each = func(s *outbox.Settlement) {
			for id := range b.View().Endpoints {
				if s.Disable != "" && id != s.Event.Endpoint && outbox.ShardOf(id) == outbox.ShardOf(s.Event.Endpoint) {
					b.Change(id, func(e *outbox.Endpoint) { e.State, e.Reason = outbox.EndpointDisabled, s.Disable })
				}
			}
		}
	},
	"a pause is a failure like others": func(b *brokenLog) {
		b.each = changeAttempt(func(a *outbox.Attempt) { a.Outcome = strings.Replace(a.Outcome, "pause", "retry", 1) })
	},

	// Retries.
	"what failed is due at once": func(b *brokenLog) { b.each = func(s *outbox.Settlement) { s.RetryAt = time.Now() } },
	"what failed is due late": func(b *brokenLog) {
		b.each = func(s *outbox.Settlement) { s.RetryAt = s.RetryAt.Add(30 * time.Minute) }
	},
	"attempts are not counted": func(b *brokenLog) {
		b.due = func(_ outbox.RetryQuery, d *outbox.Retries) {
			for i := range d.Events {
				d.Events[i].Attempts = 0
			}
		}
	},
	"bodies of what is due are cut": func(b *brokenLog) {
		b.due = func(_ outbox.RetryQuery, d *outbox.Retries) {
			for i := range d.Events {
				d.Events[i].Body = d.Events[i].Body[:min(len(d.Events[i].Body), 1000)]
			}
		}
	},
	"it is not said when the next is due": func(b *brokenLog) {
		b.due = func(_ outbox.RetryQuery, d *outbox.Retries) { d.Next = time.Time{} }
	},
	"what is due comes by id": func(b *brokenLog) {
		b.due = func(_ outbox.RetryQuery, d *outbox.Retries) {
			slices.SortFunc(d.Events, func(a, b outbox.Event) int { return int(a.ID - b.ID) })
		}
	},
	"more is due than was asked for":     func(b *brokenLog) { b.askDue = func(q *outbox.RetryQuery) { q.Limit = 1000 } },
	"what is due has no bound of bytes":  func(b *brokenLog) { b.askDue = func(q *outbox.RetryQuery) { q.MaxBytes = 1 << 30 } },
	"no batch is read whole":             func(b *brokenLog) { b.askDue = func(q *outbox.RetryQuery) { q.Batches = false } },
	"all is read by batches":             func(b *brokenLog) { b.askDue = func(q *outbox.RetryQuery) { q.Batches = true } },
	"no batch is stored":                 func(b *brokenLog) { b.each = func(s *outbox.Settlement) { s.Batch = 0 } },
	"what waits in a batch is due":       func(b *brokenLog) { b.each = func(s *outbox.Settlement) { s.Behind = false } },
	"what is in flight is due again":     func(b *brokenLog) { b.askDue = func(q *outbox.RetryQuery) { q.Exclude = nil } },
	"it is not said that more is due":    func(b *brokenLog) { b.due = func(_ outbox.RetryQuery, d *outbox.Retries) { d.More = false } },
	"the clock of who asks decides":      dueByTheAskersClock,
	"what is due is a whole shard's":     dueOfTheShard,
	"one record waits for another":       dueOfOneRecord,
	"nothing waits behind what failed":   func(b *brokenLog) { b.each = parkedIsDue },
	"what waited is never due":           waitsForEver,
	"what is parked is not kept":         func(b *brokenLog) { b.settle = withoutParked },
	"what is parked again starts afresh": parksAfresh,

	// Lanes and hand-over.
	"lanes are not handed over": handedOver(func(h *outbox.Handover) { h.Lanes = nil }),
	"a lane is handed over without its breaker": handedOver(func(h *outbox.Handover) {
		for i := range h.Lanes {
			h.Lanes[i].OpenUntil = time.Time{}
		}
	}),
	"a lane is handed over without its warnings": handedOver(func(h *outbox.Handover) {
		for i := range h.Lanes {
			h.Lanes[i].Stage = 0
		}
	}),
	"a lane is handed over without what holds it": handedOver(func(h *outbox.Handover) {
		for i := range h.Lanes {
			h.Lanes[i].HeldSince, h.Lanes[i].HeldReason = time.Time{}, ""
		}
	}),
	"a lane is saved once": func(b *brokenLog) {
		b.save = func(lanes []outbox.LaneState, shards []outbox.Shard) ([]outbox.LaneState, []outbox.Shard) {
			return slices.DeleteFunc(lanes, func(l outbox.LaneState) bool {
				_, before := b.seen[l.Endpoint]
				b.seen[l.Endpoint] = struct{}{}
				return before
			}), shards
		}
	},
	"lanes of all shards are handed over": handedOverFrom(func(v memory.View, h *outbox.Handover) {
		h.Lanes = slices.Collect(maps.Values(v.Lanes))
	}),
	"a tail is handed over as nothing": handedOver(func(h *outbox.Handover) {
		for i := range h.Shards {
			h.Shards[i].Tail = 0
		}
	}),
	"a tail moves back": func(b *brokenLog) {
		b.save = func(lanes []outbox.LaneState, shards []outbox.Shard) ([]outbox.LaneState, []outbox.Shard) {
			for _, s := range shards {
				b.held[s.ID] = s.Tail
			}
			return lanes, shards
		}
		b.rebalance = func(h *outbox.Handover, _ *[]int, _ *error) {
			for i, s := range h.Shards {
				h.Shards[i].Tail = min(s.Tail, b.held[s.ID])
			}
		}
	},
	"the horizon is missing":                   handedOver(func(h *outbox.Handover) { h.Horizon = 0 }),
	"records in retry are not handed over":     handedOver(func(h *outbox.Handover) { h.Blocked = nil }),
	"records are handed over as due at once":   handedOver(func(h *outbox.Handover) { dueAtOnce(h.Blocked) }),
	"records of all shards are handed over":    handedOverFrom(allBlocked),
	"everything is read as settled by another": func(b *brokenLog) { b.tail = nothingUnsettled },

	// Endpoints.
	"endpoints are read as they were at first": endpointsAsAtFirst,
	"an endpoint is read as often as it is named": func(b *brokenLog) {
		b.endpoints = func(e []outbox.Endpoint) []outbox.Endpoint { return append(e, e...) }
	},
	"a feed never ends": func(b *brokenLog) {
		b.endpoints = func(e []outbox.Endpoint) []outbox.Endpoint {
			for i := range e {
				e[i].FeedFrom = 0
			}
			return e
		}
	},
	"no change is reported": func(b *brokenLog) {
		b.changed = func([]outbox.EndpointRevision) []outbox.EndpointRevision { return nil }
	},
	"every endpoint is reported to everybody": func(b *brokenLog) {
		b.changed = func(reported []outbox.EndpointRevision) []outbox.EndpointRevision {
			for id, e := range b.View().Endpoints {
				reported = append(reported, outbox.EndpointRevision{ID: id, Revision: e.Revision})
			}
			return reported
		}
	},
	"an endpoint is reported once": func(b *brokenLog) {
		b.changed = func(reported []outbox.EndpointRevision) []outbox.EndpointRevision {
			return slices.DeleteFunc(reported, func(r outbox.EndpointRevision) bool {
				_, before := b.seen[r.ID]
				b.seen[r.ID] = struct{}{}
				return before
			})
		}
	},
	"every host is allowed": func(b *brokenLog) {
		b.join = func(lease time.Duration, _ func(string) error) (time.Duration, func(string) error) { return lease, nil }
	},
	"what is confirmed is not stored": func(b *brokenLog) { b.unheard = true },
	"nobody is asked to confirm": func(b *brokenLog) {
		b.changed = func(reported []outbox.EndpointRevision) []outbox.EndpointRevision {
			for i := range reported {
				reported[i].Confirm = false
			}
			return reported
		}
	},

	// Expiry and trimming.
	"nothing expires": func(b *brokenLog) { b.expire = func(*outbox.Endpoint, *int64) bool { return false } },
	"everything of the endpoint expires": func(b *brokenLog) {
		b.expire = func(e *outbox.Endpoint, _ *int64) bool { e.FeedFrom = 1 << 40; return true }
	},
	"what is settled as far as the lane knows expires": func(b *brokenLog) {
		b.expire = func(_ *outbox.Endpoint, cursor *int64) bool { *cursor = 0; return true }
	},
	"all that expires is of an earlier feed": func(b *brokenLog) {
		b.dead = changeDead(func(d *DeadLetter) { d.Reason = strings.Replace(d.Reason, "retention", "expired", 1) })
	},
	"what expires again is a dead letter again": func(b *brokenLog) {
		n := 0
		b.expire = func(*outbox.Endpoint, *int64) bool { n++; return true }
		b.dead = func(d []DeadLetter) []DeadLetter { return slices.Repeat(d, max(n, 1)) }
	},
	"what is undelivered is trimmed without a dead letter": func(b *brokenLog) {
		b.dead = func(d []DeadLetter) []DeadLetter {
			return slices.DeleteFunc(d, func(d DeadLetter) bool { return d.Reason == "retention" })
		}
	},
	"nothing is ever trimmed":                func(b *brokenLog) { b.trim = func() bool { return false } },
	"it only says that it trimmed":           func(b *brokenLog) { b.trim = func() bool { return true } },
	"what is young is trimmed":               func(b *brokenLog) { b.trim = func() bool { return b.Log.Trim(b.Next()) } },
	"it is trimmed under who may be sending": func(b *brokenLog) { b.trim = func() bool { b.Log.Lapse(""); return b.Log.Trim(b.old) } },
}

func unsettledLoses(b *brokenLog) {
	b.tail = func(q outbox.TailQuery, s *outbox.Stretch) {
		if n := len(s.Events); q.Unsettled && n > 0 {
			s.Events = s.Events[:n-1]
		}
	}
}

func nothingUnsettled(q outbox.TailQuery, s *outbox.Stretch) {
	if q.Unsettled {
		s.Events = nil
	}
}

func changeAttempt(change func(*outbox.Attempt)) func(*outbox.Settlement) {
	return func(s *outbox.Settlement) {
		if s.Attempt != nil {
			change(s.Attempt)
		}
	}
}

func changeDead(change func(*DeadLetter)) func([]DeadLetter) []DeadLetter {
	return func(d []DeadLetter) []DeadLetter {
		for i := range d {
			change(&d[i])
		}
		return d
	}
}

func dispose(from, to outbox.Disposition) func(*outbox.Settlement) {
	return func(s *outbox.Settlement) {
		if s.Disposition == from {
			s.Disposition = to
		}
	}
}

func dueByTheAskersClock(b *brokenLog) {
	b.due = func(q outbox.RetryQuery, d *outbox.Retries) {
		if q.Now.Before(time.Now()) {
			d.Events = nil
		}
	}
}

func dueOfTheShard(b *brokenLog) {
	b.due = func(q outbox.RetryQuery, d *outbox.Retries) {
		for id := range b.View().Endpoints {
			if id != q.Endpoint && outbox.ShardOf(id) == outbox.ShardOf(q.Endpoint) {
				q := q
				q.Endpoint = id
				more, err := b.Log.Join("a ghost", time.Hour, nil).DueRetries(context.Background(), q)
				if err != nil {
					panic(err)
				}
				d.Events = append(d.Events, more.Events...)
			}
		}
	}
}

func dueOfOneRecord(b *brokenLog) {
	b.due = func(q outbox.RetryQuery, d *outbox.Retries) {
		oldest := int64(0)
		for id, r := range b.View().Retries {
			if r.Event.Endpoint == q.Endpoint && (oldest == 0 || id < oldest) {
				oldest = id
			}
		}
		d.Events = slices.DeleteFunc(d.Events, func(e outbox.Event) bool { return e.ID != oldest })
	}
}

func parkedIsDue(s *outbox.Settlement) {
	if s.Disposition == outbox.Parked {
		s.Disposition, s.RetryAt = outbox.Retry, time.Now()
	}
}

func withoutParked(batch []outbox.Settlement) []outbox.Settlement {
	return slices.DeleteFunc(batch, func(s outbox.Settlement) bool { return s.Disposition == outbox.Parked })
}

func waitsForEver(b *brokenLog) {
	b.due = func(_ outbox.RetryQuery, d *outbox.Retries) {
		d.Events = slices.DeleteFunc(d.Events, func(e outbox.Event) bool { return e.Attempts == 0 })
	}
}

func parksAfresh(b *brokenLog) {
	b.settle = func(batch []outbox.Settlement) []outbox.Settlement {
		for _, s := range batch {
			if s.Disposition == outbox.Parked {
				batch = append([]outbox.Settlement{{Event: s.Event, Disposition: outbox.Delivered, FromRetry: true}}, batch...)
			}
		}
		return batch
	}
}

func handedOver(change func(h *outbox.Handover)) func(*brokenLog) {
	return func(b *brokenLog) { b.rebalance = func(h *outbox.Handover, _ *[]int, _ *error) { change(h) } }
}

func handedOverFrom(change func(v memory.View, h *outbox.Handover)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.rebalance = func(h *outbox.Handover, _ *[]int, _ *error) {
			if len(h.Shards) > 0 {
				change(b.View(), h)
			}
		}
	}
}

func dueAtOnce(states []outbox.RecordState) {
	for i := range states {
		states[i].NextAt = time.Now()
	}
}

func allBlocked(v memory.View, h *outbox.Handover) {
	h.Blocked = nil
	seen := map[string]bool{}
	for _, r := range v.Retries {
		if key := fmt.Sprint(r.Event.Endpoint, r.Event.Record); !seen[key] {
			seen[key] = true
			h.Blocked = append(h.Blocked, outbox.RecordState{Endpoint: r.Event.Endpoint, Record: r.Event.Record, Blocked: true, NextAt: r.Due})
		}
	}
}

func endpointsAsAtFirst(b *brokenLog) {
	first := map[int64]outbox.Endpoint{}
	b.endpoints = func(list []outbox.Endpoint) []outbox.Endpoint {
		for i, e := range list {
			if _, known := first[e.ID]; !known {
				e.Revision, e.URL, e.State, e.FeedFrom = 1, fmt.Sprint("https://example.com/", e.ID), outbox.EndpointActive, 0
				first[e.ID] = e
			}
			list[i] = first[e.ID]
		}
		return list
	}
}
