package cdc

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

func TestSyncNames_AreReadAsTheServerReadsThem(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		value string
		takes bool
		fix   string
	}{
		{"", false, `FIRST 1 ("a", "b c")`},
		{"*", true, `FIRST 1 ("a", "b c")`},
		{"ANY 1 (*)", true, `ANY 1 ("a", "b c")`},
		{`any 2("*")`, true, `ANY 2 ("a", "b c")`},
		{"ANY 9 (*)", true, `ANY 2 ("a", "b c")`},
		{"r1, WalHook", true, `FIRST 1 ("r1")`},
		{"2 (r1, r2, walhook)", true, `FIRST 2 ("r1", "r2")`},
		{`FIRST 1 ("wal""hook", "x,walhook")`, false, `FIRST 1 ("wal""hook", "x,walhook")`},
		{`FIRST 1 ("x (y", "walhook")`, true, `FIRST 1 ("x (y")`},
		{"walhook2", false, `FIRST 1 ("walhook2")`},
		{"walhook", true, `FIRST 1 ("a", "b c")`},
	} {
		s := parseSyncNames(test.value)
		if got := s.takes("walhook"); got != test.takes {
			t.Errorf("%s: takes walhook: %t", test.value, got)
		}
		if got := s.without([]string{"a", "b c"}); got != test.fix {
			t.Errorf("%s: the fix is %s, want %s", test.value, got, test.fix)
		}
	}
}

// syncWorld is a server of its own whose commits wait for walhook.
func syncWorld(t *testing.T, names string) *world {
	t.Helper()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "CREATE TABLE other (n int)")
	execOn(t, w.watch, "SET synchronous_commit = local")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.URL) // the test's context has ended
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		for _, sql := range []string{"ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"} {
			if _, err := conn.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
	})
	execOn(t, w.watch, "ALTER SYSTEM SET synchronous_standby_names = "+doctor.QuoteLiteral(names), "SELECT pg_reload_conf()")
	return w
}

func TestSyncStandby_CommitsOfTheSourceDoNotWaitLong(t *testing.T) {
	t.Parallel()
	for _, names := range []string{"*", "ANY 1 (walhook, nobody)"} {
		t.Run(names, func(t *testing.T) {
			t.Parallel()
			w := syncWorld(t, names)
			w.start(t)
			eventually(t, "walhook as a synchronous standby", patience, func() bool {
				state := one[string](t, w, "SELECT coalesce(max(sync_state), '') FROM pg_stat_replication WHERE state = 'streaming'")
				return state == "sync" || state == "quorum"
			})
			sleep(t.Context(), 2*standbyEvery)
			for what, sql := range map[string]string{"a published row": "INSERT INTO items SELECT coalesce(max(id), 0) + 1, 7, 'x' FROM items", "the outbox's or another's": "SELECT txid_current(), pg_logical_emit_message(false, 'x', 'y')"} {
				var took []time.Duration
				for range 9 {
					began := time.Now()
					w.exec(t, sql)
					took = append(took, time.Since(began))
				}
				if slices.Sort(took); took[len(took)/2] > 150*time.Millisecond {
					t.Errorf("%s: commits took %v", what, took)
				}
			}
		})
	}
}

// The store is away: commits go on with the standbys that there are.
func TestSyncStandby_AReaderThatCannotStoreLetsCommitsGoAndComesBack(t *testing.T) {
	t.Parallel()
	w := syncWorld(t, "*")
	w.log = quiet
	r := w.start(t)
	r.reads(t, patience)
	sleep(t.Context(), 2*standbyEvery)
	w.settle(t)
	release := w.store.block()
	execOn(t, w.watch, "INSERT INTO items VALUES (1, 7, 'x')")
	senders := func() int { return one[int](t, w, "SELECT count(*)::int FROM pg_stat_replication") }
	eventually(t, "walhook to be no standby", holdsAtMost+5*time.Second, func() bool { return senders() == 0 })
	release()
	w.settle(t)
	w.wantIDs(t, 1)
}

func TestSyncStandby_SetupWarnsAndDoctorFailsWithTheStatement(t *testing.T) {
	t.Parallel()
	w := syncWorld(t, "ANY 1 (replica, walhook)")
	w.start(t)
	eventually(t, "setup's warning", patience, func() bool {
		plan, err := PlanSetup(t.Context(), w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(plan.Warnings, func(s string) bool { return strings.Contains(s, `ANY 1 ("replica")`) })
	})
	stored := func(context.Context) (schemas.Checkpoint, error) {
		return look(w.store, func() schemas.Checkpoint { return w.store.checkpoint }), nil
	}
	for _, finding := range Examine(t.Context(), w.cfg, stored, doctor.Options{}) {
		if finding.ID != checkSyncStandby {
			continue
		}
		if finding.Status != doctor.Failed || len(finding.Mend) != 2 || !strings.Contains(finding.Evidence, "sync_state") ||
			finding.Mend[0].Text != `ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ("replica")'` {
			t.Errorf("doctor says %+v", finding)
		}
		return
	}
	t.Error("doctor has no such check")
}
