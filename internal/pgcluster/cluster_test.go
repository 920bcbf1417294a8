package pgcluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func one[T any](t *testing.T, c *Cluster, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var value T
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestCluster_IsReadyForLogicalReplication(t *testing.T) {
	t.Parallel()
	c := start(t, Options{NoSync: true, Settings: map[string]string{"cluster_name": "it's set"}})
	for setting, want := range map[string]string{
		"wal_level": "logical", "track_commit_timestamp": "on", "fsync": "off",
		"listen_addresses": "127.0.0.1", "cluster_name": "it's set", "server_encoding": "UTF8",
	} {
		if got := one[string](t, c, "SELECT setting FROM pg_settings WHERE name = '"+setting+"'"); got != want {
			t.Errorf("%s = %q, want %q", setting, got, want)
		}
	}
	if _, err := c.CreateDatabase(t.Context(), `carrier "x"`); err != nil {
		t.Error(err)
	}
}

func TestCluster_RefusesAWrongPassword(t *testing.T) {
	t.Parallel()
	c := start(t, Options{NoSync: true})
	conn, err := pgx.Connect(t.Context(), strings.Replace(c.URL("postgres"), c.password, "wrong", 1))
	if err == nil {
		_ = conn.Close(t.Context())
		t.Fatal("connected with a wrong password")
	}
}

func TestCluster_KeepsWhatWasCommittedThroughACrash(t *testing.T) {
	t.Parallel()
	c := start(t, Options{NoSync: true})
	if _, err := c.CreateDatabase(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	url, crashed := c.URL("postgres"), c.PID()
	children := childrenOf(crashed)
	if len(children) < 3 {
		t.Fatalf("postmaster has children %v", children)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(children, crashed) {
		if alive(pid) {
			t.Errorf("process %d outlived the crash", pid)
		}
	}
	if c.PID() != 0 || c.Kill() == nil {
		t.Error("a dead server passes for a living one")
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.URL("postgres") != url {
		t.Error("the address changed")
	}
	if one[int](t, c, `SELECT count(*) FROM pg_database WHERE datname = 'kept'`) != 1 {
		t.Error("what was committed is gone")
	}
	if !strings.Contains(c.Logs(), "recovery") {
		t.Errorf("no crash recovery in the log: %s", c.Logs())
	}
	c.Shutdown()
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestCluster_StopLeavesNothing(t *testing.T) {
	t.Parallel()
	parent := openDir(t)
	c := start(t, Options{NoSync: true, TempDir: parent})
	pid, watchdog := c.PID(), c.home.watchdog.cmd.Process.Pid
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("postgres is in process group %d with us, err %v", group, err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("second stop: %v", err)
	}
	if alive(pid) || alive(watchdog) {
		t.Error("a process is left")
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStart_SaysWhatWentWrong(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"a wrong setting": {Options{NoSync: true, Settings: map[string]string{"wal_level": "loud"}}, "wal_level"},
		"an empty folder": {Options{BinDir: "/nonexistent"}, "no initdb there"},
		"an old version":  {Options{Major: 13, NoFetch: true}, "PostgreSQL 13 wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := openDir(t)
			test.options.TempDir = parent
			c, err := Start(t.Context(), test.options)
			if err == nil {
				_ = c.Stop()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not say %q", err, test.want)
			}
			if left, _ := os.ReadDir(parent); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// openDir is a folder that the server's user can enter, as the test's own
// temporary folder may not be.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walhook-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Clean(dir)
}
