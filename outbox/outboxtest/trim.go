package outboxtest

import (
	"errors"
	"time"

	"walhook/outbox"
)

func trimCases() []testCase {
	return []testCase{
		{"an earlier feed expires: what nobody settled, what waits for a retry, and nothing else", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			e := w.events(a, 1, 2, 3, 3, 4, 5)
			other := w.events(b, 1)
			w.settle(s, delivered(e[0]), dead(e[1]), retry(e[2], time.Hour), parked(e[3]))
			before := w.SetURL(w.TB, a.ID, "")
			w.must(s.Expire(w.ctx, before, e[4].ID)) // the lane's cursor says that event 4 is settled
			w.wantDead("expired", DeadLetter{e[1], 1, "4xx"}, DeadLetter{e[2], 1, "expired"}, DeadLetter{e[3], 0, "expired"}, DeadLetter{e[5], 0, "expired"})
			w.wantEvents("left in retry", w.due(s, a, 100*time.Hour).Events)
			w.wantEvents("left of the lane", w.tail(s, outbox.TailQuery{Endpoint: a.ID, Unsettled: true}).Events, e[4])
			w.wantEvents("left of the other", w.tail(s, outbox.TailQuery{Endpoint: b.ID, Unsettled: true}).Events, other...)
		}},
		{"what expires twice expires once", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2)
			w.settle(s, retry(e[0], time.Hour))
			before := w.SetURL(w.TB, a.ID, "")
			for range 2 {
				w.must(s.Expire(w.ctx, before, 0))
				w.wantDead("expired", DeadLetter{e[0], 1, "expired"}, DeadLetter{e[1], 0, "expired"})
			}
		}},
		{"what waited behind an expired event is due", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			old := w.events(a, 1, 1)
			w.SetURL(w.TB, a.ID, "")
			now := w.SetURL(w.TB, a.ID, "https://example.com/again")
			young := w.events(a, 1, 1)
			w.settle(s, retry(old[0], time.Hour), parked(old[1]), parked(young[0]), parked(young[1]))
			w.must(s.Expire(w.ctx, now, 0))
			w.wantDead("of the earlier feed", DeadLetter{old[0], 1, "expired"}, DeadLetter{old[1], 0, "expired"})
			w.wantEvents("due", w.due(s, a, time.Minute).Events, young[0])
		}},
		{"what is past retention expires with that reason, and an earlier feed with its own", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2, 3)
			a.FeedFrom, a.ExpireBefore = e[1].ID, e[2].ID
			w.settle(s, retry(e[1], time.Hour))
			w.must(s.Expire(w.ctx, a, 0))
			w.wantDead("expired", DeadLetter{e[0], 0, "expired"}, DeadLetter{e[1], 1, "retention"})
			w.wantEvents("left", w.tail(s, outbox.TailQuery{Endpoint: a.ID, Unsettled: true}).Events, e[2])
		}},
		{"what is delivered and old is trimmed, what is young stays", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			old := w.events(a, 1, 2)
			w.Age(w.TB)
			young := w.events(a, 3)
			w.settle(s, delivered(old[0]), delivered(old[1]))
			w.save(s, nil, outbox.Shard{ID: 1, Tail: old[1].ID})
			if !w.Trim(w.TB) {
				w.Error("it is kept, although nothing of it is undelivered")
			}
			w.wantDead("of what was delivered")
			w.wantEvents("left", w.tail(s, outbox.TailQuery{Shards: []int{1}}).Events, young...)
			w.wantEvents("left of the lane", w.tail(s, outbox.TailQuery{Endpoint: a.ID}).Events, young...)
			if later := w.events(a, 4); later[0].ID <= young[0].ID {
				w.Errorf("event %d follows %d", later[0].ID, young[0].ID)
			}
		}},
		{"what is young is not trimmed", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			w.events(a, 1)
			w.Age(w.TB)
			young := w.events(a, 2, 3)
			w.must(s.Leave(w.ctx))
			w.Trim(w.TB)
			next, _ := w.owner()
			w.wantEvents("left", w.tail(next, outbox.TailQuery{Shards: []int{1}, Unsettled: true}).Events, young...)
		}},
		{"what nobody delivers is a dead letter before it is trimmed", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(2)
			e := w.Append(w.TB, Draft{a.ID, 1, 8}, Draft{a.ID, 2, 30_000}, Draft{a.ID, 2, 8}, Draft{a.ID, 3, 8}, Draft{b.ID, 1, 8})
			w.settle(s, delivered(e[0]), retry(e[1], time.Hour), parked(e[2]))
			w.save(s, []outbox.LaneState{{Endpoint: b.ID, Revision: 1, Behind: true, Cursor: 0}}, outbox.Shard{ID: 1, Tail: e[2].ID}, outbox.Shard{ID: 2, Tail: e[4].ID})
			w.must(s.Leave(w.ctx))
			w.Age(w.TB)
			young := w.events(a, 2)
			if !w.Trim(w.TB) {
				w.Error("it is kept, although nobody holds its shards")
			}
			w.wantDead("past retention", DeadLetter{e[1], 1, "retention"}, DeadLetter{e[2], 0, "retention"}, DeadLetter{e[3], 0, "retention"}, DeadLetter{e[4], 0, "retention"})
			next, gained := w.owner()
			w.wantStates("handed over", gained.Blocked, nil, nil)
			w.wantEvents("left", w.tail(next, outbox.TailQuery{Shards: []int{1, 2}, Unsettled: true}).Events, young...)
		}},
		{"what a sender may be sending is left to it before it is trimmed", leftToItsOwner},
		{"a sender whose lease is over holds up nothing, and delivers nothing late", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1)
			w.Age(w.TB)
			w.events(a, 2)
			w.Lapse(w.TB, s.name)
			if !w.Trim(w.TB) {
				w.Error("it is kept for a sender whose lease is over")
			}
			if _, err := s.Settle(w.ctx, []outbox.Settlement{delivered(e[0])}); !errors.Is(err, outbox.ErrLeaseLost) {
				w.Errorf("it settled: %v", err)
			}
			w.wantDead("past retention", DeadLetter{e[0], 0, "retention"})
		}},
	}
}

func leftToItsOwner(w *world) {
	s, _ := w.owner()
	a := w.endpoint(1)
	e := w.events(a, 1, 2)
	w.Age(w.TB)
	young := w.events(a, 3)
	_, since, err := s.EndpointsChanged(w.ctx, time.Now())
	w.must(err)
	for range 2 {
		if w.Trim(w.TB) {
			w.Fatal("it is trimmed under its sender")
		}
	}
	w.wantDead("while its sender holds it")
	reported, _, err := s.EndpointsChanged(w.ctx, since)
	w.must(err)
	if r := newest(reported, a.ID); r.Revision <= a.Revision {
		w.Fatalf("reported %+v, want a newer revision of endpoint %d", reported, a.ID)
	}
	marked := w.endpointNow(s, a.ID)
	if marked.SendFrom() <= e[1].ID || marked.SendFrom() > young[0].ID || marked.FeedFrom != a.FeedFrom {
		w.Fatalf("the endpoint is marked as %+v, between events %d and %d", marked, e[1].ID, young[0].ID)
	}
	w.settle(s, delivered(e[0])) // it was in flight
	w.must(s.Expire(w.ctx, marked, 0))
	w.wantDead("by its sender", DeadLetter{e[1], 0, "retention"})
	if w.Trim(w.TB) {
		w.Error("it is trimmed before its sender has saved how far it came")
	}
	w.save(s, nil, outbox.Shard{ID: 1, Tail: marked.SendFrom() - 1})
	if !w.Trim(w.TB) {
		w.Error("it is kept, although nothing of it is undelivered")
	}
	w.wantDead("in the end", DeadLetter{e[1], 0, "retention"})
	w.wantEvents("left", w.tail(s, outbox.TailQuery{Shards: []int{1}, Unsettled: true}).Events, young...)
}
