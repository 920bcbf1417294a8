package outbox

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// aged is a feed of account 7 whose log has two events in a partition that is
// past retention, and one in the next.
func aged(t *testing.T) *feed {
	t.Helper()
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.rotate(t)
	return f
}

// retain does one round of maintenance, and says whether it is done with the
// log.
func (f *feed) retain(t *testing.T) bool {
	t.Helper()
	err := f.store.maintainOnce(t.Context())
	if err != nil && !errors.Is(err, errUndelivered) {
		t.Fatal(err)
	}
	dropped := f.partitions(t, "event")[0] != "event_000000"
	if dropped != (err == nil) {
		t.Errorf("dropped %t, answered %v", dropped, err)
	}
	return dropped
}

const retainedSQL = "SELECT format('%s %s after %s', event_id, reason, attempts) FROM walhook.dead_letter ORDER BY event_id"

func TestRetention_WhatNobodyDeliversBecomesADeadLetter(t *testing.T) {
	for name, undelivered := range map[string]struct {
		sql  string
		want []string
	}{
		"a tail has not passed it": {"UPDATE walhook.shard SET tail = 0", []string{"1 retention after 0", "2 retention after 0"}},
		"a lane stands still before it": {`INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason)
			VALUES (1, 1, true, 1, false, 0, '')`, []string{"2 retention after 0"}},
		"an event is in retry":                    {"INSERT INTO walhook.retry VALUES (1, 1, 'users:7', 3, now(), '5xx')", []string{"1 retention after 3"}},
		"it waits behind one":                     {"INSERT INTO walhook.retry VALUES (1, 1, 'users:7', 0, NULL, '')", []string{"1 retention after 0"}},
		"it was settled, and the tail not stored": {"INSERT INTO walhook.attempt SELECT now(), 1, n, 1, 1, '1s', 200, 'delivered', '2xx', '' FROM generate_series(1, 2) n; UPDATE walhook.shard SET tail = 0", nil},
		"its feed ended":                          {"UPDATE walhook.shard SET tail = 0; UPDATE walhook.endpoint SET feed_from = 2", []string{"1 expired after 0", "2 retention after 0"}},
		"it is disabled": {"UPDATE walhook.shard SET tail = 0; UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'walhook', reason = '410'",
			[]string{"1 retention after 0", "2 retention after 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := aged(t)
			f.allDelivered(t)
			if _, err := f.conn.PgConn().Exec(t.Context(), undelivered.sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			bodies := one[int](t, f.world, "SELECT sum(octet_length(body))::int FROM walhook.event WHERE id <= 2")
			if !f.retain(t) {
				t.Error("the partition is kept")
			}
			wantLines(t, all[string](t, f.world, retainedSQL), undelivered.want...)
			if len(undelivered.want) == 2 && bodies != one[int](t, f.world, "SELECT sum(octet_length(body))::int FROM walhook.dead_letter") {
				t.Error("the bodies are not kept")
			}
			if n := f.count(t, "retry"); n != 0 {
				t.Errorf("%d rows are left in retry", n)
			}
			// What is younger is delivered by whoever comes.
			s, h := f.join(t)
			got := f.tail(t, s, TailQuery{Endpoint: 1, Upto: h.Horizon, Unsettled: true})
			wantIDs(t, got, eventPartitionSize)
			if metric := counter(t, f.world, "walhook_dead_letters_total"); metric != float64(len(undelivered.want)) {
				t.Errorf("walhook_dead_letters_total is %g", metric)
			}
		})
	}
}

// While a sender holds the shard, only it knows what is in flight.
func TestRetention_LeavesALaneToItsOwner(t *testing.T) {
	f := aged(t)
	f.exec(t, "UPDATE walhook.shard SET tail = 0")
	s, _ := f.join(t)
	_, since, err := s.EndpointsChanged(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if f.retain(t) {
			t.Fatal("the partition is dropped under its sender")
		}
	}
	if n := f.count(t, "dead_letter"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	// The owner is told, and finishes what it has in flight.
	changed, _, err := s.EndpointsChanged(t.Context(), since)
	if err != nil || len(changed) == 0 {
		t.Fatalf("told %+v, %v", changed, err)
	}
	told, err := s.Endpoints(t.Context(), []int64{changed[0].ID})
	if err != nil || len(told) != 1 || told[0].SendFrom() != eventPartitionSize || told[0].FeedFrom != 0 {
		t.Fatalf("told %+v, %v", told, err)
	}
	inFlight := Event{ID: 1, Endpoint: 1, Revision: 1, Record: "users:7"}
	f.settle(t, s, delivered(inFlight))
	if err := s.Expire(t.Context(), told[0], 0); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, f.world, retainedSQL), "2 retention after 0")
	if f.retain(t) {
		t.Error("dropped before the owner's tail is stored")
	}
	if err := s.Save(t.Context(), nil, []Shard{{ID: 1, Tail: eventPartitionSize - 1}}); err != nil {
		t.Fatal(err)
	}
	if !f.retain(t) {
		t.Error("the partition is kept although nothing in it is undelivered")
	}
	wantLines(t, all[string](t, f.world, retainedSQL), "2 retention after 0")
}

// A sender that is gone is no owner; one that wakes up again can write nothing.
func TestRetention_ActsForASenderWhoseLeaseIsOver(t *testing.T) {
	f := aged(t)
	f.exec(t, "UPDATE walhook.shard SET tail = 0")
	s, _ := f.join(t)
	f.expire(t, s)
	if !f.retain(t) {
		t.Error("the partition is kept")
	}
	if _, err := s.Settle(t.Context(), []Settlement{delivered(Event{ID: 1, Endpoint: 1, Revision: 1, Record: "users:7"})}); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("it settled: %v", err)
	}
	wantLines(t, all[string](t, f.world, retainedSQL), "1 retention after 0", "2 retention after 0")
}

// Nobody gains a shard in the middle of its conversion.
func TestRetention_ASenderThatComesInTheMiddleWaits(t *testing.T) {
	f := aged(t)
	f.exec(t, "UPDATE walhook.shard SET tail = 0")
	held := f.begin(t)
	execTx(t, held, "LOCK TABLE walhook.dead_letter IN SHARE MODE")
	expired := make(chan error, 1)
	go func() { expired <- f.store.expireBefore(t.Context(), eventPartitionSize) }()
	f.blocked(t, "INSERT INTO walhook.dead_letter")
	s, err := f.store.Join(t.Context(), "late", lease)
	if err != nil {
		t.Fatal(err)
	}
	type dealt struct {
		Handover
		error
	}
	gained := make(chan dealt, 1)
	go func() {
		h, _, err := s.Rebalance(t.Context())
		gained <- dealt{h, err}
	}()
	f.blocked(t, "UPDATE walhook.shard")
	commit(t, held)
	got := <-gained
	if got.error != nil || len(got.Shards) != Shards {
		t.Fatalf("gained %d shards, %v", len(got.Shards), got.error)
	}
	if err := <-expired; err != nil && !errors.Is(err, errUndelivered) {
		t.Fatal(err)
	}
	// What is dead is not sent, wherever the conversion stopped.
	dead := all[int64](t, f.world, "SELECT event_id FROM walhook.dead_letter")
	for _, e := range f.tail(t, s, TailQuery{Endpoint: 1, Upto: got.Horizon, Unsettled: true}) {
		if slices.Contains(dead, e.ID) {
			t.Errorf("event %d is dead and would be sent", e.ID)
		}
	}
}

// What an interrupted expiry buried is not buried twice, nor gone through again.
func TestExpire_GoesOnWhereItWasInterrupted(t *testing.T) {
	w := newWorldAlone(t)
	s, _ := w.join(t)
	endpoint := w.endpoint(t, "7")
	const n = 3 * expireChunk
	w.bodies(t, 1, n, endpoint, "dids:1", 8)
	w.exec(t, fmt.Sprintf(`CREATE FUNCTION walhook.interrupt() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.event_id > %d THEN RAISE 'interrupted'; END IF; RETURN NEW; END $$`, expireChunk))
	w.exec(t, "CREATE TRIGGER interrupt BEFORE INSERT ON walhook.dead_letter FOR EACH ROW EXECUTE FUNCTION walhook.interrupt()")
	e := Endpoint{ID: endpoint, ExpireBefore: n + 1}
	if err := s.Expire(t.Context(), e, 0); err == nil {
		t.Fatal("not interrupted")
	}
	w.exec(t, "ALTER TABLE walhook.dead_letter DISABLE TRIGGER interrupt")
	w.exec(t, "DELETE FROM walhook.dead_letter WHERE event_id <= $1", expireChunk/2) // would come again, if it were gone through again
	if err := s.Expire(t.Context(), e, 0); err != nil {
		t.Fatal(err)
	}
	if dead, events := w.count(t, "dead_letter"), one[int](t, w, "SELECT count(DISTINCT event_id) FROM walhook.dead_letter"); dead != n-expireChunk/2 || events != dead {
		t.Errorf("%d dead letters of %d events, want %d", dead, events, n-expireChunk/2)
	}
}

// Appends go on, whatever somebody holds open, while events are expired and
// partitions wait to be dropped.
func TestRetention_NeverHoldsUpAnAppend(t *testing.T) {
	f := aged(t)
	f.exec(t, "UPDATE walhook.shard SET tail = 0")
	reader := f.begin(t)
	execTx(t, reader, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
	for _, table := range []string{"event", "dead_letter", "endpoint", "shard", "lane", "retry"} {
		execTx(t, reader, "SELECT count(*) FROM walhook."+table)
	}
	done := make(chan error, 1)
	go func() { done <- f.store.maintainOnce(t.Context()) }()
	for n := 0; ; n++ {
		f.unqueued(t, n)
		select {
		case err := <-done:
			if err == nil {
				t.Error("dropped under a reader")
			}
			wantLines(t, all[string](t, f.world, retainedSQL), "1 retention after 0", "2 retention after 0")
			commit(t, reader)
			if !f.retain(t) {
				t.Error("the partition is kept")
			}
			f.unqueued(t, n+1)
			return
		default:
		}
	}
}

func (w *world) expireFeed(t *testing.T, s *Session, endpoint, feedFrom, cursor int64) {
	t.Helper()
	if err := s.Expire(t.Context(), Endpoint{ID: endpoint, FeedFrom: feedFrom}, cursor); err != nil {
		t.Fatal(err)
	}
}

const deadSQL = `SELECT format('%s %s %s %s %s', event_id, record, attempts, reason, size) FROM walhook.dead_letter ORDER BY event_id`

func TestExpire_WhatAnEarlierFeedLeftIsListedAsExpired(t *testing.T) {
	w, s, endpoint, e := parking(t)
	w.event(t, 5, endpoint, "dids:2")
	w.event(t, 6, endpoint, "dids:2") // of the present feed
	w.event(t, 7, w.endpoint(t, "8"), "dids:1")
	w.settle(t, s, delivered(e[1]), retried(e[2], time.Hour), parked(e[3]))
	want := []string{"2 dids:1 1 expired 8", "3 dids:1 0 expired 8", "4 dids:1 0 expired 8", "5 dids:2 0 expired 8"}
	for range 2 { // again, as after a failure
		w.expireFeed(t, s, endpoint, 6, 0)
		wantLines(t, all[string](t, w, deadSQL), want...)
	}
	if w.count(t, "retry") != 0 {
		t.Error("rows of the earlier feed are left in retry")
	}
	if bodies := one[int](t, w, "SELECT count(*) FROM walhook.dead_letter WHERE body = convert_to('xxxxxxxx', 'UTF8')"); bodies != 4 {
		t.Errorf("%d bodies kept", bodies)
	}
	wantIDs(t, w.tail(t, s, TailQuery{Endpoint: endpoint, Unsettled: true}), 6)
}

func TestExpire_StartsAfterTheCursor(t *testing.T) {
	w, s, endpoint, _ := parking(t)
	w.expireFeed(t, s, endpoint, 4, 2)
	wantLines(t, all[string](t, w, deadSQL), "3 dids:1 0 expired 8")
}

func TestExpire_GoesInChunks(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	endpoint := w.endpoint(t, "7")
	const n = 2*expireChunk + 10
	w.bodies(t, 1, n, endpoint, "dids:1", 8)
	w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason)
		SELECT endpoint, id, id::text, 1, now(), '5xx' FROM walhook.event WHERE id % 2 = 0`)
	w.expireFeed(t, s, endpoint, n+1, 0)
	if dead, events := w.count(t, "dead_letter"), one[int](t, w, "SELECT count(DISTINCT event_id) FROM walhook.dead_letter"); dead != n || events != n {
		t.Errorf("%d dead letters of %d events, want %d", dead, events, n)
	}
	if w.count(t, "retry") != 0 {
		t.Error("rows are left in retry")
	}
}

// After a hand-over the new owner may have parked events of the present feed
// behind a row that belongs to an earlier one.
func TestExpire_FreesWhatWaitsBehindIt(t *testing.T) {
	w, s, endpoint, e := parking(t)
	w.settle(t, s, retried(e[1], time.Hour), parked(e[2]), parked(e[3]), parked(e[4]))
	w.expireFeed(t, s, endpoint, 3, 0)
	due, _ := w.due(t, s, endpoint, time.Now().Add(time.Minute))
	wantIDs(t, due, 3)
}
