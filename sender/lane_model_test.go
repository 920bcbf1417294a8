package sender

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// laneWorld drives one lane by random steps: every query of the outbox and every answer
// may come at any time after the one before.
type laneWorld struct {
	t       *testing.T
	random  *rand.Rand
	log     *fakeLog
	session Session
	events  []outbox.Event // all of the log
	lane    *lane
	offered int // events handed to the lane by the tail

	jobs     []*job
	handed   [][]outbox.Settlement // given to the outbox, in order, not yet durable
	answered []settledBatch        // durable, the lane does not know
	reads    []laneRequest         // asked
	replies  []laneRequest         // answered, the lane does not know
	arrived  map[int64]int
	first    map[string]int64 // record → highest first delivery
	last     int64            // the highest first delivery
	failures float64
	ordering outbox.Ordering
	changed  bool  // the ordering was another one at first
	poison   int64 // an event that no request delivers; 0 for none
	largest  int   // events of a request
}

func newLaneWorld(t *testing.T, seed uint64, events int, ordering outbox.Ordering, batch int) *laneWorld {
	w := &laneWorld{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), arrived: map[int64]int{}, first: map[string]int64{}, ordering: ordering,
	}
	w.failures = []float64{0, .1, .5, .9}[w.random.IntN(4)]
	e := outbox.Endpoint{ID: 7, Revision: 1, URL: "http://a", State: outbox.EndpointActive, Ordering: ordering}
	if batch > 0 {
		e.Settings = &outbox.EndpointSettings{HTTPVerb: "post", Batch: batch}
	}
	w.log = newFakeLog(e)
	for i := range events {
		w.events = append(w.events, outbox.Event{
			ID: int64(10 + 3*i), Endpoint: 7, Revision: 1, Record: fmt.Sprint("r", w.random.IntN(6)), Body: []byte("{}"),
		})
	}
	w.log.append(w.events...)
	w.join()
	w.lane = newLane(w.policy(), e)
	return w
}

// join begins a session, whose lease outlasts the test, and takes over.
func (w *laneWorld) join() outbox.Handover {
	var err error
	if w.session, err = w.log.Join(w.t.Context(), "lane", 10*time.Minute, nil); err != nil {
		w.t.Fatal(err)
	}
	h, _, err := w.session.Rebalance(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *laneWorld) policy() *policy {
	delays := make([]time.Duration, 60)
	for i := range delays {
		delays[i] = time.Duration(1+i) * time.Second
	}
	return &policy{
		window: 4, events: 8, bytes: 1 << 20, disableAfter: 1000 * time.Hour, random: w.random.Float64,
		schedule: schedule{delays: delays, random: w.random.Float64},
	}
}

// room is mostly enough, sometimes none and sometimes overdrawn.
func (w *laneWorld) room() int {
	return []int{1 << 20, 1 << 20, 1 << 20, 0, -2 << 20}[w.random.IntN(5)]
}

func (w *laneWorld) tail() int64 {
	if w.offered == 0 {
		return 0
	}
	return w.events[w.offered-1].ID
}

func (w *laneWorld) step() {
	now := time.Now()
	l := w.lane
	switch w.random.IntN(9) {
	case 0:
		if w.offered < len(w.events) {
			l.offer(w.events[w.offered], w.room(), now)
			w.offered++
		}
	case 1, 2:
		if j, ok := l.start(now); ok {
			w.jobs = append(w.jobs, j)
		}
	case 3:
		if len(w.jobs) > 0 {
			i := w.random.IntN(len(w.jobs))
			j := w.jobs[i]
			w.jobs = append(w.jobs[:i], w.jobs[i+1:]...)
			w.answer(j, now)
		}
	case 4:
		if len(l.out) > 0 {
			w.checkParked(l.out)
			w.handed = append(w.handed, append([]outbox.Settlement(nil), l.out...))
			l.out = nil
		}
	case 5:
		if len(w.handed) > 0 {
			states, err := w.session.Settle(w.t.Context(), w.handed[0])
			if err != nil {
				w.t.Fatal(err)
			}
			w.answered = append(w.answered, settledBatch{batch: w.handed[0], states: states})
			w.handed = w.handed[1:]
		}
	case 6:
		if len(w.answered) > 0 {
			a := w.answered[0]
			w.answered = w.answered[1:]
			for i := range a.batch {
				l.settledAs(&a.batch[i])
			}
			for _, s := range a.states {
				l.recordState(s)
			}
		}
	case 7:
		if q, ok := l.wantRead(w.room(), now); ok {
			w.reads = append(w.reads, laneRequest{tail: &q})
		}
		if q, ok := l.wantRetries(w.room(), now); ok {
			w.reads = append(w.reads, laneRequest{retries: &q})
		}
	case 8:
		w.read(now)
	}
	w.checkCursor(now)
}

// read serves a query, or gives an answer to the lane.
func (w *laneWorld) read(now time.Time) {
	if len(w.reads) > 0 {
		r := w.reads[0]
		w.reads = w.reads[1:]
		if err := r.serve(w.t.Context(), w.session); err != nil {
			w.t.Fatal(err)
		}
		w.replies = append(w.replies, r)
	}
	if len(w.replies) > 0 && w.random.IntN(2) == 0 {
		r := w.replies[0]
		w.replies = w.replies[1:]
		if r.tail != nil {
			w.lane.read(*r.tail, r.stretch, now)
		} else {
			w.lane.readRetries(*r.retries, r.due, now)
		}
	}
}

// answer lets the endpoint answer a job, and checks what has just arrived.
func (w *laneWorld) answer(j *job, now time.Time) {
	o := ok
	switch p := w.random.Float64(); {
	case p < w.failures*.6:
		o = failing
	case p < w.failures*.8:
		o = rejects
	case p < w.failures*.9:
		o = pauses(2 * time.Second)
	case p < w.failures:
		o = ownFault
	}
	if w.poison != 0 && contains(j, w.poison) {
		o = rejects
	}
	w.checkBatch(j)
	if o.Outcome == deliver.Delivered {
		w.arrive(j)
	}
	o.At = now
	j.result = o
	w.lane.finish(j, now)
}

func (w *laneWorld) arrive(j *job) {
	for i := range j.size() {
		e, _ := j.at(i)
		if w.arrived[e.ID]++; w.arrived[e.ID] > 1 {
			w.t.Fatalf("event %d arrived twice without a crash", e.ID)
		}
		w.checkOrder(*e)
		w.first[e.Record] = max(w.first[e.Record], e.ID)
		w.last = max(w.last, e.ID)
	}
}

func contains(j *job, id int64) bool {
	for i := range j.size() {
		if e, _ := j.at(i); e.ID == id {
			return true
		}
	}
	return false
}

// checkBatch checks what a request carries.
func (w *laneWorld) checkBatch(j *job) {
	w.largest = max(w.largest, j.size())
	if most := max(w.lane.batch(), 1); j.size() > most && !w.changed {
		w.t.Fatalf("a request carries %d events, want at most %d", j.size(), most)
	}
	for _, other := range w.jobs {
		for i := range j.size() {
			e, _ := j.at(i)
			for k := range other.size() {
				if o, _ := other.at(k); o.Record == e.Record && !w.changed && w.ordering != outbox.OrderingNone {
					w.t.Fatalf("events %d and %d of record %s are in two requests", e.ID, o.ID, e.Record)
				}
			}
		}
	}
	for i := 1; i < j.size(); i++ {
		before, _ := j.at(i - 1)
		if e, _ := j.at(i); e.ID <= before.ID {
			w.t.Fatalf("event %d stands behind %d", e.ID, before.ID)
		}
	}
}

func (w *laneWorld) checkOrder(e outbox.Event) {
	switch {
	case w.changed || w.ordering == outbox.OrderingNone:
	case e.ID < w.first[e.Record]:
		w.t.Fatalf("event %d of record %s arrived after %d", e.ID, e.Record, w.first[e.Record])
	case w.ordering == outbox.OrderingStrict && e.ID < w.last:
		w.t.Fatalf("event %d arrived after %d", e.ID, w.last)
	}
}

func (w *laneWorld) checkParked(out []outbox.Settlement) {
	for _, s := range out {
		if s.Disposition == outbox.Parked && w.ordering != outbox.OrderingRecord && !w.changed {
			w.t.Fatalf("event %d is parked with ordering %s", s.Event.ID, w.ordering)
		}
	}
}

// reorder lets the account choose another ordering. What is in flight or in
// retry by then keeps its own order.
func (w *laneWorld) reorder(to outbox.Ordering) {
	e := w.lane.endpoint
	e.Ordering, e.Revision = to, e.Revision+1
	w.ordering, w.changed = to, true
	w.lane.adopt(e, w.tail(), time.Now())
	w.log.set(e)
}

// checkCursor compares the lane's cursor with the committed settlements.
func (w *laneWorld) checkCursor(now time.Time) {
	cursor := min(w.lane.cursor.position(), w.tail())
	if s := w.lane.snapshot(0, now); s.Behind {
		cursor = s.Cursor
	}
	for _, e := range w.events {
		if e.ID <= cursor && !w.log.Settled(e.ID) {
			w.t.Fatalf("cursor %d passes event %d, which is not settled", cursor, e.ID)
		}
	}
	if w.lane.inFlight > w.lane.policy.window || w.ordering == outbox.OrderingStrict && w.lane.inFlight > 1 && !w.changed {
		w.t.Fatalf("%d in flight, window %d, ordering %s", w.lane.inFlight, w.lane.policy.window, w.ordering)
	}
	blocked := 0
	for _, r := range w.lane.records {
		if r.blocked {
			blocked++
		}
	}
	if blocked != w.lane.retries.blocked {
		w.t.Fatalf("%d records are blocked, the lane counts %d", blocked, w.lane.retries.blocked)
	}
	if w.ordering == outbox.OrderingStrict && !w.changed {
		if rows := len(w.log.view().retry); rows > 1 {
			w.t.Fatalf("%d rows in retry with strict ordering", rows)
		}
	}
}

func (w *laneWorld) crash() {
	s := w.lane.snapshot(0, time.Now())
	cursor := min(w.lane.cursor.position(), w.tail())
	w.lane = newLane(w.policy(), w.lane.endpoint)
	w.jobs, w.handed, w.answered, w.reads, w.replies = nil, nil, nil, nil, nil
	s.Behind, s.Cursor = true, cursor
	w.log.Lapse("")
	h := w.join()
	w.lane.restore(s, h.Horizon, 0, time.Now())
	w.offered = len(w.events)
	for _, state := range h.Blocked {
		w.lane.recordState(state)
	}
	// What was delivered and not settled is delivered again: at least once.
	retry := w.log.view().retry
	for id := range w.arrived {
		if _, again := retry[id]; again || !w.log.Settled(id) {
			delete(w.arrived, id)
		}
	}
	w.last = 0
	for id := range w.arrived {
		w.last = max(w.last, id)
	}
	for record := range w.first {
		w.first[record] = 0
		for _, e := range w.events {
			if e.Record == record && w.arrived[e.ID] > 0 {
				w.first[record] = e.ID
			}
		}
	}
}

// run steps until all is delivered. A crash, and perhaps a change of the
// ordering, come at random moments.
func (w *laneWorld) run(seed uint64, reorderTo outbox.Ordering) {
	crashAt, reorderAt := w.random.IntN(4000), w.random.IntN(2500)
	for i := range 200_000 {
		w.step()
		if i == crashAt {
			w.crash()
		}
		if i == reorderAt && reorderTo != "" {
			w.reorder(reorderTo)
		}
		if i%50 == 0 {
			time.Sleep(time.Duration(w.random.IntN(2000)) * time.Millisecond)
		}
		if i == 3000 {
			w.failures = 0
		}
		if i > 3000 && w.lane.drained() && len(w.log.delivered()) == len(w.events) && len(w.log.view().retry) == 0 {
			return
		}
	}
	l := w.lane
	w.t.Fatalf("seed %d: delivered %d of %d; retry %d, lane behind=%v readTo=%d missed=%d ready=%d retries=%d inFlight=%d pending=%d blocked=%d retryAt=%v state=%s",
		seed, len(w.log.delivered()), len(w.events), len(w.log.view().retry), l.cursor.behind, l.cursor.readTo, l.cursor.missed,
		l.ready.len(), len(l.retries.waiting), l.inFlight, l.pending, l.retries.blocked, l.retries.dueAt, l.status(time.Now()))
}

var orderings = []outbox.Ordering{outbox.OrderingNone, outbox.OrderingRecord, outbox.OrderingStrict}

func TestLane_KeepsItsOrderAndLosesNothingInAnyInterleaving(t *testing.T) {
	t.Parallel()
	for _, ordering := range orderings {
		t.Run(string(ordering), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(60) {
				synctest.Test(t, func(t *testing.T) { newLaneWorld(t, seed, 60, ordering, 0).run(seed, "") })
			}
		})
	}
}

func TestLane_BatchesKeepTheOrderAndLoseNothingInAnyInterleaving(t *testing.T) {
	t.Parallel()
	for _, ordering := range orderings {
		t.Run(string(ordering), func(t *testing.T) {
			t.Parallel()
			largest := 0
			for seed := range uint64(60) {
				synctest.Test(t, func(t *testing.T) {
					w := newLaneWorld(t, seed, 60, ordering, []int{1, 2, 3, 8}[seed%4])
					w.run(seed, "")
					largest = max(largest, w.largest)
				})
			}
			if batches := ordering == outbox.OrderingRecord; batches && largest < 8 || !batches && largest > 1 {
				t.Errorf("the largest batch has %d events", largest)
			}
		})
	}
}

func TestLane_AChangeOfOrderingLosesNothing(t *testing.T) {
	t.Parallel()
	for _, from := range orderings {
		for _, to := range orderings {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				t.Parallel()
				for seed := range uint64(10) {
					synctest.Test(t, func(t *testing.T) { newLaneWorld(t, seed, 60, from, int(seed%4)).run(seed, to) })
				}
			})
		}
	}
}
