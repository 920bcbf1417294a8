package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
	"walhook/internal/pooler"
)

// through is a database's URL by way of a pooler.
func through(t *testing.T, database, address string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = address
	return u.String()
}

// poolerWorld is a source that is set up, and an outbox of its own.
type poolerWorld struct {
	source, outbox *pgtest.DB
	slot, listen   string
	delivered      atomic.Int64
	body           atomic.Value
}

func newPoolerWorld(t *testing.T) *poolerWorld {
	w := &poolerWorld{source: pgtest.Database(t), outbox: pgtest.Database(t), listen: loopback.Address(t)}
	w.slot = "pooler_" + w.source.Name
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var envelope struct{ Data string }
		_ = json.NewDecoder(r.Body).Decode(&envelope)
		w.body.Store(envelope.Data)
		w.delivered.Add(1)
	}))
	t.Cleanup(server.Close)
	w.source.Exec(t, carrier.Tables)
	w.source.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (7, 'n', '`+server.URL+`')`)
	return w
}

func (w *poolerWorld) settings(source, outbox string) []string {
	return []string{"--source", source, "--outbox", outbox, "--slot", w.slot}
}

// A pooler that a connection pooler in session mode answers is worked with, whatever start-up
// parameters it refuses, and walhook's settings are in force behind it.
func TestPooler_InSessionModeWorks(t *testing.T) {
	t.Parallel()
	w := newPoolerWorld(t)
	for _, db := range []*pgtest.DB{w.source, w.outbox} {
		// Each of them would break something where it is not overruled.
		for _, setting := range []string{"DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Kolkata'", "bytea_output = 'escape'",
			"extra_float_digits = 0", "search_path = 'public'", "statement_timeout = '10s'", "lock_timeout = '1ms'", "idle_session_timeout = '10s'",
			"default_transaction_isolation = 'serializable'", "row_security = on", "client_encoding = 'LATIN1'", "lc_messages = 'C'"} {
			db.Exec(t, "ALTER DATABASE "+db.Name+" SET "+setting)
		}
	}
	source := through(t, w.source.URL, pooler.Start(t, w.source.URL, pooler.Options{Replication: pooler.Pass}))
	outbox := through(t, w.outbox.URL, pooler.Start(t, w.outbox.URL, pooler.Options{}))
	args := w.settings(source, outbox)
	mustRun(t, append([]string{"setup"}, args...)...)
	p := startChild(t, append([]string{"run", "--listen", w.listen, "--allow-cidr", "127.0.0.0/8"}, args...)...)
	awaitReady(t, w.listen)
	time.Sleep(11 * time.Second) // longer than idle_session_timeout
	w.source.Exec(t, `INSERT INTO monthly_charges (id, user_id, product_type, last_billed_dt) VALUES (1, 7, 'did', '2026-11-28 12:00:00+00')`)
	eventually(t, 20*time.Second, func() bool { return w.delivered.Load() == 1 })
	if body := fmt.Sprint(w.body.Load()); !strings.Contains(body, "2026-11-28T12:00:00") {
		t.Errorf("the settings of the source's sessions are not in force: %s", body)
	}
	p.stop(t)
	if log := p.log(); strings.Contains(log, "57P05") || strings.Contains(log, "idle-session timeout") {
		t.Errorf("sessions of the outbox ended for being idle:\n%s", log)
	}
	out, _ := childCommand(t, append([]string{"doctor", "--json"}, args...)...).Output()
	for _, id := range []string{"source.pooler", "outbox.pooler"} {
		if status, evidence := findingOf(t, out, id); status != "warning" || !strings.Contains(evidence, "a connection pooler in session mode answers") {
			t.Errorf("%s is %s: %s", id, status, evidence)
		}
	}
}

// What cannot work through a pooler is refused with the reason, and nothing is
// left behind in sessions that it lends to others.
func TestPooler_WithoutSessionsOrReplicationIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		source, outbox *pooler.Options
		want           []string
		check          string // of doctor's, that fails
	}{
		{"outbox by transaction", nil, &pooler.Options{Transaction: true}, []string{"a connection pooler in transaction mode answers", "pool_mode = session"}, "outbox.reachable"},
		{"source by transaction", &pooler.Options{Transaction: true, Replication: pooler.Pass}, nil, []string{"a connection pooler in transaction mode answers", "--source"}, "source.reachable"},
		{"source without replication", &pooler.Options{}, nil, []string{"does not support replication connections", "--source"}, "source.role"},
		{"source that drops replication", &pooler.Options{Replication: pooler.Drop}, nil, []string{"does not support replication connections", "--source"}, "source.role"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newPoolerWorld(t)
			mustRun(t, append([]string{"setup"}, w.settings(w.source.URL, w.outbox.URL)...)...)
			source, outbox, pooled := w.source.URL, w.outbox.URL, ""
			if c.source != nil {
				source = through(t, source, pooler.Start(t, source, *c.source))
				pooled = source
			} else {
				outbox = through(t, outbox, pooler.Start(t, outbox, *c.outbox))
				pooled = outbox
			}
			args := w.settings(source, outbox)
			wantFault(t, exitFault, c.want, append([]string{"setup"}, args...)...)
			wantFault(t, exitFault, c.want, append([]string{"run", "--listen", "off"}, args...)...)
			out, _ := childCommand(t, append([]string{"doctor", "--json"}, args...)...).Output()
			status, evidence := findingOf(t, out, c.check)
			if status != "failed" || !strings.Contains(evidence, c.want[0]) {
				t.Errorf("doctor: %s is %s: %s", c.check, status, evidence)
			}
			conn, err := pgx.Connect(t.Context(), pooled)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			var left int
			if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_settings WHERE source = 'session'`).Scan(&left); err != nil || left > 0 {
				t.Errorf("%d settings, %v, are left in a session that others get", left, err)
			}
		})
	}
}

// A pooler that keeps a session for each client and has none left is full, and that is
// what is said of it.
func TestPooler_ThatIsFullIsNotTakenForOneThatLendsSessions(t *testing.T) {
	t.Parallel()
	w := newPoolerWorld(t)
	mustRun(t, append([]string{"setup"}, w.settings(w.source.URL, w.outbox.URL)...)...)
	full := through(t, w.outbox.URL, pooler.Start(t, w.outbox.URL, pooler.Options{Sessions: 1}))
	for _, command := range []string{"status", "endpoints"} {
		said, err := walhook(t, command, "--outbox", full)
		if err == nil || !strings.Contains(err.Error(), "check whether its pool is exhausted") || strings.Contains(err.Error(), "transaction mode") {
			t.Errorf("%s: %v\n%s", command, err, said)
		}
	}
}

// A pooler that has a client wait for a session, without end, is not waited for without
// end: connect_timeout also bounds the first answer.
func TestPooler_ThatLetsAClientWaitIsNamed(t *testing.T) {
	t.Parallel()
	w := newPoolerWorld(t)
	mustRun(t, append([]string{"setup"}, w.settings(w.source.URL, w.outbox.URL)...)...)
	// taken is a database behind a pooler whose only session somebody else has.
	taken := func(db *pgtest.DB) string {
		t.Helper()
		kept := through(t, db.URL, pooler.Start(t, db.URL, pooler.Options{Sessions: 1, Waits: true, Replication: pooler.Pass}))
		conn, err := pgx.Connect(t.Context(), kept)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return kept + "&connect_timeout=1"
	}
	outbox, source := taken(w.outbox), taken(w.source)
	for _, args := range [][]string{
		{"status", "--outbox", outbox},
		{"endpoints", "--outbox", outbox},
		append([]string{"setup"}, w.settings(source, w.outbox.URL)...),
		append([]string{"setup"}, w.settings(w.source.URL, outbox)...),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
		if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "answers no query within 1s: if a connection pooler is in between, check whether its pool is exhausted") {
			t.Errorf("%s: %v, %v\n%s", args[0], err, ctx.Err(), out)
		}
	}
}

// A pooler that does not reset its sessions gives the next client one that walhook has
// given back as it was, and doctor names the pooler.
func TestPooler_ThatDoesNotResetGetsItsSessionsBackAsTheyWere(t *testing.T) {
	t.Parallel()
	w := newPoolerWorld(t)
	kept := through(t, w.outbox.URL, pooler.Start(t, w.outbox.URL, pooler.Options{Unreset: true}))
	args := w.settings(w.source.URL, kept)
	mustRun(t, append([]string{"setup"}, args...)...)
	mustRun(t, "status", "--outbox", kept)
	out, _ := childCommand(t, append([]string{"doctor", "--json"}, args...)...).Output()
	if status, evidence := findingOf(t, out, "outbox.pooler"); status != "warning" {
		t.Errorf("doctor, after walhook alone, says %s: %s", status, evidence)
	}
	var others []*pgx.Conn
	for range 30 { // so all sessions that are left are among them
		conn, err := pgx.Connect(t.Context(), kept)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, conn)
		var left []string
		if err := conn.QueryRow(t.Context(), `SELECT ARRAY(SELECT name FROM pg_settings WHERE source = 'session')`,
			pgx.QueryExecModeSimpleProtocol).Scan(&left); err != nil || len(left) > 0 {
			t.Errorf("the settings %q are left in a session that others get, %v", left, err)
		}
		var statements int
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_prepared_statements`, pgx.QueryExecModeSimpleProtocol).Scan(&statements); err != nil || statements > 0 {
			t.Errorf("%d prepared statements are left, %v", statements, err)
		}
		if _, err := conn.Exec(t.Context(), "PREPARE left_by_another AS SELECT 1", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range others {
		conn.Close(t.Context())
	}
	out, _ = childCommand(t, append([]string{"doctor", "--json"}, args...)...).Output()
	if status, evidence := findingOf(t, out, "outbox.pooler"); status != "failed" || !strings.Contains(evidence, "does not reset its sessions") {
		t.Errorf("doctor, after another client, says %s: %s", status, evidence)
	}
}

// The same with PgBouncer itself, where it is installed.
func TestPooler_PgBouncer(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("pgbouncer is not installed; the other tests have a pooler of their own")
	}
	for _, mode := range []string{"session", "transaction", "statement"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newPoolerWorld(t)
			mustRun(t, append([]string{"setup"}, w.settings(w.source.URL, w.outbox.URL)...)...)
			address := startPgBouncer(t, program, w.outbox.URL, mode)
			args := w.settings(w.source.URL, through(t, w.outbox.URL, address))
			if mode != "session" {
				wantFault(t, exitFault, []string{"a connection pooler in transaction mode answers"}, append([]string{"run", "--listen", "off"}, args...)...)
				return
			}
			p := startChild(t, append([]string{"run", "--listen", w.listen, "--allow-cidr", "127.0.0.0/8"}, args...)...)
			awaitReady(t, w.listen)
			w.source.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`)
			eventually(t, 20*time.Second, func() bool { return w.delivered.Load() == 1 })
			p.stop(t)
			source := startPgBouncer(t, program, w.source.URL, mode)
			wantFault(t, exitFault, []string{"does not support replication connections"},
				append([]string{"run", "--listen", "off"}, w.settings(through(t, w.source.URL, source), w.outbox.URL)...)...)
		})
	}
}

func startPgBouncer(t *testing.T, program, server, mode string) (address string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && len(d) > 4; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) // it drops its rights
	}
	address = loopback.Address(t)
	_, port, _ := strings.Cut(address, ":")
	config := fmt.Sprintf("[databases]\n* = host=%s port=%s user=%s password=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
		"auth_type = any\npool_mode = %s\ndefault_pool_size = 40\nlogfile = %s/log\npidfile = %s/pid\n", u.Hostname(), u.Port(), u.User.Username(), password, port, mode, dir, dir)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", file}
	if os.Geteuid() == 0 {
		_ = os.Chmod(dir, 0o777)
		args = append([]string{"-u", "nobody"}, args...)
	}
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, 10*time.Second, func() bool {
		conn, err := pgx.Connect(t.Context(), through(t, server, address))
		if err == nil {
			conn.Close(t.Context())
		}
		return err == nil
	})
	return address
}

func findingOf(t *testing.T, report []byte, id string) (status, evidence string) {
	t.Helper()
	var parsed struct {
		Checks []struct{ ID, Status, Evidence string }
	}
	if err := json.Unmarshal(report, &parsed); err != nil {
		t.Fatalf("doctor printed no report: %v\n%s", err, report)
	}
	for _, c := range parsed.Checks {
		if c.ID == id {
			return c.Status, c.Evidence
		}
	}
	return "missing", ""
}
