package outboxtest

import (
	"slices"
	"time"

	"walhook/outbox"
)

func handoverCases() []testCase {
	return []testCase{
		{"lanes are handed over as they were saved", lanesAreHandedOver},
		{"a lane with nothing to remember is forgotten", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			w.save(s, []outbox.LaneState{{Endpoint: a.ID, Revision: 1, Behind: true, Cursor: 5, LastReason: "5xx"}})
			w.save(s, []outbox.LaneState{{Endpoint: a.ID, Revision: 1, Cursor: 60, LastReason: "5xx"}})
			if _, gained := w.successor(s); len(gained.Lanes) > 0 {
				w.Errorf("lanes handed over are %+v", gained.Lanes)
			}
		}},
		{"a tail is handed over as saved, and never moves back", func(w *world) {
			s, _ := w.owner()
			w.save(s, nil, outbox.Shard{ID: 1, Tail: 50}, outbox.Shard{ID: 2, Tail: 60})
			w.save(s, nil, outbox.Shard{ID: 1, Tail: 55}, outbox.Shard{ID: 2, Tail: 10})
			_, gained := w.successor(s)
			for shard, want := range map[int]int64{1: 55, 2: 60, 3: 0} {
				if got := tailOf(gained, shard); got != want {
					w.Errorf("the tail of shard %d is %d, want %d", shard, got, want)
				}
			}
		}},
		{"a tail is saved only by the holder of its shard", func(w *world) {
			first, _ := w.owner()
			second := w.member()
			w.rebalance(second)
			w.save(second, nil, outbox.Shard{ID: 1, Tail: 99})
			w.must(second.Leave(w.ctx))
			if _, gained := w.successor(first); tailOf(gained, 1) != 0 {
				w.Errorf("the tail is %d, saved by a sender that does not hold the shard", tailOf(gained, 1))
			}
		}},
		{"a hand-over names what is of its own shards", func(w *world) {
			first, _ := w.owner()
			a, b, c := w.endpoint(3), w.endpoint(20), w.endpoint(3)
			var newest outbox.Event
			for _, e := range []outbox.Endpoint{a, b, c} {
				newest = w.events(e, 1)[0]
				w.settle(first, retry(newest, time.Hour))
				w.save(first, []outbox.LaneState{{Endpoint: e.ID, Revision: 1, Behind: true}})
			}
			second := w.member()
			w.rebalance(first)
			w.must(first.Release(w.ctx, []outbox.Shard{{ID: 3}}))
			gained, _ := w.rebalance(second)
			var lanes, blocked []int64
			for _, l := range gained.Lanes {
				lanes = append(lanes, l.Endpoint)
			}
			for _, r := range gained.Blocked {
				blocked = append(blocked, r.Endpoint)
			}
			slices.Sort(lanes)
			slices.Sort(blocked)
			want := []int64{a.ID, c.ID}
			slices.Sort(want)
			if !slices.Equal(lanes, want) || !slices.Equal(blocked, want) {
				w.Errorf("lanes of %v and records of %v, want both of %v", lanes, blocked, want)
			}
			if gained.Horizon != newest.ID {
				w.Errorf("horizon %d, the newest event is %d", gained.Horizon, newest.ID)
			}
		}},
		{"a hand-over says which records have something in retry, and when it is due", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(2)
			e, other := w.events(a, 1, 1, 2, 3), w.events(b, 1)
			w.settle(s, retry(e[0], time.Hour), parked(e[1]), delivered(e[2]), retry(e[3], 2*time.Hour), retry(other[0], 3*time.Hour))
			_, gained := w.successor(s)
			w.wantStates("handed over", gained.Blocked, list(e[0], e[3], other[0]), nil)
			for _, r := range gained.Blocked {
				for i, failed := range []outbox.Event{e[0], e[3], other[0]} {
					if at := time.Now().Add(time.Duration(i+1) * time.Hour); r.Record == failed.Record && r.Endpoint == failed.Endpoint && !about(r.NextAt, at) {
						w.Errorf("record %s is due at %s, want %s", r.Record, r.NextAt, at)
					}
				}
			}
		}},
		{"a new owner finds what nobody settled, and only that", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			var drafts []Draft
			for i := range 40 {
				drafts = append(drafts, Draft{[]int64{a.ID, b.ID}[i%2], i, 8})
			}
			e := w.Append(w.TB, drafts...)
			var batch []outbox.Settlement
			var rest []outbox.Event
			for i, e := range e {
				switch {
				case i == 7:
					batch = append(batch, retry(e, time.Hour))
				case i < 20 || i%3 == 0:
					batch = append(batch, delivered(e))
				default:
					rest = append(rest, e)
				}
			}
			w.settle(s, batch...)
			w.save(s, nil, outbox.Shard{ID: 1, Tail: e[9].ID}) // a stored tail may be behind what is settled
			next, gained := w.successor(s)
			if gained.Horizon != e[39].ID || tailOf(gained, 1) != e[9].ID {
				w.Errorf("horizon %d, tail %d; want %d and %d", gained.Horizon, tailOf(gained, 1), e[39].ID, e[9].ID)
			}
			later := w.events(a, 99)
			q := outbox.TailQuery{After: tailOf(gained, 1), Upto: gained.Horizon, Shards: []int{1}, Unsettled: true}
			w.wantEvents("up to the horizon", w.tail(next, q).Events, rest...)
			w.wantEvents("beyond it", w.tail(next, outbox.TailQuery{After: gained.Horizon, Shards: []int{1}}).Events, later...)
			w.wantEvents("due", w.due(next, a, 2*time.Hour).Events)
			w.wantEvents("due", w.due(next, b, 2*time.Hour).Events, e[7])
		}},
	}
}

func lanesAreHandedOver(w *world) {
	s, _ := w.owner()
	now := time.Now()
	var endpoints []outbox.Endpoint
	for shard := range 5 {
		endpoints = append(endpoints, w.endpoint(shard))
	}
	want := []outbox.LaneState{
		{Endpoint: endpoints[0].ID, Revision: 4, Behind: true, Cursor: 41, LastReason: "paused", PausedUntil: now.Add(time.Minute)},
		{Endpoint: endpoints[1].ID, Revision: 1, Open: true, OpenUntil: now.Add(time.Hour), Opens: 3, FailingSince: now.Add(-time.Hour), Stage: 2, LastReason: "5xx", Cursor: 7},
		{Endpoint: endpoints[2].ID, Revision: 1, FailingSince: now.Add(-48 * time.Hour), Stage: 1, LastReason: "timeout_header"},
		{Endpoint: endpoints[3].ID, Revision: 1, HeldSince: now.Add(-time.Minute), HeldReason: "dns_here"},
		{Endpoint: endpoints[4].ID, Revision: 1, Opens: 1},
	}
	w.save(s, want)
	want[0].Cursor, want[1].Opens = 44, 4
	w.save(s, want[:2])
	_, gained := w.successor(s)
	got := slices.Clone(gained.Lanes)
	slices.SortFunc(got, func(a, b outbox.LaneState) int {
		place := func(l outbox.LaneState) int {
			return slices.IndexFunc(want, func(w outbox.LaneState) bool { return w.Endpoint == l.Endpoint })
		}
		return place(a) - place(b)
	})
	if len(got) != len(want) {
		w.Fatalf("%d lanes are handed over, %d were saved", len(got), len(want))
	}
	for i := range got {
		l, saved := &got[i], &want[i]
		for _, at := range [][2]*time.Time{{&l.OpenUntil, &saved.OpenUntil}, {&l.PausedUntil, &saved.PausedUntil},
			{&l.FailingSince, &saved.FailingSince}, {&l.HeldSince, &saved.HeldSince}} {
			if about(*at[0], *at[1]) { // the same instant, up to the conversion between clocks
				*at[0] = *at[1]
			}
		}
		if *l != *saved {
			w.Errorf("lane is\n\t%+v, was saved as\n\t%+v", *l, *saved)
		}
	}
}
