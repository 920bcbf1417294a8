package outbox

import (
	"testing"
	"time"
)

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
