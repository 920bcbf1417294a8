package admin

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A replay is counted before it is stored, by the publisher's own question, and
// refused where nothing could be sent.
func TestReplay_IsCountedStoredAndShown(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, dids.Insert(1, 7, "delivered"), dids.Insert(2, 7, "dead"), dids.Insert(3, 7, "waiting"))
	endpoint := f.EndpointOf(t, "7")
	f.Exec(t, `INSERT INTO walhook.attempt SELECT now(), endpoint, id, 1, 1, '1ms', 200, 'delivered', '2xx', '' FROM walhook.event WHERE record = 'dids:1'`)
	f.Exec(t, `INSERT INTO walhook.dead_letter SELECT now(), endpoint, id, record, webhook_id, schema, type, committed_at, 1, '5xx', 2, '{}' FROM walhook.event WHERE record = 'dids:2'`)
	since := Request{Endpoint: endpoint, Since: time.Unix(1_600_000_000, 0), Rate: MaxReplayRate}
	if counted, err := f.admin.CountReplay(t.Context(), since); err != nil || counted.Total != 2 || counted.More || counted.Until == 0 {
		t.Errorf("%+v, %v; want 2 events", counted, err)
	}
	named := since
	named.Since, named.WebhookIDs = time.Time{}, all[string](t, f.world, "SELECT webhook_id FROM walhook.event WHERE record IN ('dids:2', 'dids:3')")
	if counted, err := f.admin.CountReplay(t.Context(), named); err != nil || counted.Total != 1 {
		t.Errorf("%+v of the named events, %v; want 1", counted, err)
	}
	if of, err := f.admin.EndpointsOf(t.Context(), named.WebhookIDs); err != nil || len(of) != 1 || of[0] != endpoint {
		t.Errorf("the named events are of the endpoints %d, %v", of, err)
	}
	var unknown *UnknownEventError
	if of, err := f.admin.EndpointsOf(t.Context(), append(named.WebhookIDs, "nope")); !errors.As(err, &unknown) || unknown.WebhookID != "nope" || of != nil {
		t.Errorf("an id that no event has: endpoints %d, %v", of, err)
	}
	made, err := f.admin.CreateRequest(t.Context(), since, Once{}, nil)
	if err != nil || made.Total != 2 || !made.DoneAt.IsZero() {
		t.Fatalf("request %+v, %v", made, err)
	}
	list, err := f.admin.Requests(t.Context(), endpoint, 0, 10)
	if err != nil || len(list) != 1 || list[0].ID != made.ID || !list[0].Since.Equal(since.Since) {
		t.Errorf("listed are %+v, %v", list, err)
	}

	f.commit(t, setURL("https://example.com/7", nil))
	if _, err := f.admin.CreateRequest(t.Context(), since, Once{}, nil); !errors.Is(err, ErrNothingToSendTo) {
		t.Errorf("a request of a cleared endpoint: %v", err)
	}
	since.Endpoint = 12345
	if _, err := f.admin.CreateRequest(t.Context(), since, Once{}, nil); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("a request of no endpoint: %v", err)
	}
}

// What the publisher does with a request is told by it.
func TestReplay_TellsHowFarThePublisherIs(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.Exec(t, `INSERT INTO walhook.attempt SELECT now(), endpoint, id, 1, 1, '1ms', 200, 'delivered', '2xx', '' FROM walhook.event`)
	made, err := f.admin.CreateRequest(t.Context(), Request{Endpoint: f.EndpointOf(t, "7"), Since: time.Unix(1, 0), Rate: MaxReplayRate}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var now Request
	whileRunning(t, f.publisher.Run, "the request is done", func() bool {
		now, err = f.admin.Request(t.Context(), made.ID)
		return err != nil || !now.DoneAt.IsZero()
	})
	if err != nil || now.Sent != 1 || now.Reason != "" {
		t.Errorf("request %+v, %v", now, err)
	}
	statuses, _, err := f.admin.Events(t.Context(), made.Endpoint, EventFilter{}, 0, 10)
	if err != nil || len(statuses) != 2 || !statuses[0].Replayed || statuses[0].State != "waiting" || statuses[1].Replayed {
		t.Errorf("events %+v, %v", statuses, err)
	}
}

// Of an event whose body another one carries the list shows the body's own size.
func TestHistory_ShowsTheSizeOfABodyThatAnotherEventCarries(t *testing.T) {
	w := newWorld(t)
	endpoint := w.Endpoint(t, "7")
	w.Bodies(t, 1, 2, endpoint, "dids:1", 5000)
	w.Exec(t, "UPDATE walhook.event SET body = '', body_of = 1, body_size = 5000 WHERE id = 2")
	list, _, err := w.admin.Events(t.Context(), endpoint, EventFilter{}, 0, 10)
	if err != nil || len(list) != 2 || list[0].Size != 5000 || list[1].Size != 5000 {
		t.Errorf("events %+v, %v", list, err)
	}
	if _, err := w.admin.Endpoint(t.Context(), 99); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("no endpoint: %v", err)
	}
}

// What was committed before the time does not use up what is counted, and what came after
// a count is not sent with it.
func TestReplay_CountsFromItsTimeToTheCount(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, dids.Insert(1, 7, "first"))
	endpoint := f.EndpointOf(t, "7")
	const deliveredSQL = `INSERT INTO walhook.attempt SELECT now(), endpoint, id, 1, 1, '1ms', 200, 'delivered', '2xx', '' FROM walhook.event e
		WHERE NOT EXISTS (SELECT FROM walhook.attempt a WHERE a.event_id = e.id)`
	f.Exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, endpoint, endpoint_revision, record, 'evt_' || n || '_1', schema, type, now() - CASE WHEN n < 10200 THEN interval '3 days' ELSE interval '1 hour' END,
			now() - CASE WHEN n < 10200 THEN interval '3 days' ELSE interval '1 hour' END, body
		FROM (SELECT * FROM walhook.event LIMIT 1) e CROSS JOIN generate_series(101, 10205) n`)
	f.Exec(t, deliveredSQL)
	r := Request{Endpoint: endpoint, Since: time.Now().Add(-24 * time.Hour), Rate: MaxReplayRate}
	if counted, err := f.admin.CountReplay(t.Context(), r); err != nil || counted.More || counted.Total != 6 {
		t.Errorf("%+v, %v; want 6 events of the last day", counted, err)
	}
	r.Since = time.Now().Add(-30 * 24 * time.Hour)
	counted, err := f.admin.CountReplay(t.Context(), r)
	if err != nil || !counted.More || counted.Total < ReplayCountLimit-10 || counted.Total > ReplayCountLimit || counted.Until != 10205 {
		t.Errorf("%+v, %v; want more than are counted", counted, err)
	}

	r.Since, r.Until = time.Now().Add(-24*time.Hour), 10203
	if counted, err = f.admin.CountReplay(t.Context(), r); err != nil || counted.Total != 4 || counted.Until != 10203 {
		t.Errorf("%+v, %v; want 4 events up to 10203", counted, err)
	}
	made, err := f.admin.CreateRequest(t.Context(), r, Once{}, nil)
	if err != nil || made.Total != 4 || one[int64](t, f.world, "SELECT until_id FROM walhook.request") != 10203 {
		t.Errorf("made %+v, %v", made, err)
	}
	r.Since, r.WebhookIDs = time.Time{}, []string{"evt_101_1"}
	if r.Validate() == nil {
		t.Error("ids go with an event to end at")
	}
}

// Who cancels a replay is in the audit, with what it sent, and once.
func TestReplay_IsCancelledOnce(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.Exec(t, `INSERT INTO walhook.attempt SELECT now(), endpoint, id, 1, 1, '1ms', 200, 'delivered', '2xx', '' FROM walhook.event`)
	endpoint := f.EndpointOf(t, "7")
	made, err := f.admin.CreateRequest(t.Context(), Request{Endpoint: endpoint, Since: time.Unix(1, 0), Rate: MinReplayRate}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.admin.CancelRequest(t.Context(), Caller{}, endpoint+1, made.ID); !errors.Is(err, ErrNoRequest) {
		t.Errorf("of another endpoint: %v", err)
	}
	if _, _, err := f.admin.CancelRequest(t.Context(), Caller{Token: "none", Account: "7"}, endpoint, made.ID); !errors.Is(err, ErrCallerGone) {
		t.Errorf("by a token that has ended: %v", err)
	}
	if now, err := f.admin.Request(t.Context(), made.ID); err != nil || !now.DoneAt.IsZero() {
		t.Errorf("a refused caller ended it: %+v, %v", now, err)
	}
	r, cancelled, err := f.admin.CancelRequest(t.Context(), Caller{}, endpoint, made.ID)
	if err != nil || !cancelled || r.DoneAt.IsZero() || r.Reason != ReasonCancelled || r.Total != 1 {
		t.Errorf("cancelled: %+v, %v, %v", r, cancelled, err)
	}
	again, cancelled, err := f.admin.CancelRequest(t.Context(), Caller{}, endpoint, made.ID)
	if err != nil || cancelled || !again.DoneAt.Equal(r.DoneAt) {
		t.Errorf("cancelled again: %+v, %v, %v", again, cancelled, err)
	}
	lines := all[string](t, f.world, `SELECT account || ' ' || webhook || ': ' || detail FROM walhook.audit WHERE action = 'replay cancelled'`)
	if len(lines) != 1 || lines[0] != fmt.Sprintf("7 account: request %d, 0 of 1 events sent", made.ID) {
		t.Errorf("audit %q", lines)
	}
	if _, err := f.admin.Request(t.Context(), 99); !errors.Is(err, ErrNoRequest) {
		t.Errorf("no request: %v", err)
	}
}
