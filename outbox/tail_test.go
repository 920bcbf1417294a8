package outbox

import (
	"testing"
	"time"
)

func (w *world) tail(t *testing.T, s *Session, q TailQuery) []Event {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	if q.MaxBytes == 0 {
		q.MaxBytes = 1 << 20
	}
	stretch, err := s.Tail(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return stretch.Events
}

func TestTail_ReadsTheHeldShardsInOrder(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	for n, endpoint := range []int64{33, 2, 1, 34, 3, 1} { // shards 1, 2, 1, 2, 3, 1
		if n < 5 {
			w.endpointID(t, endpoint)
		}
		w.event(t, int64(n+1)*10, endpoint, "dids:1")
	}
	wantIDs(t, w.tail(t, s, TailQuery{Shards: []int{1}}), 10, 30, 60)
	wantIDs(t, w.tail(t, s, TailQuery{Shards: []int{1, 2}}), 10, 20, 30, 40, 60)
	wantIDs(t, w.tail(t, s, TailQuery{Shards: []int{1, 2}, After: 20, Upto: 40}), 30, 40)
	wantIDs(t, w.tail(t, s, TailQuery{Shards: []int{1, 2, 3}, After: 60}))
	wantIDs(t, w.tail(t, s, TailQuery{Endpoint: 1}), 30, 60)
	wantIDs(t, w.tail(t, s, TailQuery{Endpoint: 1, After: 30, Upto: 60}), 60)
	wantIDs(t, w.tail(t, s, TailQuery{Endpoint: 4}))
}

func TestTail_CarriesTheWholeEvent(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	endpoint := w.endpoint(t, "7")
	w.event(t, 5, endpoint, "dids:1")
	got := w.tail(t, s, TailQuery{Endpoint: endpoint})[0]
	if got.CommittedAt.IsZero() || time.Since(got.CommittedAt) > time.Minute {
		t.Errorf("committed at %s", got.CommittedAt)
	}
	got.CommittedAt = time.Time{}
	want := Event{ID: 5, Endpoint: endpoint, Revision: 1, Record: "dids:1", WebhookID: "evt_5", Schema: "dids", Type: "insert"}
	if string(got.Body) != "xxxxxxxx" {
		t.Errorf("body is %q", got.Body)
	}
	got.Body = nil
	if got.ID != want.ID || got.Endpoint != want.Endpoint || got.Revision != want.Revision || got.Record != want.Record ||
		got.WebhookID != want.WebhookID || got.Schema != want.Schema || got.Type != want.Type || got.Attempts != 0 {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTail_StopsAtItsLimits(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	endpoint := w.endpoint(t, "7")
	shard := []int{ShardOf(endpoint)}
	w.bodies(t, 1, 6, endpoint, "dids:1", 1000)
	w.bodies(t, 7, 7, endpoint, "dids:1", 3<<20)
	w.bodies(t, 8, 8, endpoint, "dids:1", 10)
	for _, q := range []struct {
		name  string
		query TailQuery
		want  []int64
	}{
		{"rows", TailQuery{Limit: 3}, []int64{1, 2, 3}},
		{"bytes", TailQuery{MaxBytes: 2500}, []int64{1, 2, 3}},
		{"bytes, to the byte", TailQuery{MaxBytes: 3000}, []int64{1, 2, 3}},
		{"bytes, one more", TailQuery{MaxBytes: 3001}, []int64{1, 2, 3, 4}},
		{"no bytes: one event", TailQuery{MaxBytes: -1}, []int64{1}},
		{"a large one ends it", TailQuery{After: 4, MaxBytes: 1 << 20}, []int64{5, 6, 7}},
		{"a large one alone", TailQuery{After: 6, MaxBytes: 1 << 20}, []int64{7}},
		{"room for all", TailQuery{After: 6, MaxBytes: 4 << 20}, []int64{7, 8}},
	} {
		q.query.Shards = shard
		t.Run(q.name, func(t *testing.T) { wantIDs(t, w.tail(t, s, q.query), q.want...) })
		q.query.Endpoint = endpoint
		t.Run(q.name+", of one endpoint", func(t *testing.T) { wantIDs(t, w.tail(t, s, q.query), q.want...) })
	}
}

func TestTail_UnsettledLeavesOutWhatAnEarlierOwnerSettled(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	endpoint, other := w.endpointID(t, 1), w.endpointID(t, 33) // one shard
	e := map[int64]Event{}
	for id := int64(1); id <= 6; id++ {
		e[id] = w.event(t, id, endpoint, "dids:1")
	}
	e[7] = w.event(t, 7, other, "dids:1")
	w.settle(t, s, delivered(e[1]), retried(e[2], time.Hour), parked(e[3]), dead(e[4]))
	w.exec(t, "DELETE FROM walhook.attempt WHERE event_id = 4") // known by its dead letter alone
	q := TailQuery{Shards: []int{1}, Unsettled: true}
	wantIDs(t, w.tail(t, s, q), 5, 6, 7)
	q.Endpoint = endpoint
	wantIDs(t, w.tail(t, s, q), 5, 6)
	q.Unsettled = false
	wantIDs(t, w.tail(t, s, q), 1, 2, 3, 4, 5, 6)

	// The limit counts what is looked at, so that no read takes long; the
	// answer says from where to go on.
	q = TailQuery{Shards: []int{1}, Unsettled: true, Limit: 2, MaxBytes: 1 << 20}
	var read []Event
	for more := true; more; {
		stretch, err := s.Tail(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, stretch.Events...)
		q.After, more = stretch.Upto, stretch.More
	}
	wantIDs(t, read, 5, 6, 7)
}

func TestTail_SaysHowFarItReadAndWhetherThereIsMore(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	for id := int64(1); id <= 8; id++ { // shards 1 and 2 in turn
		if id < 3 {
			w.endpointID(t, id)
		}
		w.bodies(t, id*10, id*10, 2-id%2, "dids:1", 1000)
	}
	for _, q := range []struct {
		name  string
		query TailQuery
		want  []int64
		upto  int64
		more  bool
	}{
		{"to its end", TailQuery{Shards: []int{1}, Limit: 10}, []int64{10, 30, 50, 70}, 80, false},
		{"to its bound", TailQuery{Shards: []int{1}, Limit: 10, Upto: 75}, []int64{10, 30, 50, 70}, 75, false},
		{"of others alone", TailQuery{Shards: []int{1}, Limit: 10, After: 70}, nil, 80, false},
		{"nothing", TailQuery{Shards: []int{1}, Limit: 10, After: 80}, nil, 80, false},
		{"nothing, to its bound", TailQuery{Shards: []int{1}, Limit: 10, After: 80, Upto: 99}, nil, 99, false},
		{"by rows", TailQuery{Shards: []int{1}, Limit: 4}, []int64{10, 30}, 40, true},
		{"by rows, just", TailQuery{Shards: []int{1}, Limit: 8, Upto: 90}, []int64{10, 30, 50, 70}, 80, true},
		{"by bytes", TailQuery{Shards: []int{1}, Limit: 10, MaxBytes: 2000, Upto: 90}, []int64{10, 30}, 30, true},
		{"by bytes, mostly others'", TailQuery{Shards: []int{2}, Limit: 10, MaxBytes: 1001}, []int64{20, 40}, 40, true},
		{"without bytes", TailQuery{Shards: []int{1}, Limit: 10, MaxBytes: -1, After: 80}, nil, 80, false},
		{"one endpoint's", TailQuery{Endpoint: 2, Limit: 2}, []int64{20, 40}, 40, true},
		{"one endpoint's, to its end", TailQuery{Endpoint: 2, Limit: 5}, []int64{20, 40, 60, 80}, 80, false},
	} {
		t.Run(q.name, func(t *testing.T) {
			if q.query.MaxBytes == 0 {
				q.query.MaxBytes = 1 << 20
			}
			got, err := s.Tail(t.Context(), q.query)
			if err != nil {
				t.Fatal(err)
			}
			wantIDs(t, got.Events, q.want...)
			if got.Upto != q.upto || got.More != q.more {
				t.Errorf("upto %d, more %t, want %d, %t", got.Upto, got.More, q.upto, q.more)
			}
		})
	}
}

// Retention may drop a partition between the reading of rows and of their long
// bodies. Then the rows are read again, and are not there.
func TestTail_ABodyThatIsGoneIsNoEmptyBody(t *testing.T) {
	w, _, _, e := parking(t)
	events := []Event{{ID: e[1].ID}, {ID: e[2].ID}}
	for _, there := range []bool{true, false} {
		whole, err := w.store.readBodies(t.Context(), events)
		if err != nil || whole != there || string(events[0].Body) != "xxxxxxxx" {
			t.Errorf("whole %v and %q, %v; want %v", whole, events[0].Body, err, there)
		}
		w.exec(t, "DELETE FROM walhook.event WHERE id = $1", e[2].ID)
		events[0].Body, events[1].Body = nil, nil
	}
}
