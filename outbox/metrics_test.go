package outbox

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// wantBacklog measures and compares: events within a part of what is wanted,
// the oldest within a few seconds.
func (w *world) wantBacklog(t *testing.T, what string, events, part float64, oldest time.Duration) {
	t.Helper()
	b, err := w.store.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(b.events-events) > part*events || math.Abs(b.oldest-oldest.Seconds()) > 5 {
		t.Errorf("%s: %g events, the oldest of %g s; want %g and %g", what, b.events, b.oldest, events, oldest.Seconds())
	}
}

func (w *world) ageEvents(t *testing.T, where string, by time.Duration) {
	t.Helper()
	w.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - $1::interval WHERE "+where, by)
}

func TestMeasure_CountsWhatWaitsAndForHowLong(t *testing.T) {
	w := newWorldAlone(t)
	w.wantBacklog(t, "an empty outbox", 0, 0, 0)
	const n = 6400
	w.exec(t, `INSERT INTO walhook.endpoint (account, url, state, secret)
		SELECT n::text, 'https://example.com/', 'active', 'whsec_eA==' FROM generate_series(1, 64) n`)
	w.exec(t, `
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, 1 + n % 64, 1, 'dids:1', 'evt_' || n, 'dids', 'insert', now(), now(), '' FROM generate_series(1, $1::bigint) n`, n)
	w.exec(t, "INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (1, '0/1', 1, 1, '0/1', $1)", n+1)
	w.ageEvents(t, "id = 1", 3*time.Hour)
	w.wantBacklog(t, "nothing is delivered", n, 0.01, 3*time.Hour)

	w.exec(t, "UPDATE walhook.shard SET tail = $1", n)
	w.wantBacklog(t, "all is delivered", 0, 0, 0)
	w.exec(t, "UPDATE walhook.shard SET tail = $1 WHERE id = 3", n/2)
	w.wantBacklog(t, "one shard lags", n/64, 0.01, 0)

	w.exec(t, "UPDATE walhook.shard SET tail = $1", n)
	w.exec(t, "INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) VALUES (5, 1, true, $1, false, 0, '')", n-640)
	w.ageEvents(t, "endpoint = 5 AND id > 5760 AND id < 5840", time.Hour)
	w.wantBacklog(t, "a lane stands still", 10, 0, time.Hour)

	w.exec(t, "INSERT INTO walhook.retry SELECT 7, 6 + 64 * n, 'dids:1', 1, now(), '' FROM generate_series(50, 59) n")
	w.ageEvents(t, "id = 3206", 2*time.Hour)
	w.wantBacklog(t, "and some are in retry", 20, 0, 2*time.Hour)

	// What is held is told of elsewhere.
	w.exec(t, "UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'walhook', reason = '410' WHERE id IN (5, 7)")
	w.wantBacklog(t, "they are disabled", 0, 0, 0)
}

// One row whose times are none leaves nobody's backlog unknown.
func TestMeasure_AnEventWithoutATimeHidesNoBacklog(t *testing.T) {
	w := newWorldAlone(t)
	endpoint := w.endpoint(t, "7")
	w.bodies(t, 1, 10, endpoint, "dids:1", 8)
	w.exec(t, "INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (1, '0/1', 1, 1, '0/1', 11)")
	for _, at := range []string{"infinity", "-infinity", "294276-12-31", "4713-01-01 BC"} {
		w.exec(t, "UPDATE walhook.event SET appended_at = $1::text::timestamptz WHERE id = 1", at)
		for _, lane := range []string{"UPDATE walhook.shard SET tail = 0", "UPDATE walhook.shard SET tail = 10",
			"INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) VALUES (1, 1, true, 0, false, 0, '') ON CONFLICT DO NOTHING",
			"INSERT INTO walhook.retry VALUES (1, 1, 'dids:1', 1, 'infinity', '') ON CONFLICT DO NOTHING"} {
			w.exec(t, lane)
			if _, err := w.store.measure(t.Context()); err != nil {
				t.Errorf("at %s, %s: %v", at, lane, err)
			}
		}
	}
	w.exec(t, "INSERT INTO walhook.sender (name, process, lease_until) VALUES ('x', '', 'infinity')")
	w.store.measureAll(t.Context())
	if n := testutil.ToFloat64(w.store.metrics.senders); n != 1 {
		t.Errorf("%g senders with a lease without end", n)
	}
}

// Nothing is counted: a lane's backlog goes on as it begins, and ids that the
// log left out are no events.
func TestMeasure_EstimatesALargeBacklogAcrossPartitions(t *testing.T) {
	w := newWorldAlone(t)
	endpoint, other := w.endpoint(t, "7"), w.endpoint(t, "8")
	for _, first := range []int64{1, eventPartitionSize} {
		w.exec(t, `
			INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
			SELECT $1::bigint + n, CASE WHEN n % 4 = 0 THEN $2::bigint ELSE $3::bigint END, 1, 'dids:1', 'evt_' || n, 'dids', 'insert', now(), now(), ''
			FROM generate_series(0, 3999) n`, first, endpoint, other)
	}
	last := int64(eventPartitionSize + 3999)
	w.exec(t, "INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (1, '0/1', 1, 1, '0/1', $1)", last+1)
	w.exec(t, "UPDATE walhook.shard SET tail = $1", last)
	w.exec(t, "INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) VALUES ($1, 1, true, 0, false, 0, '')", endpoint)
	w.wantBacklog(t, "a dead endpoint", 2000, 0.02, 0)
}

func TestMeasure_SaysNothingWhileTheOutboxDoesNotAnswer(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, "ALTER TABLE walhook.retry RENAME TO elsewhere")
	go func() { _ = w.store.Measure(t.Context()) }()
	eventually(t, "the gauges are not a number", func() bool {
		return math.IsNaN(counter(t, w, "walhook_outbox_backlog")) && math.IsNaN(counter(t, w, "walhook_outbox_oldest_seconds"))
	})
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
