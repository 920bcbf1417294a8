package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// readyText is what /readyz answers.
func readyText(address string) string {
	resp, err := http.Get("http://" + address + "/readyz")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // what came of it, the test compares
	return resp.Status + " " + string(text)
}

func (p *childProcess) wholeLog(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.logs)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSlot_AnotherProgramThatReadsItIsNamed stops walhook and has another program read its
// slot.
func TestSlot_AnotherProgramThatReadsItIsNamed(t *testing.T) {
	t.Parallel()
	w := newHeldWorld(t)
	mustRun(t, append([]string{"setup"}, w.settings...)...)
	first := w.run(t)
	status := func() string { return mustRun(t, append([]string{"status"}, w.settings[:4]...)...) }
	eventually(t, 10*time.Second, func() bool { return strings.Contains(status(), "application walhook") })
	if text := status(); strings.Contains(text, "NONE") {
		t.Errorf("a publisher runs, and status says:\n%s", text)
	}
	first.stop(t)
	wantText(t, "status without a reader", status(), "NOT READ BY ANY PROCESS", "NONE; the last was")

	config, err := pgconn.ParseConfig(w.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"], config.RuntimeParams["application_name"] = "database", "pg_recvlogical"
	other, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	slot := w.settings[3]
	err = pglogrepl.StartReplication(t.Context(), other, slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: []string{"proto_version '1'", "publication_names 'walhook'"}})
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, "status", status(), "READ BY ANOTHER PROGRAM", "application pg_recvlogical", "NONE; the last was")
	wantText(t, "doctor", doctorSays(t, w.settings...), "FAILED   source.reader", "pg_recvlogical", "pg_terminate_backend")
	second := w.run(t)
	eventually(t, 10*time.Second, func() bool { return strings.Contains(second.wholeLog(t), "another program reads the slot") })
	wantFiring(t, w.address, 8, 50*time.Millisecond, "WalhookNoPublisher")
	wantText(t, "the log", second.wholeLog(t), `"level":"warn"`, `"application":"pg_recvlogical"`, `"pid":`)

	// It confirms a megabyte that walhook never stored.
	const megabyte = `INSERT INTO dids SELECT %d, 7, string_agg(md5(random()::text), '') FROM generate_series(1, 40000)`
	w.db.Exec(t, fmt.Sprintf(megabyte, 1))
	conn := w.db.Connect(t)
	var end string
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	lsn, err := pglogrepl.ParseLSN(end)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() bool {
		if err := pglogrepl.SendStandbyStatusUpdate(t.Context(), other, pglogrepl.StandbyStatusUpdate{WALWritePosition: lsn}); err != nil {
			t.Fatal(err)
		}
		var confirmed bool
		const sql = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1"
		if err := conn.QueryRow(t.Context(), sql, slot, end).Scan(&confirmed); err != nil {
			t.Fatal(err)
		}
		return confirmed
	})
	w.db.Exec(t, fmt.Sprintf(megabyte, 2))
	eventually(t, 30*time.Second, func() bool { return scrape(t, w.address).sum("walhook_source_lag_bytes") > 2<<20 })
}

// TestSlot_AStandbyThatHoldsTheSourceBackIsNamed has the source wait for a
// standby that is away before it sends anything (PostgreSQL 17).
func TestSlot_AStandbyThatHoldsTheSourceBackIsNamed(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{Major: 17, NoSync: true})
	w := newHeldWorldIn(t, pgtest.NewDatabase(t, cluster))
	w.db.Exec(t, `SELECT pg_create_physical_replication_slot('standby_1', true)`)
	w.db.Exec(t, `INSERT INTO users VALUES (7, '`+w.server.URL("7")+`')`)
	mustRun(t, append([]string{"setup"}, w.settings...)...)
	process := w.run(t)
	w.db.Exec(t, `ALTER SYSTEM SET synchronized_standby_slots = 'standby_1'`)
	w.db.Exec(t, `SELECT pg_reload_conf()`)
	time.Sleep(200 * time.Millisecond) // the servers' processes take note by themselves
	w.db.Exec(t, `INSERT INTO dids VALUES (1, 7, 'x')`)
	eventually(t, 30*time.Second, func() bool {
		return scrape(t, w.address).sum("walhook_source_lag_seconds") > 5 && strings.Contains(readyText(w.address), "standby_1")
	})
	if text := readyText(w.address); !strings.HasPrefix(text, "503") {
		t.Errorf("/readyz says %s", text)
	}
	wantText(t, "the log", process.wholeLog(t), "source withholds changes", "standby_1 (which nobody reads)")
	wantText(t, "doctor", doctorSays(t, w.settings...), "FAILED   source.reader", "standby_1 (which nobody reads)", "synchronized_standby_slots")
	wantText(t, "status", mustRun(t, append([]string{"status"}, w.settings[:4]...)...), "HELD BACK", "standby_1")

	w.db.Exec(t, `ALTER SYSTEM RESET synchronized_standby_slots`)
	w.db.Exec(t, `SELECT pg_reload_conf()`)
	eventually(t, 30*time.Second, func() bool {
		return w.server.Count() == 1 && scrape(t, w.address).sum("walhook_source_lag_seconds") == 0 && strings.HasPrefix(readyText(w.address), "200")
	})
}
