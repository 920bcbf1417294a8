package outbox

import (
	"fmt"
	"testing"
	"time"
)

// told is a feed with an account whose events have met every fate: each is
// named by what became of it.
func told(t *testing.T) (f *feed, endpoint int64) {
	t.Helper()
	f = newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t, dids.Insert(1, 7, "delivered"), dids.Insert(2, 7, "dead"), dids.Insert(3, 7, "retry"), dids.Insert(4, 7, "waiting"),
		dids.Insert(5, 7, "delivered"), dids.Insert(6, 7, "dead, and gone from the log"))
	endpoint = one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7'")
	session, _ := f.join(t)
	for id := range int64(6) {
		e := Event{ID: id + 2, Endpoint: endpoint, Revision: 1, Record: fmt.Sprintf("dids:%d", id+1)}
		switch id {
		case 0, 4:
			f.settle(t, session, delivered(e))
		case 1, 5:
			f.settle(t, session, dead(e))
		case 2:
			f.settle(t, session, retried(e, time.Hour))
		}
	}
	f.exec(t, "DELETE FROM walhook.event WHERE id = 7")
	return f, endpoint
}

// copies lists what was appended again: the webhook-id's end and the record.
func (f *feed) copies(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, `SELECT substring(webhook_id FROM '_[0-9]+$') || ' ' || record || ' ' || replayed || ' ' || (convert_from(body, 'UTF8') ~ 'insert')
		FROM walhook.event WHERE id > 7 ORDER BY id`)
}

// request is what is stored of a replay that somebody asked for.
type request struct {
	ID, Endpoint int64
	Since        time.Time
	WebhookIDs   []string
	Rate         float64 // 0 is the highest
	Sent, Total  int64
	DoneAt       time.Time
	Reason       string
}

// ask stores a request as package admin does.
func (f *feed) ask(t *testing.T, r request) request {
	t.Helper()
	if r.Rate == 0 {
		r.Rate = 10_000
	}
	var since *time.Time
	if !r.Since.IsZero() {
		since = &r.Since
	}
	r.Total = one[int64](t, f.world, "WITH "+CandidatesSQL(10_000, r.WebhookIDs != nil)+" SELECT count(*) FROM wanted", r.Endpoint, 0, f.publisher.view.NextID, since, r.WebhookIDs)
	r.ID = one[int64](t, f.world, `INSERT INTO walhook.request (endpoint, since, webhook_ids, rate, until_id, total) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
		r.Endpoint, since, r.WebhookIDs, r.Rate, f.publisher.view.NextID, r.Total)
	return f.request(t, r.ID)
}

// request is a request as it stands.
func (f *feed) request(t *testing.T, id int64) (r request) {
	t.Helper()
	var done *time.Time
	err := f.conn.QueryRow(t.Context(), "SELECT id, endpoint, rate, sent, total, done_at, reason FROM walhook.request WHERE id = $1", id).
		Scan(&r.ID, &r.Endpoint, &r.Rate, &r.Sent, &r.Total, &done, &r.Reason)
	if err != nil {
		t.Fatal(err)
	}
	if done != nil {
		r.DoneAt = *done
	}
	return r
}

// work does whatever is due, as Run does.
func (f *feed) work(t *testing.T) {
	t.Helper()
	if _, err := f.publisher.replayDue(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestReplay_SendsAgainWhatWasDeliveredOrDead(t *testing.T) {
	f, endpoint := told(t)
	r := f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1_600_000_000, 0)})
	if r.Total != 4 || !r.DoneAt.IsZero() {
		t.Errorf("request %+v, want 4 to send", r)
	}
	f.work(t)
	want := []string{"_1 dids:1 true true", "_2 dids:2 true true", "_5 dids:5 true true", "_6 dids:6 true true"}
	wantLines(t, f.copies(t), want...)
	if n := f.count(t, "dead_letter"); n != 0 {
		t.Errorf("%d dead letters are left", n)
	}
	if r := f.request(t, r.ID); r.Sent != 4 || r.DoneAt.IsZero() || r.Reason != "" {
		t.Errorf("request %+v", r)
	}
	// The copies are not delivered yet, so nothing is left to send again; nor
	// does an old copy count once there is a newer one.
	if r := f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1_600_000_000, 0)}); r.Total != 0 {
		t.Errorf("%d are to be sent again before their copies are delivered", r.Total)
	}
	f.work(t)
	wantLines(t, f.copies(t), want...)
	// The position is as it was, and the source's changes go on behind.
	f.commit(t, dids.Insert(9, 7, "later"))
	f.restart(t)
	f.commit(t, dids.Insert(10, 7, "later still"))
	wantLines(t, rest(f.copies(t), 4), "_1 dids:9 false true", "_1 dids:10 false true")
}

func TestReplay_OfIdsAndOfATimeTakesThoseAlone(t *testing.T) {
	f, endpoint := told(t)
	id := one[string](t, f.world, "SELECT webhook_id FROM walhook.event WHERE id = 6")
	f.exec(t, "UPDATE walhook.event SET committed_at = committed_at + interval '1 hour' WHERE id >= 3")
	f.ask(t, request{Endpoint: endpoint, WebhookIDs: []string{id, "evt_0000000000000001_1"}})
	f.work(t)
	wantLines(t, f.copies(t), "_5 dids:5 true true")
	f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1_700_000_000, 0).Add(time.Hour)})
	f.work(t)
	wantLines(t, rest(f.copies(t), 1), "_2 dids:2 true true") // 6 died before the hour, 5 has a copy that waits
}

// Whatever a process was doing when it ended, each event is sent again once.
func TestReplay_GoesOnAfterARestart(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	endpoint := one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7'")
	const events = 500
	for n := range events {
		f.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
			VALUES ($1, $2::bigint, 'dids:1', 'evt_' || $2, 'dids', 'insert', now(), 1, '5xx', 2, convert_to('{}', 'UTF8'))`, endpoint, n+100)
	}
	f.exec(t, "UPDATE walhook.position SET next_event_id = 1000")
	f.takeOver(t)
	r := f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0)})
	for step := 0; ; step++ {
		old := f.publisher
		f.restart(t)
		// The one before is fenced: what it still tries is stored nowhere.
		if _, err := old.replayStep(t.Context(), r.ID); step > 0 && old.live {
			t.Fatalf("step %d of a publisher that is no more: %v", step, err)
		}
		f.exec(t, "UPDATE walhook.request SET next_at = now()")
		if _, err := f.publisher.replayStep(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		now := f.request(t, r.ID)
		if got := one[int64](t, f.world, "SELECT count(*) FROM walhook.event WHERE replayed"); got != now.Sent {
			t.Fatalf("step %d: %d events, %d counted", step, got, now.Sent)
		}
		if !now.DoneAt.IsZero() {
			break
		}
		if step > 10 {
			t.Fatalf("not done: %+v", now)
		}
	}
	if n := one[int](t, f.world, "SELECT count(DISTINCT webhook_id) FROM walhook.event WHERE replayed"); n != events || f.count(t, "dead_letter") != 0 {
		t.Errorf("%d events were sent again, %d dead letters are left", n, f.count(t, "dead_letter"))
	}
	if ordered := one[bool](t, f.world, `SELECT bool_and(n > before) FROM (
		SELECT substring(webhook_id, 5)::int AS n, lag(substring(webhook_id, 5)::int, 1, 0) OVER (ORDER BY id) AS before FROM walhook.event WHERE replayed) o`); !ordered {
		t.Error("not in their order")
	}
}

func TestReplay_KeepsToItsRate(t *testing.T) {
	f, endpoint := told(t)
	r := f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0), Rate: 2})
	step := func() { // one: a busy machine may take longer than the next has to wait
		t.Helper()
		if _, err := f.publisher.replayStep(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	before := one[time.Time](t, f.world, "SELECT clock_timestamp()")
	step()
	if got := len(f.copies(t)); got != 2 {
		t.Errorf("%d events at once, at two a second", got)
	}
	next := one[time.Time](t, f.world, "SELECT next_at FROM walhook.request WHERE id = $1", r.ID)
	after := one[time.Time](t, f.world, "SELECT clock_timestamp()")
	if next.Before(before.Add(time.Second)) || next.After(after.Add(time.Second)) {
		t.Errorf("the next ones at %s, want a second after %s to %s", next, before, after)
	}
	f.exec(t, "UPDATE walhook.request SET next_at = now()")
	step()
	if got := len(f.copies(t)); got != 4 {
		t.Errorf("%d events after a second", got)
	}
}

func TestReplay_EndsWithItsEndpoint(t *testing.T) {
	f, endpoint := told(t)
	r := f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0)})
	f.commit(t, users.Update(row(7, "n", "https://example.com/7", nil), row(7, "n", nil, nil)))
	f.work(t)
	if got := f.copies(t); len(got) != 0 {
		t.Errorf("sent again all the same: %v", got)
	}
	if r := f.request(t, r.ID); r.Reason == "" || r.DoneAt.IsZero() {
		t.Errorf("request %+v", r)
	}
	if n := f.count(t, "dead_letter"); n != 2 {
		t.Errorf("%d dead letters, want both", n)
	}
	r = f.ask(t, request{Endpoint: f.endpoint(t, "gone"), Since: time.Unix(1, 0)})
	f.exec(t, "DELETE FROM walhook.endpoint WHERE account = 'gone'")
	f.work(t)
	if r := f.request(t, r.ID); r.Reason == "" {
		t.Errorf("request %+v", r)
	}
}
