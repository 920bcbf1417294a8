package endtoend

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/chaos"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// secretMark is in everything that must be shown nowhere: passwords, users and
// queries of URLs, rows, messages, answers.
const secretMark = "hunter2"

// TestSecrecy_NothingShowsSecretsOrPayloads has a pipeline meet everything that
// can go wrong, at log level debug, with marked secrets wherever there can be
// one, and then looks for the mark in all that an operator sees: log lines,
// output and errors of the commands, health, metrics, and what the outbox keeps
// for people.
func TestSecrecy_NothingShowsSecretsOrPayloads(t *testing.T) {
	t.Parallel()
	w := newSecrecyWorld(t)
	w.run(t, "setup", "--log-level", "debug")
	process := startChildWith(t, []string{w.key}, append([]string{"run", "--listen", w.address, "--allow-cidr", "127.0.0.0/8", "--log-level", "debug",
		"--retry-schedule", "100ms,100ms", "--max-event-bytes", "4096", "--admin-token", "operator-token-hunter2-operator-token"}, w.settings...)...)
	log := func() string {
		text, _ := os.ReadFile(process.logs)
		return string(text)
	}
	eventually(t, 30*time.Second, func() bool { return strings.Contains(log(), `"replication started"`) })
	w.write(t)
	for _, said := range []string{`"outcome":"delivered"`, `"reason":"5xx"`, `"reason":"3xx"`, `"reason":"410"`, `"reason":"reset"`, `"reason":"invalid_status"`,
		"logical message refused: malformed", "not transactional", "row of the results table refused", "event is too large"} {
		w.saw(t, said, log)
	}
	// The databases go away and come back.
	w.link.Set(chaos.Weather{Refusing: true})
	w.link.Reset()
	w.saw(t, "outbox unavailable, retrying", log)
	w.saw(t, "reading stopped", log)
	w.collect("readyz while the outbox is away", w.get(t, "/readyz"))
	w.run(t, "status")
	w.link.Set(chaos.Weather{})
	w.saw(t, "outbox available again", log)
	w.db.Exec(t, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL AND database = current_database()`)
	w.write(t)
	w.collect("metrics", w.get(t, "/metrics"))
	w.collect("readyz", w.get(t, "/readyz"))
	for _, command := range []string{"status", "status --json", "endpoints", "endpoints --json", "endpoints disable 7", "endpoints enable 7"} {
		w.run(t, strings.Fields(command)...)
	}
	for _, sql := range []string{
		`SELECT string_agg(DISTINCT outcome || ' ' || reason || ' ' || detail, E'\n') FROM walhook.attempt`,
		`SELECT string_agg(reason, E'\n') FROM walhook.dead_letter`,
		`SELECT string_agg(reason, E'\n') FROM walhook.retry`,
		`SELECT string_agg(state || ' ' || reason, E'\n') FROM walhook.endpoint`,
		`SELECT string_agg(schema || ' ' || type || ' ' || reason, E'\n') FROM walhook.unrouted`,
		`SELECT string_agg(last_reason, E'\n') FROM walhook.lane`,
	} {
		w.query(t, sql)
	}
	w.refused(t)
	process.stop(t)
	w.collect("log of run", log())
	w.run(t, "teardown")
	w.judge(t)
}

// secrecyWorld is a carrier whose secrets are all marked, and what was seen of
// it.
type secrecyWorld struct {
	db, outbox *pgtest.DB
	link       *chaos.Proxy // between walhook and its outbox
	address    string
	settings   []string
	key        string            // of the environment
	secrets    map[string]string // by what they are
	seen       map[string]string // by where
}

func newSecrecyWorld(t *testing.T) *secrecyWorld {
	t.Helper()
	w := &secrecyWorld{db: pgtest.Database(t), outbox: pgtest.Database(t), address: loopback.Address(t), seen: map[string]string{}}
	server := httptest.NewServer(http.HandlerFunc(tellTale))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	hook := func(path string) string {
		return "http://user-hunter2:pass%2Fhunter2@" + host + "/" + path + "?token=hunter2"
	}
	w.db.Exec(t, carrier.Tables)
	conn := w.db.Connect(t)
	for id, address := range []string{"", hook("ok"), hook("echo"), hook("redirect"), hook("gone"), hook("reset"), hook("garbage"), hook("ok"),
		"ftp://user:hunter2@example.com/?hunter2", "http://[::hunter2]:x/?hunter2", "http://user:hunter2@127.0.0.1:1/?hunter2",
		"http://user:hunter2@no-such-host.invalid/?hunter2", "https://user:hunter2@" + host + "/?hunter2"} {
		if _, err := conn.Exec(t.Context(), `INSERT INTO users (id, username, web_hook_url) OVERRIDING SYSTEM VALUE VALUES ($1, 'name-hunter2', nullif($2, ''))`, id, address); err != nil {
			t.Fatal(err)
		}
	}
	// Roles with passwords that must not be shown; trust would hide a fault.
	role := "secret_" + w.db.Name
	w.db.Exec(t, "CREATE ROLE "+role+" SUPERUSER LOGIN PASSWORD 'dsn-hunter2'")
	t.Cleanup(func() { w.forget(t, role) })
	source, outbox := withUser(t, w.db.URL, role, "dsn-hunter2"), withUser(t, w.outbox.URL, role, "dsn-hunter2")
	u, err := url.Parse(outbox)
	if err != nil {
		t.Fatal(err)
	}
	w.link = newProxy(t, u.Host)
	u.Host = w.link.Addr()
	key := strings.Repeat("hunter2.", 4)
	w.settings = []string{"--source", source, "--outbox", u.String(), "--slot", "secret_" + w.db.Name}
	w.key = "WALHOOK_SECRET_KEY=" + base64.StdEncoding.EncodeToString([]byte(key))
	w.secrets = map[string]string{
		"the mark": secretMark, "the key": base64.StdEncoding.EncodeToString([]byte(key)),
		"Basic authentication": base64.StdEncoding.EncodeToString([]byte("user-hunter2:pass/hunter2"))[:20],
		"a signing secret":     "whsec_", "a signature": "v1,",
	}
	return w
}

// forget drops a role that owns things in both databases.
func (w *secrecyWorld) forget(t *testing.T, role string) {
	ctx := context.WithoutCancel(t.Context())
	for _, one := range []struct{ url, sql string }{
		{w.outbox.URL, "REASSIGN OWNED BY " + role + " TO CURRENT_USER"},
		{w.db.URL, "REASSIGN OWNED BY " + role + " TO CURRENT_USER; DROP ROLE " + role},
	} {
		conn, err := pgx.Connect(ctx, one.url)
		if err == nil {
			_, err = conn.PgConn().Exec(ctx, one.sql).ReadAll()
			_ = conn.Close(ctx)
		}
		if err != nil {
			t.Errorf("forget role %s: %v", role, err)
		}
	}
}

// tellTale answers in ways that fail, and repeats what it was sent wherever an
// answer has room for it.
func tellTale(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	all := fmt.Sprintf("%s %s %s %s", r.URL, r.Header.Get("Authorization"), body, r.Header.Get("webhook-signature"))
	switch strings.Trim(r.URL.Path, "/") {
	case "echo":
		w.Header().Set("Retry-After", all)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, all)
	case "redirect":
		w.Header().Set("Location", "http://elsewhere/?"+url.QueryEscape(all))
		w.WriteHeader(http.StatusFound)
	case "gone":
		w.WriteHeader(http.StatusGone)
		_, _ = io.WriteString(w, all)
	case "reset", "garbage":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		if strings.HasPrefix(r.URL.Path, "/garbage") {
			_, _ = io.WriteString(conn, "HTTP/1.1 2xx hunter2 "+all+"\r\nhunter2\r\n\r\n")
		} else if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
			_ = tcp.SetLinger(0)
		}
	}
}

// write has every kind of change happen, good and bad.
func (w *secrecyWorld) write(t *testing.T) {
	t.Helper()
	w.db.Exec(t, `INSERT INTO dids (user_id, number) SELECT id, 'hunter2-' || id FROM users`)
	w.db.Exec(t, `INSERT INTO call_flows (user_id, flow_name, flow_data) VALUES (1, 'hunter2', to_json(repeat('hunter2 ', 1000)))`)
	for _, content := range []string{`{"user_id":"hunter2`, `hunter2`, `{"hunter2":1}`, `{"user_id":1,"schema":"hunter2?","type":"x","status":"hunter2"}`,
		`{"user_id":1,"schema":"sms","type":"update","status":"hunter2"}`, `{"user_id":{"hunter2":1}}`, `["hunter2"]`} {
		w.db.Exec(t, "SELECT pg_logical_emit_message(true, 'walhook', '"+content+"')")
	}
	w.db.Exec(t, `SELECT pg_logical_emit_message(false, 'walhook', 'hunter2')`)
	w.db.Exec(t, `INSERT INTO async_results (user_id, schema, type, status, "verbose") VALUES (1, 'hunter2?', 'x', 'hunter2', 'hunter2'), (1, 'sms', 'update', 'hunter2', 'hunter2')`)
	w.db.Exec(t, `UPDATE users SET last_name = 'hunter2' WHERE id = 7; DELETE FROM dids WHERE user_id = 1; TRUNCATE fax_emails`)
}

// refused runs commands that fail because of what they are told.
func (w *secrecyWorld) refused(t *testing.T) {
	t.Helper()
	wrong := strings.Replace(w.settings[1], "dsn-hunter2", "wrong-hunter2", 1)
	file := t.TempDir() + "/config.yaml"
	if err := os.WriteFile(file, []byte("source: [postgres://u:hunter2@h/d\nsecret-key: hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"setup", "--source", wrong}, {"status", "--source", wrong}, {"run", "--listen", "off", "--source", w.settings[1], "--outbox", wrong},
		{"setup", "--source", "postgres://u:hunter2@host:notaport/d"}, {"setup", "--source", "postgres://u:hunter2@%zz/d"},
		{"setup", "--source", "host=h password=hunter2 port=hunter2"}, {"status", "--outbox", "postgres://u:hunter2@127.0.0.1:1/d?sslmode=hunter2"},
		{"run", "--secret-key", "hunter2", "--source", w.settings[1]}, {"setup", "--config", file}, {"endpoints", "--outbox", wrong},
	} {
		out, err := childCommand(t, args...).CombinedOutput()
		if err == nil {
			t.Errorf("walhook %s succeeded", args[0])
		}
		w.collect("walhook "+args[0]+", refused", string(out))
	}
}

func (w *secrecyWorld) collect(where, text string) {
	w.seen[fmt.Sprintf("%s (%d)", where, len(w.seen))] = text
}

// run runs a command to its end and keeps what it says; whether it succeeds is
// not the question here.
func (w *secrecyWorld) run(t *testing.T, args ...string) {
	t.Helper()
	settings := w.settings
	if args[0] == "endpoints" {
		settings = w.settings[2:4]
	}
	cmd := childCommand(t, append(args, settings...)...)
	cmd.Env = append(cmd.Env, w.key)
	out, _ := cmd.CombinedOutput()
	if len(out) == 0 && args[0] != "teardown" {
		t.Errorf("walhook %s says nothing", strings.Join(args, " "))
	}
	w.collect("walhook "+strings.Join(args, " "), string(out))
}

func (w *secrecyWorld) saw(t *testing.T, text string, log func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !strings.Contains(log(), text) {
		if time.Now().After(deadline) {
			t.Fatalf("the log never says %q", text)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (w *secrecyWorld) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + w.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || len(body) == 0 {
		t.Fatalf("%s: %v", path, err)
	}
	return string(body)
}

func (w *secrecyWorld) query(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.outbox.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var text *string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if text != nil {
		w.collect(sql, *text)
	}
}

func (w *secrecyWorld) judge(t *testing.T) {
	t.Helper()
	for where, text := range w.seen {
		for what, secret := range w.secrets {
			for line := range strings.SplitSeq(text, "\n") {
				if strings.Contains(line, secret) {
					t.Errorf("%s shows %s: %s", where, what, line)
					break
				}
			}
		}
	}
}
