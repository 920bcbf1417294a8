package cdc

import (
	"testing"
	"time"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

func TestReader_IsNeverASynchronousStandby(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	for _, names := range []string{"*", "ANY 1 (*)", "FIRST 1 (walhook)"} {
		t.Run(names, func(t *testing.T) {
			w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "SET synchronous_commit = local; SELECT 1")
			w.exec(t, "SET synchronous_commit = local")
			reader := w.start(t)
			w.settle(t)
			w.exec(t, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'", "SELECT pg_reload_conf()")
			defer func() {
				w.exec(t, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
				if err := reader.stop(); err != nil {
					t.Error(err)
				}
			}()
			confirmed := func() string {
				return one[string](t, w, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot)
			}
			before, moved := confirmed(), 0
			for begun := time.Now(); moved < 3; {
				w.exec(t, "INSERT INTO items VALUES ((SELECT coalesce(max(id), 0) + 1 FROM items), 7, 'x')")
				// The server saves the slot between the two updates of a report.
				eventually(t, "sync_state async", patience, func() bool {
					return one[string](t, w, `SELECT r.sync_state FROM pg_stat_replication r
						JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1`, w.cfg.Slot) == "async"
				})
				if now := confirmed(); now != before {
					before, moved = now, moved+1
				}
				if time.Since(begun) > patience {
					t.Fatal("the slot does not move")
				}
				time.Sleep(5 * time.Millisecond) // which leaves the processor to others
			}
			// Its own confirmation is the most that a commit waits for.
			other := w.Connect(t)
			begun := time.Now()
			if _, err := other.Exec(t.Context(), "INSERT INTO items VALUES (1000000, 7, 'x')"); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("a commit took %s", took)
			}
		})
	}
}
