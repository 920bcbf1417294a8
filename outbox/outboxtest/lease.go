package outboxtest

import (
	"errors"
	"slices"
	"sync"
	"time"

	"walhook/outbox"
)

func leaseCases() []testCase {
	return []testCase{
		{"the only sender gains every shard", func(w *world) {
			_, gained := w.owner()
			var want []outbox.Shard
			for id := range outbox.Shards {
				want = append(want, outbox.Shard{ID: id})
			}
			if got := sortShards(gained.Shards); !slices.Equal(got, want) {
				w.Errorf("gained %v", got)
			}
		}},
		{"a shard that is held is gained by nobody else", func(w *world) {
			w.owner()
			_, gained := w.owner()
			if len(gained.Shards) > 0 {
				w.Errorf("gained %d shards that another holds", len(gained.Shards))
			}
		}},
		{"what is held is not gained again", func(w *world) {
			s, _ := w.owner()
			if gained, surplus := w.rebalance(s); len(gained.Shards)+len(surplus) > 0 {
				w.Errorf("gained %d shards, surplus %v, of a sender that has them all to itself", len(gained.Shards), surplus)
			}
		}},
		{"senders that come and go share the shards fairly", leasesAreShared},
		{"senders that ask at once never hold the same shard", func(w *world) {
			const n = 5
			var all [n]holder
			var gained [n]outbox.Handover
			var errs [n]error
			for i := range all {
				all[i] = w.member()
			}
			var at sync.WaitGroup
			for i := range all {
				at.Go(func() { gained[i], _, errs[i] = all[i].Rebalance(w.ctx) })
			}
			at.Wait()
			w.must(errors.Join(errs[:]...))
			holders := map[int]int{}
			for _, h := range gained {
				for _, s := range h.Shards {
					holders[s.ID]++
				}
			}
			for id := range outbox.Shards {
				if holders[id] != 1 {
					w.Errorf("shard %d was gained by %d senders", id, holders[id])
				}
			}
		}},
		{"a lease lasts as long as renewing says, and no longer than asked for", func(w *world) {
			s := w.member()
			before := time.Now()
			until, err := s.Renew(w.ctx)
			w.must(err)
			if until.Before(before.Add(time.Minute)) || until.After(time.Now().Add(time.Minute)) {
				w.Errorf("the lease lasts until %s, want a minute from when it was asked", until)
			}
		}},
		{"a lease ends by the clock, without anybody's doing", func(w *world) {
			s, err := w.Join(w.ctx, "brief", time.Microsecond, nil)
			w.must(err)
			time.Sleep(time.Millisecond)
			if _, err := s.Renew(w.ctx); !errors.Is(err, outbox.ErrLeaseLost) {
				w.Errorf("renewed after the end: %v", err)
			}
		}},
		{"a lease that is over is neither renewed nor dealt shards", func(w *world) {
			for _, taken := range []string{"ended", "taken over"} {
				s, _ := w.owner()
				w.Lapse(w.TB, s.name)
				if taken == "taken over" {
					w.owner()
				}
				if _, err := s.Renew(w.ctx); !errors.Is(err, outbox.ErrLeaseLost) {
					w.Errorf("%s: renewed: %v", taken, err)
				}
				if gained, _, err := s.Rebalance(w.ctx); !errors.Is(err, outbox.ErrLeaseLost) || len(gained.Shards) > 0 {
					w.Errorf("%s: gained %d shards, %v", taken, len(gained.Shards), err)
				}
			}
		}},
		{"whoever's lease is over writes nothing", staleWritesNothing},
		{"the next sender takes over what one held whose lease is over", func(w *world) {
			first, _ := w.owner()
			second, gained := w.owner()
			if len(gained.Shards) > 0 {
				w.Errorf("gained %d shards while they were held", len(gained.Shards))
			}
			w.Lapse(w.TB, first.name)
			gained, surplus := w.rebalance(second)
			if len(gained.Shards) != outbox.Shards || len(surplus) > 0 {
				w.Errorf("gained %d shards, surplus %v; want all", len(gained.Shards), surplus)
			}
		}},
		{"renewing in time keeps the shards", func(w *world) {
			first, _ := w.owner()
			_, err := first.Renew(w.ctx)
			w.must(err)
			if _, gained := w.owner(); len(gained.Shards) > 0 {
				w.Errorf("gained %d shards of a sender that renewed", len(gained.Shards))
			}
			w.settle(first)
		}},
		{"a sender releases shards with their tails, for whoever comes next", func(w *world) {
			first, _ := w.owner()
			second := w.member()
			_, surplus := w.rebalance(first)
			if len(surplus) != outbox.Shards/2 {
				w.Fatalf("surplus %v, want half", surplus)
			}
			w.must(first.Release(w.ctx, []outbox.Shard{{ID: surplus[0], Tail: 70}, {ID: surplus[1]}}))
			gained, _ := w.rebalance(second)
			want := sortShards([]outbox.Shard{{ID: surplus[0], Tail: 70}, {ID: surplus[1]}})
			if got := sortShards(gained.Shards); !slices.Equal(got, want) {
				w.Errorf("gained %v, want %v", got, want)
			}
		}},
		{"a shard is released only by its holder", func(w *world) {
			first, _ := w.owner()
			second := w.member()
			w.must(second.Release(w.ctx, []outbox.Shard{{ID: 1, Tail: 99}}))
			if gained, _ := w.rebalance(second); len(gained.Shards) > 0 {
				w.Errorf("gained %v, which another holds", gained.Shards)
			}
			w.must(first.Leave(w.ctx))
			gained, _ := w.rebalance(second)
			if tail := tailOf(gained, 1); tail != 0 {
				w.Errorf("shard 1 is handed over with tail %d of a sender that never held it", tail)
			}
		}},
		{"a sender that leaves frees its shards and writes nothing more", func(w *world) {
			first, _ := w.owner()
			e := w.events(w.endpoint(1), 1)
			w.must(first.Leave(w.ctx))
			if _, gained := w.owner(); len(gained.Shards) != outbox.Shards {
				w.Errorf("gained %d shards, want all", len(gained.Shards))
			}
			if _, err := first.Settle(w.ctx, []outbox.Settlement{delivered(e[0])}); !errors.Is(err, outbox.ErrLeaseLost) {
				w.Errorf("settled after it left: %v", err)
			}
			w.must(first.Leave(w.ctx)) // any number of times
		}},
	}
}

func leasesAreShared(w *world) {
	held := map[string]int{}
	var all []holder
	deal := func() {
		for _, s := range all { // those that hold too many release some, the others take them
			gained, surplus := w.rebalance(s)
			held[s.name] += len(gained.Shards)
			var drained []outbox.Shard
			for _, id := range surplus {
				drained = append(drained, outbox.Shard{ID: id})
			}
			w.must(s.Release(w.ctx, drained))
			held[s.name] -= len(drained)
		}
	}
	want := func(counts ...int) {
		w.Helper()
		var got []int
		for _, s := range all {
			got = append(got, held[s.name])
		}
		slices.Sort(got)
		if !slices.Equal(got, counts) {
			w.Errorf("%d senders hold %v shards, want %v", len(all), got, counts)
		}
	}
	for _, counts := range [][]int{{32}, {16, 16}, {10, 11, 11}} {
		all = append(all, w.member())
		deal()
		want(counts...)
	}
	w.must(all[0].Leave(w.ctx))
	all = all[1:]
	deal()
	want(16, 16)
}

func staleWritesNothing(w *world) {
	stale, _ := w.owner()
	a := w.endpoint(1)
	e := w.events(a, 1, 1, 2)
	w.settle(stale, retry(e[0], time.Hour), parked(e[1]))
	w.Lapse(w.TB, stale.name)
	next := stale
	var gained outbox.Handover
	for _, taken := range []string{"over", "taken over"} {
		if taken == "taken over" {
			next, gained = w.owner()
		}
		disabling := again(gone(e[0], "the endpoint answered 410"))
		for _, write := range []struct {
			name string
			run  func() error
		}{
			{"settles", func() error {
				_, err := stale.Settle(w.ctx, []outbox.Settlement{disabling, again(dead(e[1])), delivered(e[2])})
				return err
			}},
			{"settles nothing", func() error { _, err := stale.Settle(w.ctx, nil); return err }},
			{"saves", func() error {
				return stale.Save(w.ctx, []outbox.LaneState{{Endpoint: a.ID, Revision: 1, Behind: true, Cursor: 9}}, []outbox.Shard{{ID: 1, Tail: 9}})
			}},
			{"releases shards", func() error { return stale.Release(w.ctx, []outbox.Shard{{ID: 1, Tail: 9}}) }},
			{"expires", func() error {
				return stale.Expire(w.ctx, outbox.Endpoint{ID: a.ID, FeedFrom: e[2].ID + 1}, 0)
			}},
		} {
			if err := write.run(); !errors.Is(err, outbox.ErrLeaseLost) {
				w.Errorf("a sender whose lease is %s %s: %v", taken, write.name, err)
			}
		}
	}
	if n := len(w.Attempts(w.TB, e[0])); n != 1 {
		w.Errorf("%d attempts are stored of the first event, want the one in time", n)
	}
	w.wantDead("of a sender whose lease is over")
	w.wantEvents("left to the next owner", w.tail(next, outbox.TailQuery{Shards: []int{1}, Unsettled: true}).Events, e[2])
	w.wantEvents("due to the next owner", w.due(next, a, 2*time.Hour).Events, e[0])
	if now := w.endpointNow(next, a.ID); now.State != outbox.EndpointActive || now.Revision != a.Revision {
		w.Errorf("the endpoint is %s in revision %d", now.State, now.Revision)
	}
	if len(gained.Lanes) > 0 || tailOf(gained, 1) != 0 {
		w.Errorf("handed over: lanes %+v, tail %d", gained.Lanes, tailOf(gained, 1))
	}
}
