package admin

import (
	"errors"
	"testing"
	"time"

	"walhook/outbox"
)

func TestOrdering_SetToNoneReleasesWhatWaitedBehindAFailedEvent(t *testing.T) {
	w := newWorld(t)
	endpoint := w.Endpoint(t, "7")
	w.Bodies(t, 1, 3, endpoint, "dids:1", 8)
	s, _ := w.join(t)
	of := func(id int64, d outbox.Disposition) outbox.Settlement {
		return outbox.Settlement{Event: outbox.Event{ID: id, Endpoint: endpoint, Revision: 1, Record: "dids:1"}, Disposition: d}
	}
	failed := of(1, outbox.Retry)
	failed.RetryAt = time.Now().Add(time.Hour)
	failed.Attempt = &outbox.Attempt{At: time.Now(), Number: 1, Revision: 1, Status: 500, Outcome: "retry", Reason: "5xx"}
	if _, err := s.Settle(t.Context(), []outbox.Settlement{failed, of(2, outbox.Parked), of(3, outbox.Parked)}); err != nil {
		t.Fatal(err)
	}
	const account = "7"
	revision := func() int64 {
		return one[int64](t, w, "SELECT revision FROM walhook.endpoint WHERE id = $1", endpoint)
	}
	before := revision()
	if set, err := w.admin.SetOrdering(t.Context(), account, outbox.OrderingNone); err != nil || set.Ordering != outbox.OrderingNone {
		t.Fatalf("%+v, %v", set, err)
	}
	due, err := s.DueRetries(t.Context(), outbox.RetryQuery{Endpoint: endpoint, Now: time.Now().Add(time.Minute), Limit: 100, MaxBytes: 1 << 20})
	if err != nil || len(due.Events) != 2 || due.Events[0].ID != 2 || due.Events[1].ID != 3 { // 1 keeps its own time
		t.Errorf("due are %v, %v", due.Events, err)
	}
	if now := revision(); now != before+1 {
		t.Errorf("revision %d after %d: senders are not told", now, before)
	}
	if _, err := w.admin.SetOrdering(t.Context(), account, outbox.OrderingNone); err != nil || revision() != before+1 {
		t.Errorf("the ordering in force, set again: %v, revision %d", err, revision())
	}
	if got, err := w.admin.Ordering(t.Context(), account); err != nil || got != outbox.OrderingNone {
		t.Errorf("ordering %s, %v", got, err)
	}
}

func TestOrdering_RefusesWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t)
	w.Endpoint(t, "7")
	const account = "7"
	if _, err := w.admin.SetOrdering(t.Context(), account, "any"); err == nil {
		t.Error("an ordering that does not exist is set")
	}
	if _, err := w.admin.SetOrdering(t.Context(), "nobody", outbox.OrderingNone); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("nobody's: %v", err)
	}
	if _, err := w.admin.Ordering(t.Context(), "nobody"); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("nobody's: %v", err)
	}
}
