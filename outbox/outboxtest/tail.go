package outboxtest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"walhook/outbox"
)

func tailCases() []testCase {
	return []testCase{
		{"what is appended is read whole and in the order of appends", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(2)
			first := w.Append(w.TB, Draft{a.ID, 1, 8}, Draft{b.ID, 1, 100}, Draft{a.ID, 2, 8})
			second := w.events(b, 1)
			want := slices.Concat(first, second)
			if !slices.IsSorted(ids(want)) {
				w.Errorf("ids %v do not rise", ids(want))
			}
			got := w.tail(s, outbox.TailQuery{Shards: []int{1, 2}})
			w.wantEvents("all shards with events", got.Events, want...)
			for i, e := range got.Events {
				// The reader sets ReadAt.
				if e.ReadAt.IsZero() || time.Since(e.ReadAt).Abs() > time.Minute {
					w.Errorf("event %d was read at %s", e.ID, e.ReadAt)
				}
				if line(e) != line(want[i]) {
					w.Errorf("event is read as\n\t%s\nand was appended as\n\t%s", line(e), line(want[i]))
				}
			}
		}},
		{"a tail reads the shards that it asks for and no others", func(w *world) {
			s, _ := w.owner()
			a, b, c := w.endpoint(1), w.endpoint(2), w.endpoint(1) // two of one shard
			e := w.Append(w.TB, Draft{a.ID, 1, 8}, Draft{b.ID, 1, 8}, Draft{c.ID, 1, 8}, Draft{a.ID, 2, 8})
			w.wantEvents("shard 1", w.tail(s, outbox.TailQuery{Shards: []int{1}}).Events, e[0], e[2], e[3])
			w.wantEvents("shard 2", w.tail(s, outbox.TailQuery{Shards: []int{2}}).Events, e[1])
			w.wantEvents("shard 3", w.tail(s, outbox.TailQuery{Shards: []int{3}}).Events)
			var all []int
			for id := range outbox.Shards {
				all = append(all, id)
			}
			w.wantEvents("all shards", w.tail(s, outbox.TailQuery{Shards: all}).Events, e...)
		}},
		{"a tail reads after one position and up to another", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2, 3, 4)
			for _, q := range []outbox.TailQuery{{Shards: []int{1}}, {Endpoint: a.ID}} {
				q.After = e[0].ID
				w.wantEvents("after the first", w.tail(s, q).Events, e[1:]...)
				q.Upto = e[2].ID
				w.wantEvents("up to the third", w.tail(s, q).Events, e[1:3]...)
				q.After, q.Upto = e[3].ID, 0
				w.wantEvents("after the last", w.tail(s, q).Events)
			}
		}},
		{"a lane reads its own events and no others", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			e := w.Append(w.TB, Draft{a.ID, 1, 8}, Draft{b.ID, 1, 8}, Draft{a.ID, 1, 8})
			got := w.tail(s, outbox.TailQuery{Endpoint: a.ID})
			w.wantEvents("of one endpoint", got.Events, e[0], e[2])
			w.wantEvents("of none", w.tail(s, outbox.TailQuery{Endpoint: a.ID + 32*100}).Events)
		}},
		{"a tail says how far it read and whether a bound ended it", tailSaysHowFar},
		{"a bound of bytes ends a tail, but not before one event", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.Append(w.TB, Draft{a.ID, 1, 1000}, Draft{a.ID, 2, 1000}, Draft{a.ID, 3, 300_000}, Draft{a.ID, 4, 8})
			size := len(e[0].Body)
			for _, q := range []outbox.TailQuery{{Shards: []int{1}}, {Endpoint: a.ID}} {
				for _, c := range []struct {
					bytes int
					after int
					want  []outbox.Event
				}{
					{-1, -1, e[:1]}, {1, -1, e[:1]}, {size, -1, e[:1]}, {size + 1, -1, e[:2]}, {2*size + 1, -1, e[:3]}, {1, 1, e[2:3]}, {1 << 20, 1, e[2:]},
				} {
					q.MaxBytes, q.After = c.bytes, 0
					if c.after >= 0 {
						q.After = e[c.after].ID
					}
					w.wantEvents(fmt.Sprint("with room for ", c.bytes, " bytes"), w.tail(s, q).Events, c.want...)
				}
			}
		}},
		{"bodies of any size come with their events", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(2)
			var drafts []Draft
			for i, size := range []int{8, 500_000, 100, 9000, 70_000, 8, 200_000} {
				drafts = append(drafts, Draft{[]int64{a.ID, b.ID}[i%2], i, size})
			}
			e := w.Append(w.TB, drafts...)
			for _, q := range []outbox.TailQuery{{Shards: []int{1, 2}}, {Shards: []int{1, 2}, Limit: 7, MaxBytes: 1 << 20}, {Shards: []int{1, 2}, Limit: 1000, MaxBytes: 1 << 20}} {
				got := w.tail(s, q).Events
				w.wantEvents("with long bodies", got, e...)
				for i := range got {
					if i < len(e) && !bytes.Equal(got[i].Body, e[i].Body) {
						w.Errorf("event %d has a body of %d bytes, was appended with %d", got[i].ID, len(got[i].Body), len(e[i].Body))
					}
				}
			}
		}},
		{"whoever reads on from each answer misses nothing and reads nothing twice", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(2)
			var want []outbox.Event
			for range 5 {
				e := w.Append(w.TB, Draft{a.ID, 1, 8}, Draft{b.ID, 1, 8}, Draft{b.ID, 2, 8}, Draft{a.ID, 2, 8}, Draft{b.ID, 3, 8})
				want = append(want, e[0], e[3])
			}
			for limit := 1; limit < 30; limit += 3 {
				var got []outbox.Event
				q := outbox.TailQuery{Shards: []int{1}, Limit: limit}
				for more := true; more; {
					stretch := w.tail(s, q)
					if stretch.More && stretch.Upto <= q.After {
						w.Fatalf("a read with more to come stands still at %d", q.After)
					}
					got, q.After, more = append(got, stretch.Events...), stretch.Upto, stretch.More
				}
				w.wantEvents(fmt.Sprint("read by ", limit), got, want...)
			}
		}},
		{"an event carries the revision that was in force when it was appended", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			before := w.events(a, 1)
			changed := w.SetURL(w.TB, a.ID, "https://example.com/new")
			after := w.events(a, 1)
			if changed.Revision <= a.Revision {
				w.Errorf("revision %d after %d", changed.Revision, a.Revision)
			}
			got := w.tail(s, outbox.TailQuery{Endpoint: a.ID}).Events
			w.wantEvents("of both revisions", got, before[0], after[0])
			if len(got) == 2 && (got[0].Revision != a.Revision || got[1].Revision != changed.Revision) {
				w.Errorf("revisions %d and %d, want %d and %d", got[0].Revision, got[1].Revision, a.Revision, changed.Revision)
			}
		}},
		{"an append wakes whoever waits in this process", func(w *world) {
			a := w.endpoint(1)
			select {
			case <-w.Appended():
			default:
			}
			w.events(a, 1)
			select {
			case <-w.Appended():
			case <-time.After(5 * time.Second):
				w.Error("no signal of an append")
			}
		}},
		{"what an earlier owner settled is left out for the next, and nothing else", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			e := w.events(a, 1, 2, 2, 3, 4, 5)
			other := w.events(b, 1)
			w.settle(s, delivered(e[0]), retry(e[1], time.Hour), parked(e[2]), dead(e[3]))
			q := outbox.TailQuery{Shards: []int{1}, Unsettled: true}
			w.wantEvents("unsettled of the shard", w.tail(s, q).Events, e[4], e[5], other[0])
			q = outbox.TailQuery{Endpoint: a.ID, Unsettled: true}
			w.wantEvents("unsettled of the lane", w.tail(s, q).Events, e[4], e[5])
			q.Unsettled = false
			w.wantEvents("all of the lane", w.tail(s, q).Events, e...)
		}},
	}
}

func line(e outbox.Event) string {
	return fmt.Sprintf("%d of %d in revision %d, %s %s %s %s %q, committed %s, appended %s, format %q, %d attempts", e.ID, e.Endpoint, e.Revision,
		e.Record, e.WebhookID, e.Schema, e.Type, e.Body, e.CommittedAt.UTC().Format(time.RFC3339Nano), e.AppendedAt.UTC().Format(time.RFC3339Nano), e.Format, e.Attempts)
}

func tailSaysHowFar(w *world) {
	s, _ := w.owner()
	a, b := w.endpoint(1), w.endpoint(2)
	var drafts []Draft
	for range 4 {
		drafts = append(drafts, Draft{a.ID, 1, 1000}, Draft{b.ID, 1, 1000})
	}
	e := w.Append(w.TB, drafts...)
	beyond := e[7].ID + 5
	size := len(e[0].Body)
	for _, c := range []struct {
		name string
		q    outbox.TailQuery
		want []outbox.Event
		upto int64
		more bool
	}{
		{"to the end of the log", outbox.TailQuery{Shards: []int{1}}, list(e[0], e[2], e[4], e[6]), e[7].ID, false},
		{"to a bound within it", outbox.TailQuery{Shards: []int{1}, Upto: e[5].ID}, list(e[0], e[2], e[4]), e[5].ID, false},
		{"to a bound beyond it", outbox.TailQuery{Shards: []int{1}, Upto: beyond}, list(e[0], e[2], e[4], e[6]), beyond, false},
		{"only others' events", outbox.TailQuery{Shards: []int{1}, After: e[6].ID}, nil, e[7].ID, false},
		{"nothing", outbox.TailQuery{Shards: []int{1}, After: e[7].ID}, nil, e[7].ID, false},
		{"nothing, with no room", outbox.TailQuery{Shards: []int{1}, After: e[7].ID, MaxBytes: -1}, nil, e[7].ID, false},
		{"nothing, to a bound", outbox.TailQuery{Shards: []int{1}, After: e[7].ID, Upto: beyond}, nil, beyond, false},
		{"to a limit, which counts others' events", outbox.TailQuery{Shards: []int{1}, Limit: 4}, list(e[0], e[2]), e[3].ID, true},
		{"to a limit that is just reached", outbox.TailQuery{Shards: []int{1}, Limit: 8, Upto: beyond}, list(e[0], e[2], e[4], e[6]), e[7].ID, true},
		{"to a bound of bytes, which does not", outbox.TailQuery{Shards: []int{2}, MaxBytes: size + 1}, list(e[1], e[3]), e[3].ID, true},
		{"of one lane to a limit", outbox.TailQuery{Endpoint: b.ID, Limit: 2}, list(e[1], e[3]), e[3].ID, true},
		{"of one lane to its end", outbox.TailQuery{Endpoint: b.ID, Limit: 5}, list(e[1], e[3], e[5], e[7]), e[7].ID, false},
		{"of one lane to a bound", outbox.TailQuery{Endpoint: a.ID, Upto: e[7].ID}, list(e[0], e[2], e[4], e[6]), e[7].ID, false},
	} {
		got := w.tail(s, c.q)
		w.wantEvents(c.name, got.Events, c.want...)
		if got.Upto != c.upto || got.More != c.more {
			w.Errorf("%s: read up to %d, more %t; want %d, %t", c.name, got.Upto, got.More, c.upto, c.more)
		}
	}
}
