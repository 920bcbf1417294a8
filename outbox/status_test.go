package outbox

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func (w *world) status(t *testing.T) Status {
	t.Helper()
	st, err := w.store.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStatus_OfAnEmptyOutboxIsAllZero(t *testing.T) {
	w := newWorldAlone(t)
	st := w.status(t)
	if st.Publisher.Name != "" || st.Publisher.Flush != 0 || st.Backlog != 0 || st.Oldest != 0 || st.Appended != 0 || st.Delivered != 0 ||
		len(st.Worst)+len(st.Disabled)+len(st.Gaps)+len(st.Senders)+len(st.DeadLetters) != 0 || len(st.Unowned) != Shards {
		t.Errorf("got %+v", st)
	}
}

func TestStatus_NamesWhoPublishesAndWhoSends(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, "UPDATE walhook.epoch SET epoch = 7, publisher = 'one/12', taken_at = now()")
	w.exec(t, "INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (7, '0/1F', 3, 1, '0/2F', 1)")
	w.exec(t, "INSERT INTO walhook.gap (from_lsn, reason, accepted_at) VALUES ('0/1', 'an old one', now())")
	w.exec(t, "INSERT INTO walhook.gap (from_lsn, to_lsn, reason) VALUES ('0/2', '0/3', 'slot lost')")
	gone, _ := w.join(t)
	w.expire(t, gone)
	session, _ := w.join(t)

	st := w.status(t)
	if p := st.Publisher; p.Name != "one/12" || p.Epoch != 7 || p.Position.String() != "0/1F#3" || p.Flush != 0x2F || time.Since(p.StoredAt) > time.Minute {
		t.Errorf("publisher %+v", p)
	}
	if len(st.Gaps) != 1 || st.Gaps[0].Reason != "slot lost" || st.Gaps[0].To != 3 {
		t.Errorf("gaps %+v", st.Gaps)
	}
	// The rebalance of the second one has freed what the first held.
	if len(st.Senders) != 1 || st.Senders[0].ID != session.id || len(st.Senders[0].Shards) != Shards || st.Senders[0].Lease <= 0 || len(st.Unowned) != 0 {
		t.Errorf("senders %+v, unowned %v", st.Senders, st.Unowned)
	}
	w.expire(t, session)
	if st = w.status(t); st.Senders[0].Lease > 0 || len(st.Unowned) != Shards {
		t.Errorf("a sender whose lease is over: %+v, unowned %v", st.Senders, st.Unowned)
	}
}

func TestStatus_TellsRatesFromWhatIsStored(t *testing.T) {
	w := newWorldAlone(t)
	endpoint := w.endpoint(t, "7")
	const position = "INSERT INTO walhook.position (stored_at, epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (clock_timestamp() - $1::interval, 1, '0/1', 1, 1, '0/1', $2)"
	w.exec(t, position, 5*time.Minute, 101)
	w.exec(t, position, 5*time.Second, 201)
	w.exec(t, position, time.Second, 601)
	w.bodies(t, 1, 600, endpoint, "dids:1", 8)
	attempts := func(first, n int, outcome string, ago time.Duration) {
		w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
			SELECT clock_timestamp() - $4::interval, $1, n, 1, 1, interval '1 ms', 200, $5, 'x', '' FROM generate_series($2::int, $2::int + $3::int - 1) n`,
			endpoint, first, n, ago, outcome)
	}
	attempts(1, 100, "delivered", time.Minute)
	attempts(101, 300, "delivered", 3*time.Second)
	attempts(401, 50, "retry", 2*time.Second)
	st := w.status(t)
	if st.Appended != 50 || st.Delivered != 30 || st.Failed != 5 {
		t.Errorf("appended %g, delivered %g, failed %g a second, want 50, 30 and 5", st.Appended, st.Delivered, st.Failed)
	}
}

func TestStatus_ListsTheWorstEndpointsWithTheirReason(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, `INSERT INTO walhook.endpoint (account, url, state, secret)
		SELECT n::text, 'https://user:hunter2@example.com/hook/' || n || '?token=sesame', 'active', 'whsec_eA==' FROM generate_series(1, 20) n`)
	w.exec(t, "UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'walhook', reason = 'the endpoint answered 410 Gone' WHERE id = 20")
	w.bodies(t, 1, 3, 2, "dids:1", 8)
	w.bodies(t, 4, 5, 3, "dids:1", 8)
	w.ageEvents(t, "id = 1", time.Hour)
	w.ageEvents(t, "id = 4", 2*time.Hour)
	w.exec(t, "INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES (2, 1, 'dids:1', 1, now(), '5xx')")
	const lane = `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, failing_since, last_reason)
		VALUES ($1, 1, $2, 3, $3, now() + interval '1 hour', 1, now() - $4::interval, $5)`
	w.exec(t, lane, 2, false, true, time.Hour, "5xx")
	w.exec(t, lane, 3, true, false, 2*time.Hour, "timeout_header")
	w.exec(t, lane, 4, true, false, nil, "") // slow, and behind
	for id := 5; id < 15; id++ {
		w.exec(t, lane, id, false, true, time.Minute, "refused")
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
	if e := st.Endpoints; e[EndpointActive] != 19 || e[EndpointDisabled] != 1 || e[EndpointCleared] != 0 {
		t.Errorf("endpoints %v", e)
	}
}

func TestStatus_CountsDeadLettersByReason(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT 1, n, 'dids:1', 'evt_' || n, 'dids', 'insert', now(), 11, CASE WHEN n < 4 THEN '5xx' ELSE 'expired' END, 1, 'x' FROM generate_series(1, 5) n`)
	if st := w.status(t); st.DeadLetters["5xx"] != 3 || st.DeadLetters["expired"] != 2 {
		t.Errorf("dead letters %v", st.DeadLetters)
	}
}

func TestMeasure_CountsEndpointsSendersGapsAndPartitions(t *testing.T) {
	w := newWorldAlone(t)
	m := w.store.metrics
	for name, gauge := range map[string]prometheus.Gauge{"up": m.up, "gaps": m.gaps, "senders": m.senders, "unowned": m.unowned,
		"backlog": m.backlog, "oldest": m.oldest, "endpoints": m.endpoints.WithLabelValues("active"), "ahead": m.ahead.WithLabelValues("event")} {
		if n := testutil.ToFloat64(gauge); !math.IsNaN(n) {
			t.Errorf("%s is %g before it is measured", name, n)
		}
	}
	w.endpoint(t, "7")
	w.exec(t, "INSERT INTO walhook.gap (from_lsn, reason) VALUES ('0/2', 'slot lost')")
	w.exec(t, "DROP TABLE walhook.attempt_"+time.Now().UTC().AddDate(0, 0, 2).Format(dayFormat))
	session, _ := w.join(t)
	w.store.measureAll(t.Context())
	for name, pair := range map[string][2]float64{
		"up": {testutil.ToFloat64(m.up), 1}, "gaps": {testutil.ToFloat64(m.gaps), 1}, "senders": {testutil.ToFloat64(m.senders), 1},
		"unowned shards":           {testutil.ToFloat64(m.unowned), 0},
		"active endpoints":         {testutil.ToFloat64(m.endpoints.WithLabelValues("active")), 1},
		"disabled endpoints":       {testutil.ToFloat64(m.endpoints.WithLabelValues("disabled")), 0},
		"partitions of the log":    {testutil.ToFloat64(m.ahead.WithLabelValues("event")), 2},
		"partitions of attempts":   {testutil.ToFloat64(m.ahead.WithLabelValues("attempt")), 1},
		"partitions of the counts": {testutil.ToFloat64(m.ahead.WithLabelValues("position")), 2},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %g, want %g", name, pair[0], pair[1])
		}
	}
	w.expire(t, session)
	w.store.measureAll(t.Context())
	if n := testutil.ToFloat64(m.unowned); n != Shards || testutil.ToFloat64(m.senders) != 0 {
		t.Errorf("%g shards without owner after the only lease ended", n)
	}
	w.store.Close()
	w.store.measureAll(t.Context())
	if testutil.ToFloat64(m.up) != 0 || !math.IsNaN(testutil.ToFloat64(m.gaps)) || !math.IsNaN(testutil.ToFloat64(m.endpoints.WithLabelValues("active"))) {
		t.Error("an outbox that is away passes for one that is well")
	}
}
