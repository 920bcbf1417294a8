package cdc

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// load inserts items 1, 2, 3, … one by one until stop, which returns their number. Pauses
// between bursts leave the processor to others. It repeats an insert whose result a crash of
// the server leaves unknown.
func (w *world) load(t *testing.T) (stop func() int) {
	t.Helper()
	const burst, pause = 20, 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan int, 1)
	go func() {
		n := 0
		var conn *pgx.Conn
		for ctx.Err() == nil {
			var err error
			if conn == nil {
				if conn, err = pgx.Connect(t.Context(), w.URL); err != nil {
					conn = nil
					continue
				}
			}
			// The same id again if it is not known whether it was committed.
			_, err = conn.Exec(t.Context(), fmt.Sprintf("INSERT INTO items VALUES (%d, 7, 'x') ON CONFLICT DO NOTHING", n+1))
			if err == nil {
				if n++; n%burst == 0 {
					time.Sleep(pause)
				}
			} else if conn.IsClosed() {
				conn = nil
			}
		}
		if conn != nil {
			_ = conn.Close(t.Context())
		}
		written <- n
	}()
	return func() int {
		cancel()
		n := <-written
		return n
	}
}

const terminateSQL = "SELECT coalesce((SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1), false)"

func TestReader_LosesAndDoublesNothingWhenItsConnectionIsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	r := w.start(t)
	stop := w.load(t)
	const cuts = 50
	for n := range cuts {
		stored := look(w.store, func() int { return len(w.store.changes) })
		w.store.wait(t, "a connection since the last cut, and more rows", func() bool {
			return w.store.taken-r.taken > n && len(w.store.changes) > stored+20
		})
		eventually(t, "a walsender to end", patience, func() bool { return one[bool](t, w, terminateSQL, w.cfg.Slot) })
	}
	n := stop()
	w.settle(t)
	w.wantIDs(t, n)
	taken := look(w.store, func() int { return w.store.taken }) - r.taken
	if taken < cuts {
		t.Errorf("connected %d times for %d cuts", taken, cuts)
	}
	t.Logf("%d rows, connected %d times", n, taken)
}

func TestReader_ContinuesAfterTheServerCrashed(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "")
	r := w.start(t, idleEvery(10*time.Millisecond))
	stop := w.load(t)
	for range 3 {
		stored := look(w.store, func() int { return len(w.store.changes) })
		w.store.wait(t, "more rows", func() bool { return len(w.store.changes) > stored+100 })
		if err := cluster.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.conn, w.watch = w.Connect(t), w.Connect(t)
	n := stop()
	w.settle(t)
	w.wantIDs(t, n)
	if err := r.stop(); err != nil || len(w.store.gaps) > 0 {
		t.Errorf("a crash of the server was taken for a gap: %v, %v", err, w.store.gaps)
	}
}

// A fast shutdown waits until every walsender's client has received all.
func TestReader_DoesNotHoldUpTheServersShutdown(t *testing.T) {
	t.Parallel()
	// Neither the server's patience nor an idle advance ends the wait.
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"wal_sender_timeout": "0"}})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "")
	r := w.start(t, idleEvery(time.Hour))
	w.settle(t)
	const noneOfOurs = "SELECT txid_current()" // in the WAL
	target := w.walEnd(t)
	w.exec(t, noneOfOurs)
	eventually(t, "the only idle advance of the hour", patience, func() bool { return w.confirmed(t) > target })
	w.exec(t, noneOfOurs)
	server, began := cluster.PID(), time.Now()
	if err := syscall.Kill(server, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server's shutdown", patience, func() bool { return syscall.Kill(server, 0) != nil })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the server took %s to shut down", took)
	}
	eventually(t, "the loss of the connection to be seen", patience, func() bool { return r.State() == Connecting })
	if err := cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.conn, w.watch = w.Connect(t), w.Connect(t)
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')")
	w.settle(t)
	w.wantIDs(t, 1)
	if err := r.stop(); err != nil || len(w.store.gaps) > 0 {
		t.Errorf("a restart of the server was taken for a gap: %v, %v", err, w.store.gaps)
	}
}

func TestReader_StandsByAndTakesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	first := w.start(t)
	first.reads(t, patience)
	second := w.start(t)
	eventually(t, "standby", patience, func() bool { return second.State() == Standby })
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')")
	w.settle(t)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second.reads(t, 2*time.Second)
	if standbyPoll > time.Second {
		t.Errorf("a standby looks every %s", standbyPoll)
	}
	w.exec(t, "INSERT INTO items VALUES (2, 7, 'x')")
	w.settle(t)
	w.wantIDs(t, 2)
}
