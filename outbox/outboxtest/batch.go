package outboxtest

import (
	"math"
	"time"

	"walhook/outbox"
)

func batchCases() []testCase {
	return []testCase{
		{"a failed batch is read whole, in order, also what waits within it", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2, 1, 3)
			w.settle(s, inBatch(retry(e[0], time.Hour), e[0]), inBatch(retry(e[1], time.Hour), e[0]), behind(inBatch(retry(e[2], time.Hour), e[0])), retry(e[3], time.Hour))
			w.wantEvents("before its time", w.dueBatches(s, a, time.Hour-aMoment, 1000).Events)
			due := w.dueBatches(s, a, time.Hour+aMoment, 1000)
			w.wantEvents("in time", due.Events, e...)
			for i, one := range due.Events {
				if want := []int64{e[0].ID, e[0].ID, e[0].ID, 0}[i]; one.Batch != want || one.Attempts != 1 {
					w.Errorf("event %d is of batch %d after %d attempts, want %d after 1", one.ID, one.Batch, one.Attempts, want)
				}
			}
			w.wantEvents("with room for one row", w.dueBatches(s, a, time.Hour+aMoment, 1).Events, e[:3]...)
			w.wantEvents("without batches", w.due(s, a, time.Hour+aMoment).Events, e[0], e[1], e[3])
			w.wantEvents("while it is in flight", w.dueBatches(s, a, 2*time.Hour, 1000, e[0].ID, e[1].ID, e[2].ID).Events, e[3])
		}},
		{"batches are one endpoint's own", func(w *world) {
			s, _ := w.owner()
			a, b := w.endpoint(1), w.endpoint(1)
			e, other := w.events(a, 1), w.events(b, 1)
			w.settle(s, inBatch(retry(e[0], 0), e[0]), inBatch(retry(other[0], 0), e[0]))
			w.wantEvents("of the one", w.dueBatches(s, a, time.Minute, 1000).Events, e[0])
		}},
		{"a batch that is delivered leaves nothing", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2, 1)
			w.settle(s, inBatch(retry(e[0], 0), e[0]), inBatch(retry(e[1], 0), e[0]), behind(inBatch(retry(e[2], 0), e[0])))
			w.wantStates("delivered", w.settle(s, again(delivered(e[0])), again(delivered(e[1])), again(delivered(e[2]))), nil, list(e[0], e[1]))
			w.wantEvents("in the end", w.dueBatches(s, a, 100*time.Hour, 1000).Events)
		}},
		{"in halves, what waits for an event of the other half is due after it", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2, 1, 3)
			w.settle(s, inBatch(retry(e[0], 0), e[0]), inBatch(retry(e[1], 0), e[0]), behind(inBatch(retry(e[2], 0), e[0])), inBatch(retry(e[3], 0), e[0]))
			w.settle(s, again(inBatch(retry(e[0], time.Minute), e[0])), again(inBatch(retry(e[1], time.Minute), e[0])),
				again(behind(inBatch(retry(e[2], time.Minute), e[2]))), again(inBatch(retry(e[3], time.Minute), e[2])))
			w.wantEvents("both halves", w.dueBatches(s, a, 2*time.Minute, 1000).Events, e[0], e[1], e[3])
			w.settle(s, again(delivered(e[0])), again(delivered(e[1])))
			w.wantEvents("after the first", w.dueBatches(s, a, 2*time.Minute, 1000).Events, e[2], e[3])
			w.settle(s, again(delivered(e[3])))
			due := w.dueBatches(s, a, 0, 1000).Events
			w.wantEvents("what waited", due, e[2])
			if len(due) == 1 && due[0].Attempts != 1 {
				w.Errorf("what waited was attempted %d times, want 1", due[0].Attempts)
			}
		}},
		{"an event that leaves its batch is due by itself", func(w *world) {
			s, _ := w.owner()
			a := w.endpoint(1)
			e := w.events(a, 1, 2)
			w.settle(s, inBatch(retry(e[0], 0), e[0]), inBatch(retry(e[1], 0), e[0]))
			w.settle(s, again(retry(e[0], 0)), again(delivered(e[1])))
			due := w.dueBatches(s, a, time.Minute, 1000).Events
			w.wantEvents("due", due, e[0])
			if len(due) == 1 && due[0].Batch != 0 {
				w.Errorf("it is of batch %d still", due[0].Batch)
			}
		}},
	}
}

// inBatch returns the settlement of an event that is sent again with the others whose
// first is named.
func inBatch(s outbox.Settlement, first outbox.Event) outbox.Settlement {
	s.Batch = first.ID
	return s
}

// behind returns the settlement of an event behind another one of its record.
func behind(s outbox.Settlement) outbox.Settlement {
	s.Behind = true
	return s
}

func (w *world) dueBatches(s holder, e outbox.Endpoint, in time.Duration, limit int, exclude ...int64) outbox.Retries {
	w.Helper()
	due, err := s.DueRetries(w.ctx, outbox.RetryQuery{
		Endpoint: e.ID, Now: time.Now().Add(in), Limit: limit, MaxBytes: math.MaxInt32, Exclude: exclude, Batches: true,
	})
	w.must(err)
	return due
}
