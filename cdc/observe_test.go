package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"walhook/cdc/source"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

func watchOften(r *Reader) { r.watchEvery = 20 * time.Millisecond }

// The outbox is away, and the slot fills the source's disk. No process reads then, but
// the metrics must rise.
func TestMetrics_TellWhatTheSlotKeepsWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.log = quiet
	w.store.hook(func(context.Context, schemas.Batch) error { return errors.New("the outbox is away") }, nil)
	r := w.start(t, watchOften)
	w.exec(t, "INSERT INTO users VALUES (1, 'x')")
	eventually(t, "the fault, and a look at the slot", patience, func() bool { // NaN before the first
		return testutil.ToFloat64(r.metrics.reconnects) > 1 && testutil.ToFloat64(r.metrics.retained) >= 0
	})
	before := testutil.ToFloat64(r.metrics.retained)
	if limit := testutil.ToFloat64(r.metrics.limit); !math.IsInf(limit, 1) {
		t.Errorf("limit %g on a server that has none", limit)
	}
	const grown = 2 << 20
	w.exec(t, "INSERT INTO items SELECT n, 1, repeat('x', 1000) FROM generate_series(1, 2000) n")
	eventually(t, "retained and lag rise", patience, func() bool {
		return testutil.ToFloat64(r.metrics.retained) > before+grown && r.metrics.lagBytes() > grown && r.metrics.lagSeconds(time.Now()) > 0
	})

	w.store.hook(nil, nil)
	w.settle(t)
	eventually(t, "the lag ends", patience, func() bool { return r.metrics.lagBytes() < grown && r.metrics.lagSeconds(time.Now()) == 0 })
}

func TestMetrics_TellTheSlotsLimitAndWhatItsServerSaysOfIt(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"max_slot_wal_keep_size": "512MB"}})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "")
	w.log = quiet
	r := w.start(t, watchOften)
	r.reads(t, patience)
	status := func(name string) float64 { return testutil.ToFloat64(r.metrics.slot.WithLabelValues(name)) }
	eventually(t, "the slot is reserved", patience, func() bool { return status("reserved") == 1 && status("lost") == 0 })
	if limit := testutil.ToFloat64(r.metrics.limit); limit != 512<<20 {
		t.Errorf("limit %g", limit)
	}

	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is known", patience, func() bool {
		return math.IsNaN(testutil.ToFloat64(r.metrics.retained)) && math.IsNaN(r.metrics.lagBytes()) && status("reserved") == 0
	})
}

func TestMetrics_OfAStandbyAreOfTheSameSlotAndNotOfItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.log = quiet
	first := w.start(t, watchOften)
	first.reads(t, patience)
	standby := w.start(t, watchOften)
	eventually(t, "standby", patience, func() bool { return standby.State() == Standby })
	eventually(t, "a standby that the source names", patience, func() bool {
		report, err := source.ReportSlot(t.Context(), standby.cfg)
		return err == nil && len(report.Waiting) == 1 && report.Waiting[0].PID != report.Reader.PID && !report.Reader.Foreign()
	})
	standby.metrics.oldest.Store(time.Now().Add(-time.Hour).UnixNano()) // of the time when it read
	w.exec(t, "INSERT INTO items SELECT n, 1, repeat('x', 1000) FROM generate_series(1, 3000) n")
	w.settle(t)
	// Other tests write to the same WAL, which the slot's reader confirms in time.
	eventually(t, "next to no lag", patience, func() bool {
		return testutil.ToFloat64(standby.metrics.retained) > 0 && standby.metrics.lagSeconds(time.Now()) < 60 &&
			standby.metrics.lagBytes() < 256<<20 // false of NaN
	})
}

// TestLag_IsOfWhatIsStoredWhateverAnotherProgramConfirms has a foreign program
// read the slot and confirm a change that the store never got.
func TestLag_IsOfWhatIsStoredWhateverAnotherProgramConfirms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.log = quiet
	first := w.start(t)
	w.settle(t)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	stored := w.store.flush()
	config, err := pgconn.ParseConfig(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"], config.RuntimeParams["application_name"] = "database", "pg_recvlogical"
	var foreign *pgconn.PgConn
	eventually(t, "the slot for the other program", patience, func() bool {
		if foreign, err = pgconn.ConnectConfig(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		err = pglogrepl.StartReplication(t.Context(), foreign, w.cfg.Slot, 0, pglogrepl.StartReplicationOptions{
			Mode: pglogrepl.LogicalReplication, PluginArgs: []string{"proto_version '1'", "publication_names 'walhook'"}})
		if err != nil { // the first reader's session ends
			_ = foreign.Close(t.Context())
		}
		return err == nil
	})
	defer foreign.Close(t.Context())
	standby := w.start(t, watchOften)
	eventually(t, "standby", patience, func() bool { return standby.State() == Standby })

	w.exec(t, "INSERT INTO items VALUES (1, 7, 'never stored')")
	row := schemas.LSN(one[int64](t, w, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"))
	eventually(t, "the slot beyond the change", patience, func() bool {
		if err := pglogrepl.SendStandbyStatusUpdate(t.Context(), foreign, pglogrepl.StandbyStatusUpdate{WALWritePosition: pglogrepl.LSN(row)}); err != nil {
			t.Fatal(err)
		}
		return w.confirmed(t) >= row
	})
	for i := range 3 { // looks at the source that come after that
		end := standby.metrics.serverEnd.Load()
		w.exec(t, fmt.Sprintf("INSERT INTO items VALUES (%d, 7, 'nor this')", 2+i))
		eventually(t, "a look", patience, func() bool { return standby.metrics.serverEnd.Load() > end })
	}
	if got := standby.metrics.lagBytes(); !(got >= float64(row-stored)) {
		t.Errorf("lag of %g bytes, %d are not stored", got, row-stored)
	}
	if got := standby.metrics.lagSeconds(time.Now().Add(time.Minute)); !(got >= 60) {
		t.Errorf("lag of %g s in a minute", got)
	}

	// Another walhook that stores it all ends the lag.
	w.store.mu.Lock()
	w.store.checkpoint.Flush = schemas.LSN(1 << 62)
	w.store.mu.Unlock()
	eventually(t, "no lag", patience, func() bool { return standby.metrics.lagBytes() == 0 })
	if got := standby.metrics.lagSeconds(time.Now().Add(time.Minute)); got != 0 {
		t.Errorf("lag of %g s where all is stored", got)
	}
}

// TestLag_OfAnUnknownPositionIsNoNumber has a store that was never reached.
func TestLag_OfAnUnknownPositionIsNoNumber(t *testing.T) {
	t.Parallel()
	m := newMetrics(prometheus.NewRegistry(), func() State { return Connecting })
	m.answers.Store(true)
	m.serverEnd.Store(100)
	if got := m.lagBytes(); !math.IsNaN(got) {
		t.Errorf("%g bytes", got)
	}
}

// On a source where nothing is written the log ends where everything is stored.
func TestObserver_StoresWhereTheWALEndedAndWhen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.start(t, watchOften, func(r *Reader) { r.idleEvery = 20 * time.Millisecond })
	var last time.Time
	for range 3 {
		w.exec(t, "INSERT INTO items SELECT coalesce(max(id), 0) + 1, 7, 'x' FROM items")
		committed := one[time.Time](t, w, "SELECT clock_timestamp()")
		w.store.wait(t, "an instant after the commit, at a place that is stored", func() bool {
			return w.store.seenAt.After(committed) && w.store.seenEnd <= w.store.checkpoint.Flush
		})
		w.store.mu.Lock()
		stored, at := len(w.store.changes), w.store.seenAt
		w.store.mu.Unlock()
		if want := one[int](t, w, "SELECT count(*)::int FROM items"); stored != want {
			t.Errorf("%d changes are stored where the log of %d is said to be", stored, want)
		}
		if !at.After(last) {
			t.Errorf("the instant goes from %s to %s", last, at)
		}
		last = at
	}
}

// Between two tries after a fault, the metrics still show whether the source answers.
func TestReader_SeesTheSourceWhileItWaitsBetweenTwoTries(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "")
	name := "role_" + w.Name
	w.cfg.URL = w.role(t, "REPLICATION")
	r, err := New(w.cfg, w.store, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r.watchEvery = 20 * time.Millisecond
	if err := r.Run(t.Context()); err == nil { // nothing is set up
		t.Fatal("the reader read")
	}
	ctx, stop := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() { r.Pause(ctx, time.Hour) })
	defer waiting.Wait()
	defer stop()
	eventually(t, "the source answers", patience, r.metrics.answers.Load)
	w.exec(t, "ALTER ROLE "+name+" NOLOGIN", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+name+"'")
	eventually(t, "the source does not answer", patience, func() bool { return !r.metrics.answers.Load() })
	w.exec(t, "ALTER ROLE "+name+" LOGIN")
	eventually(t, "the source answers again", patience, r.metrics.answers.Load)
}

// TestLag_RisesWhileTheSourceIsAway ends the source's server at once, as by 'pg_ctl
// stop -m immediate', and starts a second reader meanwhile.
func TestLag_RisesWhileTheSourceIsAway(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "")
	w.log = quiet
	r := w.start(t, watchOften)
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')")
	w.settle(t)
	lag := func(r *run) float64 { return r.metrics.lagSeconds(time.Now()) }
	before := time.Now()
	eventually(t, "no lag at a look from here on", patience, func() bool {
		return look(w.store, func() bool { return w.store.seenAt.After(before) }) && lag(r) == 0
	})
	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	w.store.mu.Lock()
	w.store.advanced = killed
	w.store.mu.Unlock()
	// The second one starts while the source is away, and the store knows since when.
	other := w.start(t, watchOften)
	for _, reader := range []struct {
		*run
		name  string
		since time.Time // when all was stored, or later
	}{{r, "that read", before}, {other, "that starts meanwhile", killed}} {
		last := 0.0
		for _, want := range []float64{0.5, 1, 2} {
			eventually(t, "the lag rises of the reader "+reader.name, patience, func() bool { return lag(reader.run) >= want })
			if now := lag(reader.run); now < last || now > time.Since(reader.since).Seconds()+1 {
				t.Errorf("the lag of the reader %s is %g after %s, and was %g", reader.name, now, time.Since(reader.since), last)
			} else {
				last = now
			}
		}
	}
	if err := cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lag ends", patience, func() bool { return lag(r) == 0 || lag(other) == 0 })
}

// TestLag_TellsSoonThatTheSourceIsAway has a reader that rarely queries the slot.
func TestLag_TellsSoonThatTheSourceIsAway(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "")
	w.log = quiet
	r := w.start(t, func(r *Reader) { r.watchEvery = time.Hour })
	r.reads(t, patience)
	w.settle(t)
	eventually(t, "no lag", patience, func() bool { return r.metrics.answers.Load() && r.metrics.lagSeconds(time.Now()) == 0 })
	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lag rises", patience, func() bool { return !r.metrics.answers.Load() && r.metrics.lagSeconds(time.Now()) > 0 })
}

// TestLag_IsByOneClock has transactions whose commit time is by another clock, such as
// the source's, or that of a server which the source replicates.
func TestLag_IsByOneClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.log = quiet
	r := w.start(t, watchOften)
	r.reads(t, patience)
	blocked, release := make(chan schemas.Batch), make(chan struct{})
	holdBack := func(before func(context.Context, schemas.Batch) error) {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		w.store.before = before
	}
	holdBack(func(ctx context.Context, batch schemas.Batch) error {
		if len(batch.Changes) == 0 {
			return nil
		}
		select {
		case blocked <- batch:
		case <-ctx.Done():
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	origin := "clock_" + w.cfg.Slot
	w.exec(t, "SELECT pg_replication_origin_create('"+origin+"')", "SELECT pg_replication_origin_session_setup('"+origin+"')")
	for i, at := range []string{"2001-01-01 00:00:00+00", "2099-01-01 00:00:00+00"} {
		w.exec(t, fmt.Sprintf("BEGIN; SELECT pg_replication_origin_xact_setup('0/%d', '%s'); INSERT INTO items VALUES (%d, 7, 'x'); COMMIT", i+1, at, i+1))
		batch := <-blocked
		if committed := batch.Changes[0].CommittedAt; time.Since(committed).Abs() < 24*time.Hour {
			t.Fatalf("committed at %s: the test proves nothing", committed)
		}
		began := time.Now()
		eventually(t, "the lag of what waits rises", patience, func() bool { return r.metrics.lagSeconds(time.Now()) > 0.2 })
		if lag := r.metrics.lagSeconds(time.Now()); lag > time.Since(began).Seconds()+60 {
			t.Errorf("a change of %s waits for %g s, and was received %s ago", at, lag, time.Since(began))
		}
		release <- struct{}{}
	}
	holdBack(nil)
	w.exec(t, "SELECT pg_replication_origin_session_reset()", "SELECT pg_replication_origin_drop('"+origin+"')")
	w.settle(t)
	eventually(t, "nothing waits", patience, func() bool { return r.metrics.lagSeconds(time.Now()) == 0 })
}
