package cdc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"walhook/cdc/source"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

const anotherCatalog = `
account: {table: public.users, id: id, url: web_hook_url}
schemas:
  items: {table: public.items, owner: id, fields: [id]}
`

// The reader reports every mismatch before it reads, and stores a gap.
func TestReader_RefusesToStartWhereItCannotContinue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(*testing.T, *world) // after rows were stored and the reader stopped
		gap   string                   // part of the reason; "" when it is a fault
		fault string                   // part of the problem
		fix   string
	}{
		{
			name:  "the slot is missing",
			spoil: func(t *testing.T, w *world) { w.dropSlot(t) },
			gap:   "no longer exists",
		},
		{
			name: "the slot was made anew",
			spoil: func(t *testing.T, w *world) {
				w.dropSlot(t)
				one[string](t, w, "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')", w.cfg.Slot)
			},
			gap: "advanced or recreated",
		},
		{
			name: "the slot was advanced",
			spoil: func(t *testing.T, w *world) {
				w.exec(t, "INSERT INTO items VALUES (100, 7, 'skipped')")
				one[string](t, w, "SELECT end_lsn::text FROM pg_replication_slot_advance($1, pg_current_wal_lsn())", w.cfg.Slot)
			},
			gap: "advanced or recreated",
		},
		{
			name:  "the outbox was restored from an older backup",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint.Flush -= 8 },
			gap:   "advanced or recreated",
		},
		{
			name:  "another database system",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint.Source.SystemID = "1" },
			gap:   "another database system",
		},
		{
			name:  "the WAL ends before what was stored",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint.Flush += 1 << 40 },
			gap:   "rewound or restored",
		},
		{
			name:  "the WAL ends inside the transaction that was stored",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint.Position.Commit += 1 << 40 },
			gap:   "rewound or restored",
		},
		{
			name:  "a timeline that this one does not come from",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint.Source.Timeline = 9 },
			gap:   "does not come from timeline 9",
		},
		{
			name: "another transaction where one was stored",
			spoil: func(t *testing.T, w *world) {
				w.store.checkpoint.Flush = w.confirmed(t)
				w.exec(t, "INSERT INTO items VALUES (100, 7, 'x')")
				w.store.checkpoint.Position = schemas.Position{Commit: w.walEnd(t) - 8, Ordinal: 1}
				w.exec(t, "INSERT INTO items VALUES (101, 7, 'x')")
			},
			gap: "not the one that was read",
		},
		{
			name: "a change made while the publication was missing",
			spoil: func(t *testing.T, w *world) {
				w.exec(t, "DROP PUBLICATION walhook", "INSERT INTO items VALUES (100, 7, 'x')", "CREATE PUBLICATION walhook FOR ALL TABLES")
			},
			gap: "dropped and recreated",
		},
		{
			name:  "a slot without a stored position",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint = schemas.Checkpoint{} },
			fault: "without a stored position", fix: "pg_drop_replication_slot",
		},
		{
			name: "a source that was not prepared",
			spoil: func(t *testing.T, w *world) {
				w.dropSlot(t)
				w.store.checkpoint = schemas.Checkpoint{}
			},
			fault: "not prepared", fix: "walhook setup",
		},
		{
			name: "a slot of another kind",
			spoil: func(t *testing.T, w *world) {
				w.dropSlot(t)
				one[string](t, w, "SELECT slot_name::text FROM pg_create_physical_replication_slot($1)", w.cfg.Slot)
				t.Cleanup(func() { // no database holds it that would be dropped with it
					_, _ = w.conn.Exec(context.Background(), "SELECT pg_drop_replication_slot($1)", w.cfg.Slot)
				})
			},
			fault: "not a pgoutput slot", fix: "--slot",
		},
		{
			name: "a slot of another database",
			spoil: func(t *testing.T, w *world) {
				other := pgtest.Database(t)
				other.Exec(t, testTables+"CREATE PUBLICATION walhook FOR ALL TABLES")
				w.cfg.URL = other.URL
			},
			fault: "belongs to database", fix: "--source",
		},
		{
			name:  "another slot",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint.Source.Slot = "other" },
			fault: "follows slot other", fix: "--slot",
		},
		{
			name:  "another publication",
			spoil: func(_ *testing.T, w *world) { w.store.checkpoint.Source.Publication = "other" },
			fault: "follows publication other", fix: "--publication",
		},
		{
			name: "another database, which has no slot",
			spoil: func(t *testing.T, w *world) {
				w.exec(t, "SELECT pg_drop_replication_slot('"+w.cfg.Slot+"')")
				w.store.checkpoint.Source.Database = "other"
			},
			fault: "follows database other", fix: "--source",
		},
		{
			name:  "no publication",
			spoil: func(t *testing.T, w *world) { w.exec(t, "DROP PUBLICATION walhook") },
			gap:   "publication walhook does not exist",
		},
		{
			name:  "a narrowed publication",
			spoil: func(t *testing.T, w *world) { w.narrow(t) },
			gap:   "does not contain public.items",
		},
		{
			name:  "a publication of inserts only",
			spoil: func(t *testing.T, w *world) { w.exec(t, "ALTER PUBLICATION walhook SET (publish = 'insert')") },
			gap:   "does not publish every",
		},
		{
			name: "a publication that holds the outbox",
			spoil: func(t *testing.T, w *world) {
				w.exec(t, "CREATE SCHEMA walhook", "CREATE TABLE walhook.event (id int)")
			},
			fault: "the outbox's own tables", fix: "only the catalog's tables",
		},
		{
			name:  "a changed catalog",
			spoil: func(t *testing.T, w *world) { w.cfg.Catalog = catalogOf(t, anotherCatalog) },
			fault: "are not those of the catalog in force", fix: "walhook setup",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			r := w.start(t)
			w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')")
			w.settle(t)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the slot to be free", patience, func() bool {
				return one[bool](t, w, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot)
			})
			test.spoil(t, w)
			stored := w.store.flush()
			before := len(w.store.stored())
			w.log = quiet
			err := w.start(t).ends(t)
			if test.gap != "" {
				w.wantGap(t, err, stored, test.gap)
			} else {
				wantFault(t, err, test.fault, test.fix)
				if len(w.store.gaps) > 0 {
					t.Errorf("a gap was noted: %v", w.store.gaps)
				}
			}
			if after := len(w.store.stored()); after > before {
				t.Errorf("%d changes were stored", after-before)
			}
		})
	}
}

func (w *world) dropSlot(t *testing.T) {
	t.Helper()
	w.exec(t, "SELECT pg_drop_replication_slot('"+w.cfg.Slot+"')")
}

// wantGap fails unless err is a gap from the stored flush position that the store has
// too.
func (w *world) wantGap(t *testing.T, err error, from schemas.LSN, reason string) {
	t.Helper()
	gap, ok := errors.AsType[*source.GapError](err)
	if !ok || !strings.Contains(gap.Reason, reason) || !strings.Contains(err.Error(), "--accept-gap") {
		t.Fatalf("error %v, want a gap: %s", err, reason)
	}
	if gap.From != from || gap.Slot != w.cfg.Slot {
		t.Errorf("gap from %s in slot %s, want %s, %s", gap.From, gap.Slot, from, w.cfg.Slot)
	}
	if len(w.store.gaps) != 1 || w.store.gaps[0] != gap.Gap() {
		t.Errorf("noted %v, want %v", w.store.gaps, gap.Gap())
	}
}

func wantGap(t *testing.T, err error, reason string) {
	t.Helper()
	if gap, ok := errors.AsType[*source.GapError](err); !ok || !strings.Contains(gap.Reason, reason) {
		t.Fatalf("error %v, want a gap: %s", err, reason)
	}
}

func wantFault(t *testing.T, err error, problem, fix string) {
	t.Helper()
	fault, ok := errors.AsType[*source.Fault](err)
	if !ok {
		t.Fatalf("error %v, want a fault: %s", err, problem)
	}
	if !strings.Contains(fault.Problem, problem) || !strings.Contains(fault.Fix, fix) {
		t.Errorf("fault %q, to fix by %q; want %q, %q", fault.Problem, fault.Fix, problem, fix)
	}
}

// Another program that advances the slot up to the stored position makes no gap.
func TestReader_ContinuesFromASlotAdvancedToWhatIsStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	r := w.start(t, idleEvery(time.Millisecond))
	w.settle(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot to be free", patience, func() bool {
		return one[bool](t, w, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot)
	})
	one[string](t, w, "SELECT end_lsn::text FROM pg_replication_slot_advance($1, $2::text::pg_lsn)", w.cfg.Slot, w.store.flush().String())
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')")
	w.start(t)
	w.settle(t)
	w.wantIDs(t, 1)
}

// An idle night: nothing published is written, the slot advances, and every morning
// somebody restarts walhook.
func TestReader_AnIdleNightIsNoGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	for range 5 {
		r := w.start(t, idleEvery(time.Millisecond))
		target := w.walEnd(t)
		w.exec(t, "SELECT txid_current()")
		eventually(t, "the slot to follow", patience, func() bool { return w.confirmed(t) > target })
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	w.start(t)
	w.settle(t)
	if len(w.store.gaps) > 0 {
		t.Errorf("noted %v", w.store.gaps)
	}
}

func TestReader_ASlotThatTheServerGaveUpIsAGap(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{
		"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "CREATE UNLOGGED TABLE filler (t text)")
	r := w.start(t)
	w.settle(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	stored := w.store.flush()
	for one[string](t, w, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot) != "lost" {
		w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')", "SELECT pg_switch_wal()", "TRUNCATE items", "CHECKPOINT")
	}
	w.log = quiet
	w.wantGap(t, w.start(t).ends(t), stored, "wal_status lost")
}

// TestCheck_ALostSlotIsNotBlamedOnALimitThatIsNotThere lifts the limit after the
// loss: which reason the server shows depends on its version.
func TestCheck_ALostSlotIsNotBlamedOnALimitThatIsNotThere(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"min_wal_size": "32MB", "max_wal_size": "32MB"}})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "CREATE UNLOGGED TABLE filler (t text)")
	limit := func(size string) {
		t.Helper()
		w.exec(t, "ALTER SYSTEM SET max_slot_wal_keep_size = '"+size+"'", "SELECT pg_reload_conf()")
		eventually(t, "the limit", patience, func() bool { return one[string](t, w, "SHOW max_slot_wal_keep_size") == size })
	}
	limit("1MB")
	for one[string](t, w, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot) != "lost" {
		w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')", "SELECT pg_switch_wal()", "TRUNCATE items", "CHECKPOINT")
	}
	limit("-1")
	gap, ok := errors.AsType[*source.GapError](w.start(t).ends(t))
	if !ok || !strings.Contains(gap.Reason, "wal_status lost") {
		t.Fatalf("%v, want a lost slot", gap)
	}
	why, named := gap.Reason, one[int](t, w, "SELECT current_setting('server_version_num')::int") >= 170000
	if strings.Contains(why, "exceeded") != named || !strings.Contains(why, "is now -1") {
		t.Errorf("it says %q", why)
	}
}

func TestRun_ASlotGivenUpForBeingIdleIsNotBlamedOnItsSize(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "CREATE TABLE filler (t text)")
	if one[int](t, w, "SELECT current_setting('server_version_num')::int") < 180000 {
		t.Skip("PostgreSQL 18 and newer give up idle slots")
	}
	r := w.start(t)
	w.settle(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	stored := w.store.flush()
	w.exec(t, "ALTER SYSTEM SET idle_replication_slot_timeout = '1s'", "SELECT pg_reload_conf()")
	for one[string](t, w, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot) != "lost" {
		w.exec(t, "SELECT pg_sleep(0.5)", "CHECKPOINT")
	}
	w.log = quiet
	w.wantGap(t, w.start(t).ends(t), stored, "idle_replication_slot_timeout")
}
