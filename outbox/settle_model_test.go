package outbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// parkingModel is what retry promises, in memory: per record the events that
// are still in the log and those in retry, each in order.
type parkingModel struct {
	records []*modelRecord
	random  *rand.Rand
}

type modelRecord struct {
	endpoint int64
	name     string
	log      []Event // nothing of them is settled
	retry    []Event // the oldest is due, the others wait
	blocked  bool    // as the sender knows it: since the last answer
	retryAt  time.Time
	failedAt time.Time
	sent     []int64 // delivered or dead, in this order
}

// batch makes a batch of settlements as a sender might: per record one event
// under way at most, and nothing from the log while the record is blocked.
func (m *parkingModel) batch() []Settlement {
	var batch []Settlement
	for _, i := range m.random.Perm(len(m.records)) {
		if r := m.records[i]; m.random.IntN(3) > 0 {
			batch = m.step(r, batch)
		}
	}
	return batch
}

func (m *parkingModel) step(r *modelRecord, batch []Settlement) []Settlement {
	headFirst := m.random.IntN(2) == 0
	park := func() {
		for r.blocked && len(r.log) > 0 && m.random.IntN(2) == 0 {
			batch = append(batch, parked(r.log[0]))
			r.retry, r.log = append(r.retry, r.log[0]), r.log[1:]
		}
	}
	if !headFirst {
		park()
	}
	switch {
	case r.blocked && len(r.retry) > 0: // the head that an answer named
		e := r.retry[0]
		s := m.fate(r, e)
		if s.Disposition == Retry {
			r.retry[0].Attempts++
		} else {
			r.retry = r.retry[1:]
		}
		batch = append(batch, fromRetry(s))
	case !r.blocked && len(r.log) > 0:
		e := r.log[0]
		r.log = r.log[1:]
		s := m.fate(r, e)
		if s.Disposition == Retry {
			e.Attempts++
			r.retry, r.blocked = append(r.retry, e), true
		}
		batch = append(batch, s)
	}
	if headFirst {
		park()
	}
	return batch
}

func (m *parkingModel) fate(r *modelRecord, e Event) Settlement {
	switch m.random.IntN(4) {
	case 0:
		r.sent = append(r.sent, e.ID)
		return dead(e)
	case 1:
		r.sent = append(r.sent, e.ID)
		return delivered(e)
	}
	s := retried(e, time.Duration(1+m.random.IntN(100))*time.Minute)
	r.retryAt, r.failedAt = s.RetryAt, time.Now()
	return s
}

// expire drops what an earlier feed left of one endpoint.
func (m *parkingModel) expire(endpoint, feedFrom int64) {
	old := func(e Event) bool { return e.ID < feedFrom }
	for _, r := range m.records {
		if r.endpoint == endpoint {
			r.log, r.retry = slices.DeleteFunc(r.log, old), slices.DeleteFunc(r.retry, old)
			r.blocked = len(r.retry) > 0
		}
	}
}

func (m *parkingModel) left() (n int) {
	for _, r := range m.records {
		n += len(r.log) + len(r.retry)
	}
	return n
}

// The oldest row of each record is due, and none but it, whatever is settled
// in which order, expired and handed over.
func TestSettle_ExactlyTheOldestOfEachRecordIsDue(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t)
			m := &parkingModel{random: rand.New(rand.NewPCG(seed, 1))}
			endpoints := []int64{w.endpointID(t, 1), w.endpointID(t, 2), w.endpointID(t, 33)}
			for _, endpoint := range endpoints {
				for n := range 3 {
					m.records = append(m.records, &modelRecord{endpoint: endpoint, name: fmt.Sprint("dids:", n)})
				}
			}
			for id := range int64(150) {
				r := m.records[m.random.IntN(len(m.records))]
				r.log = append(r.log, w.event(t, id+1, r.endpoint, r.name))
			}
			s, _ := w.join(t)
			for steps := 0; m.left() > 0; steps++ {
				if steps > 1000 {
					t.Fatal("the model does not come to an end")
				}
				switch {
				case steps%25 == 24:
					endpoint, feedFrom := endpoints[m.random.IntN(3)], m.random.Int64N(100)
					w.expireFeed(t, s, endpoint, feedFrom, 0)
					m.expire(endpoint, feedFrom)
				case steps%10 == 9:
					w.expire(t, s)
					var gained Handover
					s, gained = w.join(t)
					m.checkHandover(t, w, s, gained)
				default:
					m.checkStates(t, w.settle(t, s, m.batch()...))
				}
				m.checkDue(t, w, s)
				if t.Failed() {
					t.Fatalf("after %d steps", steps)
				}
			}
			for _, r := range m.records {
				if !slices.IsSorted(r.sent) {
					t.Errorf("record %d/%s was sent as %v", r.endpoint, r.name, r.sent)
				}
			}
			if w.count(t, "retry") != 0 {
				t.Error("rows are left in retry")
			}
		})
	}
}

func (m *parkingModel) record(endpoint int64, name string) *modelRecord {
	i := slices.IndexFunc(m.records, func(r *modelRecord) bool { return r.endpoint == endpoint && r.name == name })
	return m.records[i]
}

func (m *parkingModel) checkStates(t *testing.T, states []RecordState) {
	t.Helper()
	for _, state := range states {
		r := m.record(state.Endpoint, state.Record)
		if r.blocked = len(r.retry) > 0; state.Blocked != r.blocked {
			t.Errorf("answered %v, the model has %d rows in retry", state, len(r.retry))
		}
		if r.blocked && r.retry[0].Attempts > 0 && !about(state.NextAt, r.retryAt, r.failedAt) {
			t.Errorf("answered %v at %s, the model has %s", state, state.NextAt, r.retryAt)
		}
		if r.blocked && r.retry[0].Attempts == 0 && time.Until(state.NextAt) > 0 {
			t.Errorf("answered %v at %s, want now", state, state.NextAt)
		}
	}
}

func (m *parkingModel) checkDue(t *testing.T, w *world, s *Session) {
	t.Helper()
	var want, got []string
	rows := 0
	line := func(e Event) string { return fmt.Sprintf("%d %d %s after %d", e.Endpoint, e.ID, e.Record, e.Attempts) }
	endpoints := map[int64]bool{}
	for _, r := range m.records {
		rows += len(r.retry)
		endpoints[r.endpoint] = true
		if len(r.retry) > 0 {
			want = append(want, line(r.retry[0]))
		}
	}
	for endpoint := range endpoints {
		due, _ := w.due(t, s, endpoint, time.Now().Add(1000*time.Hour))
		for _, e := range due {
			got = append(got, line(e))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	wantLines(t, got, want...)
	if stored := w.count(t, "retry"); stored != rows {
		t.Errorf("%d rows in retry, the model has %d", stored, rows)
	}
}

func (m *parkingModel) checkHandover(t *testing.T, w *world, s *Session, gained Handover) {
	t.Helper()
	var want, got []int64
	for _, r := range m.records {
		want = append(want, ids(r.log)...)
		blocked := slices.ContainsFunc(gained.Blocked, func(b RecordState) bool {
			return b.Endpoint == r.endpoint && b.Record == r.name && b.Blocked
		})
		if r.blocked = len(r.retry) > 0; blocked != r.blocked {
			t.Errorf("handed over: record %d/%s blocked=%t, the model has %d rows", r.endpoint, r.name, blocked, len(r.retry))
		}
	}
	slices.Sort(want)
	for _, e := range w.tail(t, s, TailQuery{Upto: gained.Horizon, Shards: []int{1, 2}, Unsettled: true, Limit: 1000}) {
		got = append(got, e.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the new owner reads %v, the model has %v", got, want)
	}
}
