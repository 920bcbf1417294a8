package endtoend

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// exposition is one answer of /metrics.
type exposition struct {
	text     string
	families map[string]*dto.MetricFamily
}

func scrape(t *testing.T, address string) exposition {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return exposition{string(text), families}
}

// sum adds up the series of a metric that have all of the labels, given as
// name and value in turn; of a histogram it counts the observations. -1 is
// none such.
func (e exposition) sum(name string, labels ...string) float64 {
	family := e.families[name]
	total, found := 0.0, false
series:
	for _, m := range family.GetMetric() {
		has := map[string]string{}
		for _, pair := range m.GetLabel() {
			has[pair.GetName()] = pair.GetValue()
		}
		for i := 0; i < len(labels); i += 2 {
			if has[labels[i]] != labels[i+1] {
				continue series
			}
		}
		found = true
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	if !found {
		return -1
	}
	return total
}

// own are our metrics, for people: those that are not zero.
func (e exposition) own() string {
	var lines []string
	for line := range strings.SplitSeq(e.text, "\n") {
		if strings.HasPrefix(line, "walhook_") && !strings.HasSuffix(line, " 0") && !strings.Contains(line, "_bucket") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// metricsWorld is a carrier with a process that does everything, and receivers
// of which one fails and one is gone.
type metricsWorld struct {
	db      *pgtest.DB
	address string
	process *childProcess
	server  *httptest.Server
}

func newMetricsWorld(t *testing.T) *metricsWorld {
	t.Helper()
	w := &metricsWorld{db: pgtest.Database(t), address: loopback.Address(t)}
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/refuses":
			rw.WriteHeader(http.StatusNotFound)
		case "/fails":
			rw.WriteHeader(http.StatusInternalServerError)
		case "/gone":
			rw.WriteHeader(http.StatusGone)
		}
	}))
	t.Cleanup(w.server.Close)
	w.db.Exec(t, carrier.Tables+`CREATE TABLE unnamed (id int PRIMARY KEY);`)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES
		(7007, 'works', '%[1]s/works'), (8008, 'fails', '%[1]s/fails'), (9009, 'gone', '%[1]s/gone'), (5005, 'refuses', '%[1]s/refuses'), (6006, 'none', NULL)`, w.server.URL))
	slot := "metrics_" + w.db.Name
	mustRun(t, "setup", "--source", w.db.URL, "--slot", slot)
	w.db.Exec(t, `ALTER PUBLICATION walhook ADD TABLE unnamed`)
	w.process = startChild(t, "run", "--source", w.db.URL, "--slot", slot, "--listen", w.address, "--allow-cidr", "127.0.0.0/8",
		"--max-event-bytes", "1024", "--retry-schedule", "100ms")
	awaitReady(t, w.address)
	return w
}

// The names and labels of docs/CONTRACT.md §6, and ours besides. A label that is
// here may be shown; none of them can hold an account, an endpoint or a URL.
var promisedMetrics = map[string][]string{
	"walhook_source_lag_bytes": nil, "walhook_source_lag_seconds": nil, "walhook_slot_retained_bytes": nil,
	"walhook_changes_total": {"schema", "type"}, "walhook_events_appended_total": nil, "walhook_changes_skipped_total": {"reason"},
	"walhook_outbox_backlog": nil, "walhook_outbox_oldest_seconds": nil, "walhook_attempts_total": {"outcome", "reason"},
	"walhook_attempt_seconds": nil, "walhook_commit_to_delivery_seconds": nil, "walhook_lanes": {"state"},
	"walhook_breaker_transitions_total": {"to"}, "walhook_dead_letters_total": nil, "walhook_endpoints_disabled_total": {"reason"},

	"walhook_webhooks_read_total": nil, "walhook_take_over_seconds": nil,
	"walhook_build_info":  {"version", "commit", "goversion"},
	"walhook_connections": {"listener"}, "walhook_connections_refused_total": {"listener", "reason"},
	"walhook_slot_limit_bytes": nil, "walhook_slot_wal_status": {"status"},
	"walhook_source_up": nil, "walhook_source_state": {"state"}, "walhook_source_reconnects_total": nil, "walhook_source_gaps_total": nil, "walhook_source_unreadable_total": nil,
	"walhook_source_tables_refusing_writes": nil, "walhook_source_tables_keeping_keys": nil,
	"walhook_outbox_up": nil, "walhook_gaps_open": nil, "walhook_catalog_pending_seconds": nil, "walhook_resync_stalled_seconds": nil, "walhook_reconciliation_stalled_seconds": nil, "walhook_senders": nil, "walhook_shards_unowned": nil,
	"walhook_batch_events": nil, "walhook_endpoints": {"state"}, "walhook_endpoints_failing": {"stage"}, "walhook_partitions_ahead": {"table"},
	"walhook_lanes_held":                            {"reason"},
	"walhook_notifications_total":                   {"direction"},
	"walhook_notified":                              nil,
	"walhook_reconciled_total":                      {"type"},
	"walhook_resync_records_total":                  nil,
	"walhook_feed_readers":                          {"by"},
	"walhook_feed_events_total":                     {"by"},
	"walhook_feed_readers_ended_total":              {"reason"},
	"walhook_items_set_aside_total":                 {"loop", "reason"},
	"walhook_maintenance_success_timestamp_seconds": nil, "walhook_retention_seconds": nil,
}

// TestMetrics_MoveWithWhatARealPipelineDoes has each kind of thing happen once
// or a few times, and compares what is counted with that.
func TestMetrics_MoveWithWhatARealPipelineDoes(t *testing.T) {
	t.Parallel()
	w := newMetricsWorld(t)
	first := scrape(t, w.address)
	checkExposition(t, first)
	for series, labels := range map[string][]string{ // there before anything happened
		"walhook_changes_total": {"schema", "e911", "type", "delete"}, "walhook_changes_skipped_total": {"reason", "malformed_message"},
		"walhook_attempts_total": {"outcome", "dead", "reason", "timeout_total"}, "walhook_lanes": {"state", "half_open"},
		"walhook_breaker_transitions_total": {"to", "closed"}, "walhook_endpoints_disabled_total": {"reason", "gone"},
		"walhook_attempt_seconds": nil, "walhook_commit_to_delivery_seconds": nil,
	} {
		if n := first.sum(series, labels...); n != 0 {
			t.Errorf("%s %v is %g before anything happened", series, labels, n)
		}
	}
	if first.sum("walhook_source_state", "state", "reading") != 1 || first.sum("walhook_source_up") != 1 || first.sum("walhook_slot_retained_bytes") <= 0 {
		t.Error("it reads, and does not say so")
	}

	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) SELECT n, 7007, n FROM generate_series(1, 10) n`)
	w.db.Exec(t, `UPDATE dids SET state = 'IL' WHERE id <= 4`)
	w.db.Exec(t, `DELETE FROM dids WHERE id <= 2`)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) SELECT n, 8008, n FROM generate_series(101, 108) n`)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (201, 9009, '1'), (301, 6006, '1'), (401, 5005, '1')`)
	w.db.Exec(t, `INSERT INTO call_flows (id, user_id, flow_name, flow_data) VALUES (1, 7007, 'large', to_json(repeat('x', 4000)))`)
	w.db.Exec(t, `INSERT INTO unnamed VALUES (1)`)
	w.db.Exec(t, `TRUNCATE fax_emails`)
	w.db.Exec(t, `SELECT pg_logical_emit_message(true, 'walhook', '{"user_id":'), pg_logical_emit_message(true, 'another', 'x')`)
	w.db.Exec(t, `SELECT pg_logical_emit_message(false, 'walhook', '{}')`)
	w.db.Exec(t, `INSERT INTO async_results (user_id, schema, type, status) VALUES (7007, 'sms_enablement', 'update', 'done'), (7007, '?!', 'update', 'done')`)

	const delivered = 10 + 4 + 2 + 1       // with one result
	const appended = delivered + 8 + 1 + 1 // for who fails, is gone, refuses
	var m exposition
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last scrape:\n%s", m.own())
		}
	})
	eventually(t, 60*time.Second, func() bool {
		m = scrape(t, w.address)
		return m.sum("walhook_attempts_total", "outcome", "delivered") >= delivered && m.sum("walhook_dead_letters_total") >= 2 &&
			m.sum("walhook_changes_skipped_total", "reason", "malformed_result") == 1 && m.sum("walhook_lanes", "state", "held") == 1 &&
			m.sum("walhook_endpoints", "state", "disabled") == 1 && m.sum("walhook_breaker_transitions_total", "to", "half_open") > 0
	})
	checkExposition(t, m)
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"walhook_changes_total", []string{"schema", "dids", "type", "insert"}, 21},
		{"walhook_changes_total", []string{"schema", "dids", "type", "update"}, 4},
		{"walhook_changes_total", []string{"schema", "dids", "type", "delete"}, 2},
		{"walhook_changes_total", []string{"schema", "call_flows"}, 1},
		{"walhook_events_appended_total", nil, appended},
		{"walhook_changes_skipped_total", []string{"reason", "no_endpoint"}, 2}, // and the notice that an endpoint was disabled
		{"walhook_changes_skipped_total", []string{"reason", "not_in_catalog"}, 1},
		{"walhook_changes_skipped_total", []string{"reason", "too_large"}, 1},
		{"walhook_changes_skipped_total", []string{"reason", "truncate"}, 1},
		{"walhook_changes_skipped_total", []string{"reason", "malformed_message"}, 1},
		{"walhook_changes_skipped_total", []string{"reason", "non_transactional_message"}, 1},
		{"walhook_changes_skipped_total", []string{"reason", "malformed_result"}, 1},
		{"walhook_changes_skipped_total", nil, 8},
		{"walhook_attempts_total", []string{"outcome", "delivered", "reason", "2xx"}, delivered},
		{"walhook_attempts_total", []string{"outcome", "disable", "reason", "410"}, 1},
		{"walhook_commit_to_delivery_seconds", nil, delivered},
		{"walhook_endpoints_disabled_total", []string{"reason", "gone"}, 1},
		{"walhook_attempts_total", []string{"outcome", "dead", "reason", "4xx"}, 1},
		{"walhook_dead_letters_total", nil, 2},
		{"walhook_endpoints", []string{"state", "active"}, 3},
		{"walhook_lanes", []string{"state", "held"}, 1},
		{"walhook_senders", nil, 1},
		{"walhook_shards_unowned", nil, 0},
		{"walhook_gaps_open", nil, 0},
		{"walhook_outbox_up", nil, 1},
		{"walhook_retention_seconds", nil, 7 * 24 * 3600},
		{"walhook_build_info", nil, 1},
	} {
		if got := m.sum(c.name, c.labels...); got != c.want {
			t.Errorf("%s %v is %g, want %g", c.name, c.labels, got, c.want)
		}
	}
	if attempts, timed := m.sum("walhook_attempts_total"), m.sum("walhook_attempt_seconds"); attempts != timed {
		t.Errorf("%g attempts, and %g were timed", attempts, timed)
	}
	for name, labels := range map[string][]string{
		"walhook_attempts_total":            {"outcome", "retry", "reason", "5xx"},
		"walhook_breaker_transitions_total": {"to", "open"},
	} {
		if m.sum(name, labels...) < 1 {
			t.Errorf("%s %v has not moved", name, labels)
		}
	}
	// What the failing one has not got waits, and nothing else does.
	eventually(t, 30*time.Second, func() bool {
		m = scrape(t, w.address)
		return m.sum("walhook_outbox_backlog") > 0 && m.sum("walhook_outbox_backlog") <= 8 && m.sum("walhook_outbox_oldest_seconds") > 0
	})
	w.process.stop(t)
}

// checkExposition checks what holds of every scrape.
func checkExposition(t *testing.T, e exposition) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(e.text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
	for name := range promisedMetrics {
		if e.families[name] == nil {
			t.Errorf("no %s", name)
		}
	}
	for name, family := range e.families {
		labels, promised := promisedMetrics[name]
		if !strings.HasPrefix(name, "walhook_") {
			continue // of Go and of the process
		}
		if !promised {
			t.Errorf("%s is not in the list of metrics", name)
		}
		for _, m := range family.GetMetric() {
			var names []string
			for _, pair := range m.GetLabel() {
				names = append(names, pair.GetName())
			}
			slices.Sort(names)
			if want := slices.Sorted(slices.Values(labels)); !slices.Equal(names, want) {
				t.Errorf("%s has the labels %v, want %v", name, names, want)
			}
		}
	}
	for line := range strings.SplitSeq(e.text, "\n") {
		shown := line
		if !strings.HasPrefix(line, "#") { // the value of a sample has any digits
			shown = line[:max(strings.LastIndexByte(line, ' '), 0)]
		}
		for _, private := range []string{"7007", "5005", "8008", "9009", "6006", "http://", "/works", "127.0.0.1"} {
			if strings.Contains(shown, private) {
				t.Errorf("the metrics show %q: %s", private, line)
			}
		}
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds", "process_resident_memory_bytes"} {
		if e.families[name] == nil {
			t.Errorf("no %s", name)
		}
	}
}

// TestMetrics_AreAllInTheOperatorsTable compares docs/OPERATIONS.md with the
// list above.
func TestMetrics_AreAllInTheOperatorsTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(repository, "docs/OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(walhook_[a-z_]+)(?:\\{([a-z,]+)\\})?` \\|")
	listed := map[string]string{}
	for _, match := range row.FindAllStringSubmatch(string(page), -1) {
		listed[match[1]] = match[2]
	}
	for name, labels := range promisedMetrics {
		got, ok := listed[name]
		if !ok || got != strings.Join(labels, ",") {
			t.Errorf("the table has %s with labels %q, want %v", name, got, labels)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if _, ok := promisedMetrics[name]; !ok {
			t.Errorf("the table has %s, which does not exist", name)
		}
	}
}

// TestContract_ListsMetricsThatExist compares docs/CONTRACT.md with the list.
func TestContract_ListsMetricsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(repository, "docs/CONTRACT.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## 6. Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	names := 0
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(section, -1) {
		text := match[1]
		name, labels, _ := strings.Cut(strings.TrimSuffix(text, "}"), "{")
		if !strings.HasPrefix(name, "walhook_") {
			continue
		}
		names++
		if want, ok := promisedMetrics[name]; !ok || labels != strings.Join(want, ",") {
			t.Errorf("%s has the labels %q (it exists: %t)", text, want, ok)
		}
	}
	if names < 15 {
		t.Errorf("only %d metrics are listed", names)
	}
}
