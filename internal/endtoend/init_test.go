package endtoend

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"walhook/doctor"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// voipTables is a carrier that walhook never saw: a schema of its own, uuid keys, a
// partitioned table, names that need quotes, and nothing that the role "reader" may change.
const voipTables = `
CREATE SCHEMA voip;
CREATE TABLE voip.customer (id uuid PRIMARY KEY, name text NOT NULL, parent_id uuid REFERENCES voip.customer, password_hash text);
CREATE TABLE voip.number (id uuid PRIMARY KEY, customer_id uuid NOT NULL REFERENCES voip.customer, e164 text NOT NULL);
CREATE TABLE voip.trunk (id uuid PRIMARY KEY, customer_id uuid NOT NULL REFERENCES voip.customer, host text, auth_secret text);
CREATE TABLE voip."Call; Route" (id uuid PRIMARY KEY, trunk_id uuid NOT NULL REFERENCES voip.trunk, prefix text);
CREATE TABLE voip.voicemail (id uuid PRIMARY KEY, number_id uuid NOT NULL REFERENCES voip.number, pin text, greeting text);
CREATE TABLE voip.invoice (id uuid PRIMARY KEY, customer_id uuid NOT NULL REFERENCES voip.customer, total numeric(12,2));
CREATE TABLE voip.cdr (id uuid NOT NULL, day date NOT NULL, customer_id uuid NOT NULL REFERENCES voip.customer, seconds int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE voip.cdr_2026_11 PARTITION OF voip.cdr FOR VALUES FROM ('2026-11-01') TO ('2026-12-01');
CREATE TABLE voip.cdr_2026_12 PARTITION OF voip.cdr FOR VALUES FROM ('2026-12-01') TO ('2027-01-01');
ALTER TABLE voip.invoice ENABLE ROW LEVEL SECURITY;
INSERT INTO voip.customer (id, name) VALUES ('00000000-0000-0000-0000-000000000007', 'seven');
CREATE ROLE reader LOGIN PASSWORD 'reader-pw';`

// site is one installation of init's.
type site struct {
	dir     string
	source  *pgcluster.Cluster
	outbox  *pgcluster.Cluster // the source's, or another server
	path    string             // of the shell: psql and walhook
	said    string             // by init
	secrets []string
}

// TestInit_OneRunOfTheDBAsFileIsEnough does what init prints, as it prints it: a DBA runs
// the SQL once, setup and doctor ask for nothing more, and an event arrives.
func TestInit_OneRunOfTheDBAsFileIsEnough(t *testing.T) {
	t.Parallel()
	psql := findPSQL(t)
	for _, c := range []struct {
		name           string
		source, outbox int // major versions; 0 is one server
		database       string
		flags          []string
		settings       map[string]string
		outboxURL      string // with PORT
	}{
		{name: "one server, one role", source: 15, database: "phones", settings: map[string]string{"wal_level": "replica"}},
		{name: "one server, two roles, names with quotes", source: 18, database: "My 'Phones'=x", settings: map[string]string{"max_wal_senders": "3", "max_replication_slots": "0", "idle_replication_slot_timeout": "1h"},
			flags: []string{"--user", `wh "read"`, "--outbox-user", "wh_keep", "--slot", "voip_slot", "--publication", "voip pub"}},
		{name: "two servers, two roles", source: 15, outbox: 18, database: "phones", outboxURL: "postgres://wh_keep:chosen%40pw@127.0.0.1:PORT/hooks", flags: []string{"--user", "wh_read", "--outbox-user", "wh_keep"}},
		{name: "the outbox is in the source", source: 18, database: "phones", outboxURL: "postgres://walhook@127.0.0.1:PORT/phones"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &site{dir: filepath.Join(t.TempDir(), "etc"), path: psql + ":" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), secrets: []string{"reader-pw", "chosen"}}
			s.source = pgtest.NewCluster(t, pgcluster.Options{Major: c.source, NoSync: true, Settings: c.settings})
			if s.outbox = s.source; c.outbox != 0 {
				s.outbox = pgtest.NewCluster(t, pgcluster.Options{Major: c.outbox, NoSync: true})
			}
			execAt(t, s.source.URL("postgres"), "CREATE DATABASE "+pgx.Identifier{c.database}.Sanitize())
			at := s.source.URL("")
			at = strings.Replace(at, "/?", "/"+url.PathEscape(c.database)+"?", 1)
			execAt(t, at, voipTables)
			reader := withUser(t, at, "reader", "reader-pw")
			flags := append([]string{"--source", reader, "--account", "voip.customer", "--dir", s.dir}, c.flags...)
			if c.outboxURL != "" {
				flags = append(flags, "--outbox", strings.Replace(c.outboxURL, "PORT", fmt.Sprint(s.outbox.Port()), 1))
			}
			s.said = mustRun(t, append([]string{"init"}, flags...)...)
			s.checkFiles(t)
			s.checkRefusal(t, flags)

			commands := s.commands(t)
			for range 2 { // the second time it leaves everything as it is
				for _, command := range commands {
					if strings.HasPrefix(command, "psql ") {
						s.asDBA(t, command)
					}
				}
			}
			if restart := strings.Contains(s.said, "needs a restart"); restart != (c.settings != nil) {
				t.Errorf("restart %v:\n%s", restart, s.said)
			}
			for _, server := range []*pgcluster.Cluster{s.source, s.outbox} {
				if err := server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			config := filepath.Join(s.dir, "walhook.yaml")
			mustRun(t, "catalog", "check", "--config", config, filepath.Join(s.dir, "catalog.yaml"))
			if failed := failedChecks(t, config); !slices.Equal(failed, []string{"source.setup"}) { // which says: run walhook setup
				t.Errorf("after the DBA's file failed %v", failed)
			}
			if plan := mustRun(t, "setup", "--dry-run", "--config", config); !strings.Contains(plan, "the source needs only the slot") {
				t.Errorf("setup still asks for\n%s", plan)
			}
			s.shell(t, commands[len(commands)-2], nil)
			if failed := failedChecks(t, config); len(failed) > 0 {
				t.Errorf("after setup failed %v", failed)
			}
			s.deliver(t, at, strings.Fields(commands[len(commands)-1])[1:])
		})
	}
}

// checkFiles checks modes, and that no secret is where it does not belong.
func (s *site) checkFiles(t *testing.T) {
	t.Helper()
	var settings map[string]any
	text, err := os.ReadFile(filepath.Join(s.dir, "walhook.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"source", "outbox"} {
		u, err := url.Parse(settings[name].(string))
		if err != nil {
			t.Fatal(err)
		}
		password, _ := u.User.Password()
		s.secrets = append(s.secrets, password)
	}
	s.secrets = append(s.secrets, settings["secret-key"].(string), settings["admin-token"].(string))
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if entry.Name() == "walhook.yaml" {
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", entry.Name(), info.Mode())
			}
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		s.secretFree(t, entry.Name(), string(text))
	}
	s.secretFree(t, "what init prints", s.said)
}

func (s *site) secretFree(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range s.secrets {
		if secret == "" || len(secret) < 6 {
			t.Fatalf("a secret of %d bytes", len(secret))
		}
		if strings.Contains(text, secret) {
			t.Errorf("%s holds a secret:\n%s", where, text)
		}
	}
}

// checkRefusal checks that a second init changes nothing.
func (s *site) checkRefusal(t *testing.T, flags []string) {
	t.Helper()
	before := s.contents(t)
	_, err := walhook(t, append([]string{"init"}, flags...)...)
	if err == nil || !strings.Contains(err.Error(), "walhook.yaml exists") || !strings.Contains(err.Error(), "catalog.yaml exists") {
		t.Errorf("a second init: %v", err)
	} else {
		s.secretFree(t, "the refusal", err.Error())
	}
	if after := s.contents(t); after != before {
		t.Errorf("a second init changed files:\n%s\n%s", before, after)
	}
}

func (s *site) contents(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	entries, _ := os.ReadDir(s.dir)
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(s.dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "== %s\n%s", entry.Name(), text)
	}
	return all.String()
}

// commands are the commands that init prints.
func (s *site) commands(t *testing.T) (commands []string) {
	t.Helper()
	for line := range strings.Lines(s.said) {
		if command, indented := strings.CutPrefix(line, "  "); indented {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	if n := len(commands); n < 3 || !strings.HasPrefix(commands[n-2], "walhook setup ") || !strings.HasPrefix(commands[n-1], "walhook run ") {
		t.Fatalf("commands %q", commands)
	}
	return commands
}

// asDBA runs psql, and types the passwords of the configuration file where it asks.
func (s *site) asDBA(t *testing.T, command string) {
	t.Helper()
	var typed strings.Builder
	text, err := os.ReadFile(filepath.Join(s.dir, "walhook.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	password := func(name string) {
		u, _ := url.Parse(settings[name].(string))
		p, _ := u.User.Password()
		fmt.Fprintf(&typed, "%s\n%s\n", p, p)
	}
	cluster := s.source
	if strings.Contains(command, "walhook-outbox.sql") {
		cluster = s.outbox
		password("outbox")
	} else {
		password("source")
		password("outbox")
	}
	u, _ := url.Parse(cluster.URL("postgres"))
	superuser, _ := u.User.Password()
	s.shell(t, command, strings.NewReader(typed.String()), "PGPASSWORD="+superuser)
}

// shell runs a command line without a terminal.
func (s *site) shell(t *testing.T, command string, in io.Reader, environ ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
	cmd.Env = append(append(os.Environ(), "PATH="+s.path), environ...)
	cmd.Stdin = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // psql would read passwords from the terminal
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	if text := string(out); strings.Contains(text, "not permitted") {
		t.Errorf("%s\n%s", command, text)
	}
	return string(out)
}

// deliver has an event of each kind of owner arrive.
func (s *site) deliver(t *testing.T, source string, run []string) {
	t.Helper()
	bodies := make(chan string, 20)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
	}))
	t.Cleanup(server.Close)
	startChild(t, append(run, "--listen", "off", "--allow-cidr", "127.0.0.0/8")...)
	execAt(t, source, fmt.Sprintf(`UPDATE voip.customer SET web_hook_url = '%s' WHERE name = 'seven';
		INSERT INTO voip.trunk VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000007', 'a', 'hunter2');
		INSERT INTO voip."Call; Route" VALUES ('00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000001', '49');
		INSERT INTO voip.cdr VALUES ('00000000-0000-0000-0000-000000000003', '2026-11-05', '00000000-0000-0000-0000-000000000007', 60)`, server.URL))
	want := []string{`"schema":"customer"`, `"schema":"trunk"`, `"schema":"Call__Route"`, `"schema":"cdr"`}
	for deadline := time.After(patience); len(want) > 0; {
		select {
		case body := <-bodies:
			want = slices.DeleteFunc(want, func(part string) bool { return strings.Contains(body, part) })
		case <-deadline:
			t.Fatalf("did not arrive: %v", want)
		}
	}
}

// failedChecks are doctor's failures.
func failedChecks(t *testing.T, config string) (failed []string) {
	t.Helper()
	out, _ := walhook(t, "doctor", "--json", "--config", config)
	var report struct{ Checks []doctor.Finding }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("doctor: %v\n%s", err, out)
	}
	for _, f := range report.Checks {
		if f.Status == doctor.Failed && f.ID != "config.descriptors" && f.ID != "outbox.durability" { // of this machine, and of a test's server
			failed = append(failed, f.ID)
			t.Logf("%s: %s", f.ID, f.Evidence)
		}
	}
	return failed
}

// execAt runs statements as a superuser.
func execAt(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// findPSQL returns the folder of psql.
func findPSQL(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	path, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("there is no psql here")
	}
	return filepath.Dir(path)
}
