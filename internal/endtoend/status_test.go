package endtoend

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"walhook/internal/pgtest"
)

// statusReport is what these tests read of status --json.
type statusReport struct {
	Source *struct {
		Reachable     bool
		Error         string
		Active        bool
		WALStatus     string   `json:"wal_status"`
		LagBytes      *uint64  `json:"lag_bytes"`
		LagSeconds    *float64 `json:"lag_seconds"`
		RetainedBytes *float64 `json:"retained_bytes"`
		LimitBytes    *float64 `json:"limit_bytes"`
	}
	Outbox   struct{ Reachable bool }
	Position *struct{ Publisher string }
	Rates    *struct {
		Appended  float64 `json:"appended_per_second"`
		Delivered float64 `json:"delivered_per_second"`
		Failed    float64 `json:"failed_per_second"`
	} `json:"throughput"`
	Backlog          *struct{ Events float64 }
	Lanes, Endpoints map[string]int
	Worst            []struct {
		Endpoint             int64
		Account, URL, Reason string
		Oldest               float64 `json:"oldest_seconds"`
	}
	Senders []struct{ Shards []int }
	Unowned []int `json:"shards_without_owner"`
}

// statusOf runs 'walhook status' once.
func statusOf(t *testing.T, args ...string) (statusReport, string, error) {
	t.Helper()
	text, err := walhook(t, append([]string{"status", "--json"}, args...)...)
	var st statusReport
	if decodeErr := json.Unmarshal([]byte(text), &st); decodeErr != nil {
		t.Fatalf("%v: %v in\n%s", err, decodeErr, text)
	}
	return st, text, err
}

// elsewhere is a database's URL on a port where nobody listens.
func elsewhere(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "127.0.0.1:1"
	return u.String()
}

// TestStatus_ShowsARunningPipelineAndWhatIsWrongWithIt looks at one account that
// gets its events and one whose receiver fails, first while both databases are
// there and then without either.
func TestStatus_ShowsARunningPipelineAndWhatIsWrongWithIt(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/2" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	address := strings.Replace(server.URL, "http://", "http://user:hunter2@", 1)
	s := newShop(t, 2, func(account string) string { return address + "/" + account + "?token=hunter2" })
	args := []string{"--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot}

	before, text, err := statusOf(t, args...)
	if err != nil || before.Source.Active || before.Source.WALStatus != "reserved" || len(before.Unowned) != 32 || before.Position.Publisher == "" {
		t.Errorf("before it runs: %v\n%s", err, text)
	}
	publisher, sender := s.publisher(t), s.sender(t, "sender", "--outbox", s.outbox.URL)
	startAll(t, publisher, sender)
	s.db.Exec(t, `INSERT INTO item (account, n) SELECT 1 + n % 2, n FROM generate_series(1, 100) n`)
	var st statusReport
	eventually(t, 30*time.Second, func() bool {
		st, text, err = statusOf(t, args...)
		return err == nil && st.Source.Active && len(st.Senders) == 1 && len(st.Senders[0].Shards) == 32 &&
			len(st.Worst) == 1 && st.Rates.Appended >= 9 && st.Rates.Delivered >= 4 && st.Rates.Failed > 0 && st.Backlog.Events >= 50
	})
	if w := st.Worst[0]; w.Account != "2" || w.Reason != "5xx" || w.URL != strings.Replace(server.URL, "http://", "http://…@", 1)+"/2?…" || w.Oldest <= 0 {
		t.Errorf("worst %+v", w)
	}
	var endpoint int64
	if err := s.outbox.Connect(t).QueryRow(t.Context(), "SELECT id FROM walhook.endpoint WHERE account = '2'").Scan(&endpoint); err != nil || st.Worst[0].Endpoint != endpoint {
		t.Errorf("the worst is called endpoint %d, want %d (%v)", st.Worst[0].Endpoint, endpoint, err)
	}
	if st.Source.LagBytes == nil || *st.Source.RetainedBytes <= 0 || st.Source.LimitBytes != nil || st.Lanes["live"] == 0 || st.Endpoints["active"] != 2 {
		t.Errorf("status\n%s", text)
	}
	people, err := walhook(t, append([]string{"status"}, args...)...)
	for _, want := range []string{"slot          " + s.slot + ", read", "lag  ", "throughput  ", "backlog       about", "live", "WORST ENDPOINTS\nACCOUNT  ENDPOINT  ", fmt.Sprintf("\n2        %d ", endpoint), "5xx"} {
		if !strings.Contains(people, want) {
			t.Errorf("%v: the status lacks %q:\n%s", err, want, people)
		}
	}
	if strings.Contains(text+people, "hunter2") {
		t.Errorf("a secret is shown:\n%s%s", text, people)
	}

	st, text, err = statusOf(t, "--source", elsewhere(t, s.db.URL), "--outbox", s.outbox.URL, "--slot", s.slot)
	if exitCodeOf(err) != exitFault || st.Source.Reachable || st.Source.Error == "" || st.Source.LagBytes != nil || len(st.Worst) != 1 {
		t.Errorf("without the source: %v\n%s", err, text)
	}
	st, text, err = statusOf(t, "--source", s.db.URL, "--outbox", elsewhere(t, s.outbox.URL), "--slot", s.slot)
	if exitCodeOf(err) != exitFault || st.Outbox.Reachable || !st.Source.Active || st.Source.RetainedBytes == nil || st.Backlog != nil {
		t.Errorf("without the outbox: %v\n%s", err, text)
	}
	people, err = walhook(t, "status", "--source", s.db.URL, "--outbox", elsewhere(t, s.outbox.URL), "--slot", s.slot)
	if err == nil || !strings.Contains(people, "outbox        DOES NOT ANSWER") || !strings.Contains(people, "WAL retained") {
		t.Errorf("without the outbox: %v\n%s", err, people)
	}
	st, text, err = statusOf(t, "--outbox", s.outbox.URL)
	if err != nil || st.Source != nil || len(st.Worst) != 1 {
		t.Errorf("without --source: %v\n%s", err, text)
	}
	publisher.stop(t)
	sender.stop(t)
}

// yesterdaySQL makes the partition of yesterday's positions, as an outbox has it that was
// there then: what a test says was a while ago may have been yesterday.
const yesterdaySQL = `
	DO $$
	DECLARE today date := (now() AT TIME ZONE 'UTC')::date;
	BEGIN
		EXECUTE format('CREATE TABLE IF NOT EXISTS walhook.%I PARTITION OF walhook.position FOR VALUES FROM (%L) TO (%L)',
			'position_' || to_char(today - 1, 'YYYYMMDD'), today - 1 || ' 00:00+00', today || ' 00:00+00');
	END $$`

// TestStatus_WALWithoutChangesIsNoLagInSeconds has an idle pipeline whose source's log
// moves on, and a last change that the reader took some time to store.
func TestStatus_WALWithoutChangesIsNoLagInSeconds(t *testing.T) {
	t.Parallel()
	s := newShop(t, 1, func(string) string { return "http://127.0.0.1:9/" })
	publisher := s.publisher(t)
	startAll(t, publisher)
	args := []string{"--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot}
	conn, outbox := s.db.Connect(t), s.outbox.Connect(t)
	s.db.Exec(t, `INSERT INTO item (account, n) VALUES (1, 1)`)
	// One look in which all that is to be told apart is there.
	eventually(t, 60*time.Second, func() bool {
		s.db.Exec(t, `SELECT txid_current()`)
		var stored, measured bool
		if err := outbox.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM walhook.event)").Scan(&stored); err != nil {
			t.Fatal(err)
		}
		const sql = "SELECT coalesce(bool_or(flush_lag > '0'), false) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1"
		if err := conn.QueryRow(t.Context(), sql, s.slot).Scan(&measured); err != nil {
			t.Fatal(err)
		}
		st, text, err := statusOf(t, args...)
		if err != nil || st.Source.LagBytes == nil {
			t.Fatalf("%v:\n%s", err, text)
		}
		if !stored || !measured || *st.Source.LagBytes == 0 {
			return false
		}
		if seconds := *st.Source.LagSeconds; seconds != 0 {
			t.Fatalf("a lag of %g s in %d bytes that concern nobody", seconds, *st.Source.LagBytes)
		}
		return true
	})
	// The age is that of a reader that stores nothing any more.
	publisher.stop(t)
	s.outbox.Exec(t, yesterdaySQL)
	if _, err := outbox.Exec(t.Context(), "UPDATE walhook.position SET stored_at = stored_at - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	s.db.Exec(t, `INSERT INTO item (account, n) VALUES (1, 2)`)
	if st, text, err := statusOf(t, args...); err != nil || *st.Source.LagSeconds < 3600 {
		t.Errorf("%v: nothing was stored for an hour:\n%s", err, text)
	}
}

func TestStatus_SaysThatNothingIsSetUp(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	st, text, err := statusOf(t, "--source", db.URL, "--slot", "nobody_made_it")
	if err == nil || !strings.Contains(err.Error(), "walhook setup") || st.Source.WALStatus != "missing" {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := walhook(t, "status"); exitCodeOf(err) != exitUsage || !strings.Contains(err.Error(), "outbox is missing") {
		t.Errorf("without any database: %v", err)
	}
}

// Whoever watches is shown the databases as they come and go.
func TestStatus_WatchContinuesWhileTheOutboxIsAway(t *testing.T) {
	t.Parallel()
	s := newShop(t, 1, func(string) string { return "http://127.0.0.1:9/" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := childCommand(t, "status", "--outbox", elsewhere(t, s.outbox.URL), "--json", "--watch", "--every", "1s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	lines := bufio.NewScanner(out)
	for range 2 {
		var st statusReport
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &st) != nil || st.Outbox.Reachable {
			t.Errorf("got %s", lines.Text())
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after a signal: %v", err)
	}
}
