package cdc

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// slotSynchronisation is the first major version that keeps logical slots on
// standbys. Before it, a promoted standby has no slot, which is a gap.
const slotSynchronisation = 17

func TestReader_FollowsAPromotedStandby(t *testing.T) {
	t.Parallel()
	if version := serverVersion(t); version < slotSynchronisation*10000 {
		t.Skipf("PostgreSQL %d has no slots on standbys; .ci/matrix runs this test on 17 and 18", version/10000)
	}
	settings := map[string]string{"hot_standby": "on", "sync_replication_slots": "on", "hot_standby_feedback": "on"}
	primary := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: settings})
	db := pgtest.NewDatabase(t, primary)
	standby := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: settings})
	w := unprepared(t, db, "")
	w.exec(t, "SELECT pg_create_physical_replication_slot('standby', true)")
	data := one[string](t, w, "SHOW data_directory")
	becomeStandby(t, w, primary, standby, data)
	w.cfg.URL = severalHosts(t, w.cfg.URL, primary.Port(), standby.Port())
	w.setup(t)

	r := w.start(t)
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'before')")
	w.settle(t)
	onStandby := connectTo(t, standby.URL(db.Name))
	eventually(t, "the slot on the standby", patience, func() bool {
		var synced bool
		const sql = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary AND confirmed_flush_lsn >= $2::text::pg_lsn)"
		if err := onStandby.QueryRow(t.Context(), sql, w.cfg.Slot, w.confirmed(t).String()).Scan(&synced); err != nil {
			t.Fatal(err)
		}
		return synced
	})
	w.exec(t, "INSERT INTO items VALUES (2, 7, 'on both')")
	w.settle(t)
	stored := w.store.flush()
	eventually(t, "the standby's WAL", patience, func() bool {
		var there bool
		if err := onStandby.QueryRow(t.Context(), "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", stored.String()).Scan(&there); err != nil {
			t.Fatal(err)
		}
		return there
	})
	w.log = quiet
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	execOn(t, onStandby, "SELECT pg_promote()")
	w.conn, w.watch = connectTo(t, standby.URL(db.Name)), connectTo(t, standby.URL(db.Name))
	w.exec(t, "INSERT INTO items VALUES (3, 7, 'after')")
	w.settle(t)
	wantLines(t, w.lines(), []string{
		"insert public.items new(id*=1 user_id=7 name=before)",
		"insert public.items new(id*=2 user_id=7 name=on both)",
		"insert public.items new(id*=3 user_id=7 name=after)",
	})
	if err := r.stop(); err != nil || len(w.store.gaps) > 0 {
		t.Errorf("a promotion was taken for a gap: %v, %v", err, w.store.gaps)
	}
}

func serverVersion(t *testing.T) (version int) {
	t.Helper()
	conn := connectTo(t, pgtest.Cluster(t).URL("postgres"))
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		t.Fatal(err)
	}
	return version
}

func connectTo(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// becomeStandby gives one server a copy of the other's data and lets it follow.
func becomeStandby(t *testing.T, w *world, primary, standby *pgcluster.Cluster, data string) {
	t.Helper()
	var own string
	if err := connectTo(t, standby.URL("postgres")).QueryRow(t.Context(), "SHOW data_directory").Scan(&own); err != nil {
		t.Fatal(err)
	}
	standby.Shutdown()
	conf, err := os.ReadFile(filepath.Join(own, "postgresql.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	primary.Shutdown()
	copyFolder(t, data, own)
	// Physical replication has lines of its own. The copy has the primary's
	// password, which the standby's URL does not know.
	writeFile(t, filepath.Join(data, "pg_hba.conf"), "host all,replication all 127.0.0.1/32 scram-sha-256\n")
	writeFile(t, filepath.Join(own, "pg_hba.conf"), "host all,replication all 127.0.0.1/32 trust\n")
	if err := primary.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.conn, w.watch = w.Connect(t), w.Connect(t)
	writeFile(t, filepath.Join(own, "postgresql.conf"), fmt.Sprintf("%s\nprimary_conninfo = '%s'\nprimary_slot_name = 'standby'\n",
		conf, primary.URL("postgres")))
	writeFile(t, filepath.Join(own, "standby.signal"), "")
	if err := standby.Restart(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, standby.Logs())
	}
}

// writeFile writes a file that the server's user can read.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// severalHosts names two servers in one URL, the second as the fallback.
func severalHosts(t *testing.T, database string, ports ...int) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", ports[0], ports[1])
	return u.String()
}
