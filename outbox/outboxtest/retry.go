package outboxtest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"walhook/outbox"
)

func retryCases() []testCase {
	return []testCase{
		{"a failed event is due when its time has come, and not before", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.Append(w.TB, Draft{a.ID, 1, 50_000})
			at := time.Now().Add(time.Hour)
			w.settle(s, retry(e[0], time.Hour))
			early := w.due(s, a, time.Hour-aMoment)
			w.wantEvents("before its time", early.Events)
			if !about(early.Next, at) {
				w.Errorf("the next is due at %s, want %s", early.Next, at)
			}
			due := w.due(s, a, time.Hour+aMoment)
			w.wantEvents("in time", due.Events, e[0])
			if !due.Next.IsZero() || due.More {
				w.Errorf("after the only one: next at %s, more %t", due.Next, due.More)
			}
			got, want := due.Events[0], e[0]
			if got.ReadAt.IsZero() {
				w.Error("it does not say when it was read")
			}
			if want.Attempts = 1; line(got) != line(want) || !bytes.Equal(got.Body, want.Body) {
				w.Errorf("due is\n\t%.300s\nwant\n\t%.300s", line(got), line(want))
			}
			w.wantEvents("while it is in flight", w.due(s, a, 2*time.Hour, e[0].ID).Events)
		}},
		{"an event that fails again waits again and counts its attempts", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1)
			w.settle(s, retry(e[0], 0))
			for n := 1; n < 4; n++ {
				due := w.due(s, a, time.Duration(n)*time.Hour).Events
				w.wantEvents("due", due, e[0])
				if len(due) != 1 || due[0].Attempts != n {
					w.Fatalf("after %d attempts due is %+v", n, due)
				}
				w.wantStates("failed again", w.settle(s, again(retry(due[0], time.Duration(n+1)*time.Hour))), e, nil)
				w.wantEvents("too early", w.due(s, a, time.Duration(n)*time.Hour).Events)
			}
			last := w.due(s, a, 10*time.Hour).Events
			w.wantStates("delivered", w.settle(s, again(delivered(last[0]))), nil, e)
			w.wantEvents("delivered", w.due(s, a, 10*time.Hour).Events)
			if n := len(w.Attempts(w.TB, e[0])); n != 5 {
				w.Errorf("%d attempts are stored, want 5", n)
			}
		}},
		{"what is due is read by due time, up to bounds, and says what follows", dueInOrder},
		{"what is due now is due whatever the asking clock says", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1)
			w.settle(s, retry(e[0], -time.Minute))
			w.wantEvents("by a clock that is late", w.due(s, a, -time.Hour).Events, e[0])
		}},
		{"what is due is one endpoint's own", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			e, other := w.events(a, 1), w.events(b, 1)
			w.settle(s, retry(e[0], 0), retry(other[0], time.Hour))
			due := w.due(s, a, time.Minute)
			w.wantEvents("of the one", due.Events, e[0])
			if !due.Next.IsZero() {
				w.Errorf("next at %s, which is another's", due.Next)
			}
			w.wantEvents("of the other", w.due(s, b, time.Minute).Events)
		}},
		waiting("parked with the failure, which is delivered later", func(w *world, s holder, e []outbox.Event) {
			w.wantStates("failed", w.settle(s, retry(e[0], time.Hour), parked(e[1]), parked(e[2])), e[:1], nil)
			w.wantStates("delivered", w.settle(s, again(delivered(e[0]))), e[:1], nil)
		}),
		waiting("parked after the failure, one by one", func(w *world, s holder, e []outbox.Event) {
			w.settle(s, retry(e[0], time.Hour))
			w.settle(s, parked(e[1]))
			w.settle(s, parked(e[2]))
			w.settle(s, again(delivered(e[0])))
		}),
		waiting("parked in the batch in which the failed one is delivered", func(w *world, s holder, e []outbox.Event) {
			w.settle(s, retry(e[0], time.Hour))
			w.wantStates("delivered", w.settle(s, parked(e[1]), again(delivered(e[0])), parked(e[2])), e[:1], nil)
		}),
		waiting("parked after the failed one was delivered", func(w *world, s holder, e []outbox.Event) {
			w.settle(s, retry(e[0], time.Hour))
			w.wantStates("delivered", w.settle(s, again(delivered(e[0]))), nil, e[:1])
			w.wantStates("parked", w.settle(s, parked(e[1]), parked(e[2])), e[:1], nil)
		}),
		waiting("behind one that died", func(w *world, s holder, e []outbox.Event) {
			w.settle(s, retry(e[0], time.Hour), parked(e[1]), parked(e[2]))
			w.settle(s, again(dead(e[0])))
		}),
		{"a waiting event is not due before the one before it is gone", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 1)
			w.settle(s, retry(e[0], time.Hour), parked(e[1]))
			w.wantEvents("after days", w.due(s, a, 100*time.Hour).Events, e[0])
			w.wantEvents("while the first is in flight", w.due(s, a, 100*time.Hour, e[0].ID).Events)
			w.settle(s, again(retry(e[0], 2*time.Hour)))
			w.wantEvents("after it failed again", w.due(s, a, time.Hour+time.Minute).Events)
		}},
		{"parking twice changes nothing", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 1)
			w.settle(s, retry(e[0], time.Minute), parked(e[1]))
			w.settle(s, parked(e[1]))
			w.settle(s, again(delivered(e[0])))
			w.settle(s, again(retry(e[1], time.Hour))) // it was due and failed
			w.settle(s, parked(e[1]))
			due := w.due(s, a, time.Minute)
			w.wantEvents("before the hour", due.Events)
			if in := time.Until(due.Next); in < 59*time.Minute {
				w.Errorf("next in %s, want about an hour", in)
			}
			if due := w.due(s, a, 2*time.Hour).Events; len(due) != 1 || due[0].Attempts != 1 {
				w.Errorf("due after the hour: %+v, want one that failed once", due)
			}
		}},
		{"records do not wait for one another", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			e := w.events(a, 1, 1, 2)
			other := w.events(b, 1)
			w.settle(s, retry(e[0], time.Hour), parked(e[1]))
			w.wantStates("of other records", w.settle(s, parked(e[2]), parked(other[0])), list(e[2], other[0]), nil)
			w.wantEvents("of the endpoint", w.due(s, a, time.Minute).Events, e[2])
			w.wantEvents("of another", w.due(s, b, time.Minute).Events, other[0])
			w.wantStates("delivered", w.settle(s, again(delivered(e[2])), again(delivered(other[0]))), nil, list(e[2], other[0]))
			w.wantEvents("of the endpoint, later", w.due(s, a, time.Minute).Events)
		}},
		{"of every record exactly the oldest in retry is due, whatever happens in which order", oldestIsDue},
	}
}

// waiting makes a case about events that wait behind the failed first event of their
// record: the second becomes due once the first has left retry, and then the third.
func waiting(name string, run func(w *world, s holder, e []outbox.Event)) testCase {
	return testCase{"later events of a record wait for the failed one: " + name, func(w *world) {
		s, _ := w.owner()
		a := w.endpoint(1)
		e := w.events(a, 1, 1, 1)
		w.events(a, 2)
		run(w, s, e)
		for _, next := range e[1:] {
			due := w.due(s, a, time.Minute)
			w.wantEvents("due", due.Events, next)
			if len(due.Events) != 1 || due.Events[0].Attempts != 0 || !due.Next.IsZero() {
				w.Fatalf("due is %+v, next at %s", due.Events, due.Next)
			}
			w.settle(s, again(delivered(next)))
		}
		w.wantEvents("in the end", w.due(s, a, 100*time.Hour).Events)
	}}
}

func dueInOrder(w *world) {
	s, _ := w.owner()
	a := w.endpoint(1)
	e := w.events(a, 1, 2, 3, 4, 5)
	for i, in := range []time.Duration{50, 40, 30, 20, 10} {
		w.settle(s, retry(e[i], in*time.Minute))
	}
	q := outbox.RetryQuery{Endpoint: a.ID, Now: time.Now().Add(31 * time.Minute), Limit: 10, MaxBytes: math.MaxInt32}
	ask := func(what string, more bool, want ...outbox.Event) {
		w.Helper()
		due, err := s.DueRetries(w.ctx, q)
		w.must(err)
		w.wantEvents(what, due.Events, want...)
		if due.More != more {
			w.Errorf("%s: more %t", what, due.More)
		}
		if in := time.Until(due.Next); in < 38*time.Minute || in > 41*time.Minute {
			w.Errorf("%s: the next is due in %s, want 40 minutes", what, in)
		}
	}
	ask("all that is due", false, e[4], e[3], e[2])
	q.Limit = 2
	ask("two", true, e[4], e[3])
	q.Limit, q.MaxBytes = 10, len(e[4].Body)+1
	ask("by bytes", true, e[4], e[3])
	q.MaxBytes = 1
	ask("with no room", true, e[4])
	q.MaxBytes, q.Exclude = math.MaxInt32, []int64{e[4].ID, e[2].ID}
	ask("beside two in flight", false, e[3])
}

// retryModel is a model of retry in memory. For each record it has the unsettled
// events and those in retry, both in order.
type retryModel struct {
	random  *rand.Rand
	records []*modelRecord
}

type modelRecord struct {
	endpoint outbox.Endpoint
	name     string
	log      []outbox.Event
	retry    []outbox.Event // the oldest is due, the others wait
	blocked  bool           // as the sender knows it from the last settlement
}

func oldestIsDue(w *world) {
	m := &retryModel{random: rand.New(rand.NewPCG(15, 8))}
	var drafts []Draft
	endpoints := []outbox.Endpoint{w.endpoint(1), w.endpoint(2), w.endpoint(1)}
	for _, e := range endpoints {
		for range 3 {
			m.records = append(m.records, &modelRecord{endpoint: e})
		}
	}
	for range 90 {
		n := m.random.IntN(len(m.records))
		drafts = append(drafts, Draft{m.records[n].endpoint.ID, n, 8})
	}
	for i, e := range w.Append(w.TB, drafts...) {
		r := m.records[drafts[i].Record]
		r.name, r.log = e.Record, append(r.log, e)
	}
	s, _ := w.owner()
	for step := 0; m.left() > 0 && !w.Failed(); step++ {
		if step > 500 {
			w.Fatal("the model does not come to an end")
		}
		if step%15 == 14 {
			var gained outbox.Handover
			s, gained = w.successor(s)
			m.handOver(w, s, gained)
		}
		for _, state := range w.settle(s, m.batch()...) {
			r := m.records[slices.IndexFunc(m.records, func(r *modelRecord) bool { return r.endpoint.ID == state.Endpoint && r.name == state.Record })]
			if r.blocked = len(r.retry) > 0; state.Blocked != r.blocked {
				w.Errorf("step %d: record %s is answered blocked=%t with %d in retry", step, r.name, state.Blocked, len(r.retry))
			}
		}
		var want, got []string
		for _, r := range m.records {
			if len(r.retry) > 0 {
				want = append(want, fmt.Sprintf("%d after %d", r.retry[0].ID, r.retry[0].Attempts))
			}
		}
		for _, e := range endpoints {
			for _, e := range w.due(s, e, 1000*time.Hour).Events {
				got = append(got, fmt.Sprintf("%d after %d", e.ID, e.Attempts))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			w.Errorf("step %d: due are %v, want the oldest of each record, %v", step, got, want)
		}
	}
}

func (m *retryModel) left() (n int) {
	for _, r := range m.records {
		n += len(r.log) + len(r.retry)
	}
	return n
}

// batch returns what a sender may settle: one event of each record at a time. While a
// record is blocked, a sender only parks its events from the log.
func (m *retryModel) batch() (batch []outbox.Settlement) {
	for _, i := range m.random.Perm(len(m.records)) {
		r := m.records[i]
		park := func() {
			for r.blocked && len(r.log) > 0 && m.random.IntN(2) == 0 {
				batch = append(batch, parked(r.log[0]))
				r.retry, r.log = append(r.retry, r.log[0]), r.log[1:]
			}
		}
		parkFirst := m.random.IntN(2) == 0
		if parkFirst {
			park()
		}
		switch {
		case r.blocked && len(r.retry) > 0:
			settlement := again(m.settlement(r.retry[0]))
			if settlement.Disposition == outbox.Retry {
				r.retry[0].Attempts++
			} else {
				r.retry = r.retry[1:]
			}
			batch = append(batch, settlement)
		case !r.blocked && len(r.log) > 0:
			settlement := m.settlement(r.log[0])
			if settlement.Disposition == outbox.Retry {
				failed := r.log[0]
				failed.Attempts++
				r.retry, r.blocked = append(r.retry, failed), true
			}
			batch, r.log = append(batch, settlement), r.log[1:]
		}
		if !parkFirst {
			park()
		}
	}
	return batch
}

func (m *retryModel) settlement(e outbox.Event) outbox.Settlement {
	switch m.random.IntN(4) {
	case 0:
		return dead(e)
	case 1:
		return delivered(e)
	}
	return retry(e, time.Duration(1+m.random.IntN(100))*time.Minute)
}

// handOver compares the state that a new owner gets and reads with the model.
func (m *retryModel) handOver(w *world, s holder, gained outbox.Handover) {
	var want []int64
	for _, r := range m.records {
		want = append(want, ids(r.log)...)
		r.blocked = len(r.retry) > 0
		if reported := slices.ContainsFunc(gained.Blocked, func(b outbox.RecordState) bool {
			return b.Endpoint == r.endpoint.ID && b.Record == r.name && b.Blocked
		}); reported != r.blocked {
			w.Errorf("record %s is handed over blocked=%t with %d in retry", r.name, reported, len(r.retry))
		}
	}
	slices.Sort(want)
	got := ids(w.tail(s, outbox.TailQuery{Upto: gained.Horizon, Shards: []int{1, 2}, Unsettled: true}).Events)
	if !slices.Equal(got, append([]int64{}, want...)) {
		w.Errorf("the new owner reads %v, nobody settled %v", got, want)
	}
}
