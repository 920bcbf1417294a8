package outbox

import (
	"errors"
	"testing"
	"time"
)

func TestOrdering_SetToNoneReleasesWhatWaitedBehindAFailedEvent(t *testing.T) {
	w, s, endpoint, e := parking(t)
	w.settle(t, s, retried(e[1], time.Hour), parked(e[2]), parked(e[3]))
	account := one[string](t, w, "SELECT account FROM walhook.endpoint WHERE id = $1", endpoint)
	revision := func() int64 {
		return one[int64](t, w, "SELECT revision FROM walhook.endpoint WHERE id = $1", endpoint)
	}
	before := revision()
	if set, err := w.store.SetOrdering(t.Context(), account, OrderingNone); err != nil || set.Ordering != OrderingNone {
		t.Fatalf("%+v, %v", set, err)
	}
	due, _ := w.due(t, s, endpoint, time.Now().Add(time.Minute))
	wantIDs(t, due, 2, 3) // 1 keeps its own time
	if now := revision(); now != before+1 {
		t.Errorf("revision %d after %d: senders are not told", now, before)
	}
	if _, err := w.store.SetOrdering(t.Context(), account, OrderingNone); err != nil || revision() != before+1 {
		t.Errorf("the ordering in force, set again: %v, revision %d", err, revision())
	}
	if got, err := w.store.Ordering(t.Context(), account); err != nil || got != OrderingNone {
		t.Errorf("ordering %s, %v", got, err)
	}
}

func TestOrdering_RefusesWhatItDoesNotKnow(t *testing.T) {
	w, _, endpoint, _ := parking(t)
	account := one[string](t, w, "SELECT account FROM walhook.endpoint WHERE id = $1", endpoint)
	if _, err := w.store.SetOrdering(t.Context(), account, "any"); err == nil {
		t.Error("an ordering that does not exist is set")
	}
	if _, err := w.store.SetOrdering(t.Context(), "nobody", OrderingNone); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("nobody's: %v", err)
	}
	if _, err := w.store.Ordering(t.Context(), "nobody"); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("nobody's: %v", err)
	}
}
