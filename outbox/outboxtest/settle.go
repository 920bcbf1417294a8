package outboxtest

import (
	"fmt"
	"slices"
	"time"

	"walhook/outbox"
)

func settleCases() []testCase {
	return []testCase{
		{"a delivered event is one attempt and nothing else", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2)
			settlement := delivered(e[0])
			w.wantStates("of a record that never failed", w.settle(s, settlement), nil, nil)
			got := w.Attempts(w.TB, e[0])
			if len(got) != 1 {
				w.Fatalf("attempts are %+v", got)
			}
			if got[0].At = got[0].At.UTC(); got[0] != *settlement.Attempt {
				w.Errorf("attempt is\n\t%+v, was\n\t%+v", got[0], *settlement.Attempt)
			}
			if n := len(w.Attempts(w.TB, e[1])); n > 0 {
				w.Errorf("%d attempts of the event beside it", n)
			}
			w.wantDead("of a delivered event")
			w.wantEvents("in retry", w.due(s, a, time.Hour).Events)
		}},
		{"a dead event is a dead letter with its body", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.Append(w.TB, Draft{a.ID, 1, 8}, Draft{a.ID, 2, 200_000})
			w.wantStates("from the log", w.settle(s, dead(e[0])), nil, nil)
			w.settle(s, retry(e[1], 0))
			failed := w.due(s, a, time.Minute).Events
			w.wantEvents("due", failed, e[1])
			w.wantStates("from retry", w.settle(s, again(dead(failed[0]))), nil, list(e[1]))
			w.wantDead("after attempts", DeadLetter{e[0], 1, "4xx"}, DeadLetter{e[1], 2, "4xx"})
			w.wantEvents("left in retry", w.due(s, a, time.Hour).Events)
		}},
		{"what is settled twice is settled once", settledTwice},
		{"a large batch stores each of its settlements", manySettlements},
		{"settling answers how each record stands that has, or had, something in retry", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2, 3, 3, 4)
			got := w.settle(s, delivered(e[0]), retry(e[1], time.Hour), parked(e[3]), dead(e[4]))
			w.wantStates("first", got, list(e[1], e[3]), nil)
			for _, state := range got {
				if in := time.Until(state.NextAt); state.Record == e[1].Record && (in < 59*time.Minute || in > 61*time.Minute) {
					w.Errorf("the failed record is due in %s, want an hour", in)
				} else if state.Record == e[3].Record && in > 0 {
					w.Errorf("the record whose oldest was parked is due in %s, want now", in)
				}
			}
			w.wantStates("then", w.settle(s, again(delivered(e[1])), again(delivered(e[3]))), nil, list(e[1], e[3]))
		}},
		{"an answer disables only the revision that it was given to", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1)
			changed := w.SetURL(w.TB, a.ID, "https://example.com/new")
			w.settle(s, gone(e[0], "a late answer"))
			if now := w.endpointNow(s, a.ID); now.State != outbox.EndpointActive || now.Revision != changed.Revision {
				w.Fatalf("an answer of an earlier URL made the endpoint %s, in revision %d", now.State, now.Revision)
			}
			later := w.events(a, 2)
			w.settle(s, gone(later[0], "the endpoint answered 410"))
			now := w.endpointNow(s, a.ID)
			if now.State != outbox.EndpointDisabled || now.Reason != "the endpoint answered 410" || now.Revision != changed.Revision+1 {
				w.Errorf("the endpoint is %s (%s) in revision %d, want disabled in revision %d", now.State, now.Reason, now.Revision, changed.Revision+1)
			}
			w.wantEvents("kept for when it is enabled", w.due(s, a, 2*time.Hour).Events, e[0], later[0])
			w.wantDead("of a disabled endpoint")
		}},
		{"an endpoint is disabled once, for the first reason", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2, 3)
			w.settle(s, gone(e[0], "first"), gone(e[1], "second"))
			w.settle(s, gone(e[2], "third"))
			if now := w.endpointNow(s, a.ID); now.State != outbox.EndpointDisabled || now.Reason != "first" || now.Revision != a.Revision+1 {
				w.Errorf("the endpoint is %s (%s) in revision %d", now.State, now.Reason, now.Revision)
			}
		}},
		{"disabling one endpoint leaves the others as they are", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			w.events(b, 1)
			w.settle(s, gone(w.events(a, 1)[0], "gone"))
			if now := w.endpointNow(s, b.ID); now.State != outbox.EndpointActive || now.Revision != b.Revision {
				w.Errorf("the other is %s in revision %d", now.State, now.Revision)
			}
		}},
		{"an endpoint that asks for a pause keeps its event", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1)
			pause := retry(e[0], 10*time.Minute)
			pause.Attempt.Outcome, pause.Attempt.Reason, pause.Attempt.Status = "pause", "429", 429
			until := time.Now().Add(10 * time.Minute)
			w.wantStates("paused", w.settle(s, pause), e, nil)
			w.save(s, []outbox.LaneState{{Endpoint: a.ID, Revision: a.Revision, Behind: true, Cursor: e[0].ID, PausedUntil: until}})
			s, gained := w.successor(s)
			if len(gained.Lanes) != 1 || !about(gained.Lanes[0].PausedUntil, until) {
				w.Errorf("lanes handed over are %+v, want one that is paused until %s", gained.Lanes, until)
			}
			w.wantEvents("before the pause ends", w.due(s, a, 9*time.Minute).Events)
			w.wantEvents("after it", w.due(s, a, 11*time.Minute).Events, e[0])
			if got := w.Attempts(w.TB, e[0]); len(got) != 1 || got[0].Outcome != "pause" || got[0].Status != 429 {
				w.Errorf("attempts are %+v", got)
			}
		}},
	}
}

// A settlement may be committed although its answer is lost.
func settledTwice(w *world) {
	s, _ := w.owner()
	a := w.endpoint(1)
	for _, n := range []int{3, 200} { // a log may store small and large batches in different ways
		drafts := make([]Draft, n+4)
		for i := range drafts {
			drafts[i] = Draft{a.ID, 10 * n, 8}
		}
		drafts[n].Record, drafts[n+1].Record, drafts[n+2].Record, drafts[n+3].Record = 10*n+1, 10*n+2, 10*n+3, 10*n+3
		e := w.Append(w.TB, drafts...)
		w.settle(s, retry(e[n+3], time.Hour))
		e[n+3].Attempts = 1
		var batch []outbox.Settlement
		for _, e := range e[:n] {
			batch = append(batch, delivered(e))
		}
		batch = append(batch, retry(e[n], time.Hour), dead(e[n+1]), parked(e[n+2]), again(delivered(e[n+3])))
		for range 2 {
			w.wantStates(fmt.Sprint(n, " events"), w.settle(s, batch...), list(e[n], e[n+2]), nil)
		}
		for i, e := range e {
			want := 1
			if i == n+2 {
				want = 0
			} else if i == n+3 {
				want = 2
			}
			if got := len(w.Attempts(w.TB, e)); got != want {
				w.Errorf("of %d: event %d has %d attempts, want %d", n, i, got, want)
			}
		}
		due := w.due(s, a, 2*time.Hour).Events
		w.wantEvents(fmt.Sprint(n, " events, due"), due, e[n+2], e[n])
		w.settle(s, again(delivered(e[n])), again(delivered(e[n+2])))
	}
	if got := w.Dead(w.TB); len(got) != 2 || got[0].Event.ID == got[1].Event.ID {
		w.Errorf("dead letters are %+v, want one of each round", got)
	}
}

func manySettlements(w *world) {
	s, _ := w.owner()
	a, b := w.endpoint(1), w.endpoint(2)
	const n = 400
	drafts := make([]Draft, n)
	for i := range drafts {
		drafts[i] = Draft{[]int64{a.ID, b.ID}[i%2], i % 80, 8}
	}
	e := w.Append(w.TB, drafts...)
	var batch []outbox.Settlement
	var attempted, died, due []outbox.Event
	records := map[string]bool{}
	for i, e := range e {
		switch i / 80 {
		case 0:
			batch, attempted = append(batch, delivered(e)), append(attempted, e)
		case 1:
			batch, attempted, died = append(batch, dead(e)), append(attempted, e), append(died, e)
		case 2:
			batch, attempted, due = append(batch, retry(e, time.Minute)), append(attempted, e), append(due, e)
			records[e.Record] = true
		default:
			batch = append(batch, parked(e))
			records[e.Record] = true
		}
	}
	if states := w.settle(s, batch...); len(states) != len(records) {
		w.Errorf("%d records are answered, want %d", len(states), len(records))
	}
	for _, e := range attempted {
		if got := len(w.Attempts(w.TB, e)); got != 1 {
			w.Errorf("event %d has %d attempts", e.ID, got)
		}
	}
	var letters []int64
	for _, d := range w.Dead(w.TB) {
		letters = append(letters, d.Event.ID)
	}
	if !slices.Equal(letters, ids(died)) {
		w.Errorf("dead letters are of %v, want %v", letters, ids(died))
	}
	got := slices.Concat(w.due(s, a, time.Hour).Events, w.due(s, b, time.Hour).Events)
	slices.SortFunc(got, func(a, b outbox.Event) int { return int(a.ID - b.ID) })
	w.wantEvents("due", got, due...)
}
