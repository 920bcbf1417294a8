package admin

import (
	"math"
	"strings"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/outbox/storetest"
)

func (w *world) status(t *testing.T) Status {
	t.Helper()
	st, err := w.admin.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStatus_OfAnEmptyOutboxIsAllZero(t *testing.T) {
	w := newWorldAlone(t)
	st := w.status(t)
	if st.Publisher.Name != "" || st.Publisher.Flush != 0 || st.Backlog != 0 || st.Oldest != 0 || st.Appended != 0 || st.Delivered != 0 ||
		len(st.Worst)+len(st.Disabled)+len(st.Gaps)+len(st.Senders)+len(st.DeadLetters) != 0 || len(st.Unowned) != outbox.Shards {
		t.Errorf("got %+v", st)
	}
}

func TestStatus_NamesWhoPublishesAndWhoSends(t *testing.T) {
	w := newWorldAlone(t)
	w.Exec(t, "UPDATE walhook.epoch SET epoch = 7, publisher = 'one/12', taken_at = now()")
	w.Exec(t, "INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (7, '0/1F', 3, 1, '0/2F', 1)")
	w.Exec(t, "INSERT INTO walhook.gap (from_lsn, reason, accepted_at) VALUES ('0/1', 'an old one', now())")
	w.Exec(t, "INSERT INTO walhook.gap (from_lsn, to_lsn, reason) VALUES ('0/2', '0/3', 'slot lost')")
	w.join(t)
	w.expire(t)
	w.join(t)
	session := one[int64](t, w, "SELECT max(id) FROM walhook.sender")

	st := w.status(t)
	if p := st.Publisher; p.Name != "one/12" || p.Epoch != 7 || p.Position.String() != "0/1F#3" || p.Flush != 0x2F || time.Since(p.StoredAt) > time.Minute {
		t.Errorf("publisher %+v", p)
	}
	if len(st.Gaps) != 1 || st.Gaps[0].Reason != "slot lost" || st.Gaps[0].To != 3 {
		t.Errorf("gaps %+v", st.Gaps)
	}
	// The rebalance of the second one has freed what the first held.
	if len(st.Senders) != 1 || st.Senders[0].ID != session || len(st.Senders[0].Shards) != outbox.Shards || st.Senders[0].Lease <= 0 || len(st.Unowned) != 0 {
		t.Errorf("senders %+v, unowned %v", st.Senders, st.Unowned)
	}
	w.expire(t)
	if st = w.status(t); st.Senders[0].Lease > 0 || len(st.Unowned) != outbox.Shards {
		t.Errorf("a sender whose lease is over: %+v, unowned %v", st.Senders, st.Unowned)
	}
}

func TestStatus_TellsRatesFromWhatIsStored(t *testing.T) {
	w := newWorldAlone(t)
	endpoint := w.Endpoint(t, "7")
	w.Exec(t, storetest.YesterdaySQL)
	const position = "INSERT INTO walhook.position (stored_at, epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (clock_timestamp() - $1::interval, 1, '0/1', 1, 1, '0/1', $2)"
	w.Exec(t, position, 5*time.Minute, 101)
	// Well inside of the ten seconds that the rates are of, however long the test takes.
	w.Exec(t, position, 20*time.Millisecond, 201)
	w.Exec(t, position, 10*time.Millisecond, 601)
	w.Bodies(t, 1, 600, endpoint, "dids:1", 8)
	attempts := func(first, n int, outcome string, ago time.Duration) {
		w.Exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
			SELECT clock_timestamp() - $4::interval, $1, n, 1, 1, interval '1 ms', 200, $5, 'x', '' FROM generate_series($2::int, $2::int + $3::int - 1) n`,
			endpoint, first, n, ago, outcome)
	}
	attempts(1, 100, "delivered", time.Minute)
	attempts(101, 300, "delivered", 20*time.Millisecond)
	attempts(401, 50, "retry", 10*time.Millisecond)
	st := w.status(t)
	if st.Appended != 50 || st.Delivered != 30 || st.Failed != 5 {
		t.Errorf("appended %g, delivered %g, failed %g a second, want 50, 30 and 5", st.Appended, st.Delivered, st.Failed)
	}
}

func TestStatus_ListsTheWorstEndpointsWithTheirReason(t *testing.T) {
	w := newWorldAlone(t)
	w.Exec(t, `INSERT INTO walhook.endpoint (account, url, state, secret)
		SELECT n::text, 'https://user:hunter2@example.com/hook/' || n || '?token=sesame', 'active', 'whsec_eA==' FROM generate_series(1, 20) n`)
	w.Exec(t, "UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'walhook', reason = 'the endpoint answered 410 Gone' WHERE id = 20")
	w.Bodies(t, 1, 3, 2, "dids:1", 8)
	w.Bodies(t, 4, 5, 3, "dids:1", 8)
	const ageSQL = "UPDATE walhook.event SET appended_at = clock_timestamp() - $2::interval WHERE id = $1"
	w.Exec(t, ageSQL, 1, time.Hour)
	w.Exec(t, ageSQL, 4, 2*time.Hour)
	w.Exec(t, "INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES (2, 1, 'dids:1', 1, now(), '5xx')")
	const lane = `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, failing_since, last_reason)
		VALUES ($1, 1, $2, 3, $3, now() + interval '1 hour', 1, now() - $4::interval, $5)`
	w.Exec(t, lane, 2, false, true, time.Hour, "5xx")
	w.Exec(t, lane, 3, true, false, 2*time.Hour, "timeout_header")
	w.Exec(t, lane, 4, true, false, nil, "") // slow, and behind
	for id := 5; id < 15; id++ {
		w.Exec(t, lane, id, false, true, time.Minute, "refused")
	}
	st := w.status(t)
	if len(st.Worst) != worstLimit || st.Worst[0].ID != 3 || st.Worst[1].ID != 2 {
		t.Fatalf("worst %+v", st.Worst)
	}
	first, second := st.Worst[0], st.Worst[1]
	if first.Lane.LastReason != "timeout_header" || first.Status != "behind" || first.Oldest.Round(time.Minute) != 2*time.Hour ||
		second.Status != "open" || second.Retries != 1 || second.Oldest.Round(time.Minute) != time.Hour {
		t.Errorf("worst %+v %+v", first, second)
	}
	if url := first.URL; url != "https://…@example.com/hook/3?…" || strings.Contains(url, "hunter2") {
		t.Errorf("url %s", url)
	}
	if len(st.Disabled) != 1 || st.Disabled[0].Reason != "the endpoint answered 410 Gone" || strings.Contains(st.Disabled[0].URL, "sesame") {
		t.Errorf("disabled %+v", st.Disabled)
	}
	if l := st.Lanes; l["open"] != 11 || l["behind"] != 2 || l["held"] != 1 || l["live"] != 6 {
		t.Errorf("lanes %v", l)
	}
	if e := st.Endpoints; e[outbox.EndpointActive] != 19 || e[outbox.EndpointDisabled] != 1 || e[outbox.EndpointCleared] != 0 {
		t.Errorf("endpoints %v", e)
	}
}

// A held endpoint has the same reason among the worst as among the held ones.
func TestStatus_NamesWhyTheWorstEndpointsAreHeld(t *testing.T) {
	w := newWorldAlone(t)
	aside, local, stale := w.Endpoint(t, "7"), w.Endpoint(t, "8"), w.Endpoint(t, "9")
	const lane = `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason, held_since, held_reason)
		SELECT id, revision - $2, true, 3, false, 0, $3, now(), 'resolver' FROM walhook.endpoint WHERE id = $1`
	w.Exec(t, lane, aside, 0, "")
	w.Exec(t, lane, local, 0, "5xx")
	w.Exec(t, lane, stale, 1, "timeout_header")
	w.Exec(t, "INSERT INTO walhook.set_aside (loop, item, endpoint, reason, detail) VALUES ('endpoints', $1::bigint::text, $1, 'secret_unusable', 'x')", aside)
	st := w.status(t)
	why := map[int64]string{}
	for _, h := range st.Held {
		why[h.ID] = h.Why
	}
	if len(st.Worst) != 3 || len(why) != 2 || why[aside] == "" || why[local] != "resolver" {
		t.Fatalf("worst %+v, held %v", st.Worst, why)
	}
	why[stale] = "timeout_header" // what held an older revision does not hold this one
	for _, worst := range st.Worst {
		if worst.Why != why[worst.ID] {
			t.Errorf("endpoint %d is %s as %q, and held as %q", worst.ID, worst.Status, worst.Why, why[worst.ID])
		}
	}
}

func TestStatus_CountsDeadLettersByReason(t *testing.T) {
	w := newWorldAlone(t)
	w.Exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT 1, n, 'dids:1', 'evt_' || n, 'dids', 'insert', now(), 11, CASE WHEN n < 4 THEN '5xx' ELSE 'expired' END, 1, 'x' FROM generate_series(1, 5) n`)
	if st := w.status(t); st.DeadLetters["5xx"] != 3 || st.DeadLetters["expired"] != 2 {
		t.Errorf("dead letters %v", st.DeadLetters)
	}
}

// An estimate is shown as a whole number of events, and never as none while some wait.
func TestStatus_BacklogIsAWholeNumber(t *testing.T) {
	for estimate, want := range map[float64]int64{0: 0, 0.01: 1, 1.4: 1, 153231.125: 153231, 2.5: 3, math.NaN(): 0, -1: 0} {
		if got := wholeEvents(estimate); got != want {
			t.Errorf("%v is %d events, want %d", estimate, got, want)
		}
	}
}
