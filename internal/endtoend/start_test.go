package endtoend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walhook/internal/carrier"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// TestStart_SaysWhatIsWrongAndWhatToDo goes through what can be wrong when
// walhook is started. Each has one line that names it and its remedy, and the
// exit code of the contract.
func TestStart_SaysWhatIsWrongAndWhatToDo(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	empty := pgtest.Database(t)
	slot := "start_" + db.Name

	db.Exec(t, `CREATE ROLE no_replication_`+db.Name+` LOGIN PASSWORD 'pw'`)
	weak := withUser(t, db.URL, "no_replication_"+db.Name, "pw")
	db.Exec(t, `SELECT pg_create_logical_replication_slot('orphan_`+db.Name+`', 'pgoutput')`)
	badCatalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(badCatalog, []byte("account: {table: users}\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name string
		args []string
		exit int
		want []string // in the error
	}{
		{"no such database", []string{"setup", "--source", strings.Replace(db.URL, db.Name, "nowhere", 1)}, exitFault,
			[]string{"database does not exist", "--source"}},
		{"wrong password", []string{"setup", "--source", withUser(t, db.URL, "no_replication_"+db.Name, "wrong")}, exitFault,
			[]string{"refuses the role or its password", "--source"}},
		{"no replication privilege", []string{"setup", "--source", weak}, exitFault,
			[]string{"lacks REPLICATION", "ALTER ROLE", "REPLICATION"}},
		{"source not prepared", []string{"run", "--source", db.URL, "--slot", slot, "--listen", "off"}, exitFault,
			[]string{"not set up", "walhook setup", "--setup"}},
		{"slot without a stored position", []string{"setup", "--source", db.URL, "--slot", "orphan_" + db.Name}, exitFault,
			[]string{"without a stored position", "pg_drop_replication_slot", "--slot"}},
		{"account table missing", []string{"setup", "--source", empty.URL}, exitFault,
			[]string{"account table public.users does not exist", "--catalog"}},
		{"several bad settings at once", []string{"run", "--source", db.URL, "--slot", "Bad-Slot", "--retention", "1m", "--allow-cidr", "10.0.0.0"}, exitUsage,
			[]string{"--slot", "--retention", "--allow-cidr"}},
		{"source missing", []string{"run"}, exitUsage, []string{"source is missing", "WALHOOK_SOURCE"}},
		{"bad catalog", []string{"setup", "--source", db.URL, "--catalog", badCatalog}, exitUsage,
			[]string{"account: id is missing", "account: url is missing"}},
		{"unknown flag", []string{"run", "--sorce", "x"}, exitUsage, []string{"--sorce", "--help"}},
		{"outbox database missing", []string{"setup", "--source", db.URL, "--slot", slot, "--outbox", strings.Replace(db.URL, db.Name, "nowhere", 1)}, exitFault,
			[]string{"outbox's database does not exist", "--outbox"}},
		{"sender without an outbox that is set up", []string{"run", "--role", "sender", "--outbox", empty.URL, "--listen", "off"}, exitFault,
			[]string{"not set up", "walhook setup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantFault(t, c.exit, c.want, c.args...)
		})
	}
	t.Run("wal_level is not logical", func(t *testing.T) {
		t.Parallel()
		cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"wal_level": "replica"}})
		wantFault(t, exitFault, []string{"wal_level is replica", "ALTER SYSTEM SET wal_level", "restart"}, "setup", "--source", cluster.URL("postgres"))
	})
}

func wantFault(t *testing.T, exit int, want []string, args ...string) {
	t.Helper()
	out, err := childCommand(t, args...).CombinedOutput()
	if err == nil {
		t.Fatalf("walhook %s succeeded:\n%s", strings.Join(args, " "), out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var fault string
	for i, line := range lines {
		if strings.HasPrefix(line, "walhook: ") {
			fault = strings.Join(lines[i:], "\n")
			break
		}
	}
	if code := exitCodeOf(err); code != exit {
		t.Errorf("exit code %d, want %d", code, exit)
	}
	for _, text := range want {
		if !strings.Contains(fault, text) {
			t.Errorf("the error lacks %q:\n%s", text, out)
		}
	}
	if strings.Contains(string(out), "pw@") || strings.Contains(string(out), "wrong@") {
		t.Errorf("a password is shown:\n%s", out)
	}
}
