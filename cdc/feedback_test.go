package cdc

import (
	"context"
	"fmt"
	"testing"
	"time"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

func idleEvery(d time.Duration) func(*Reader) {
	return func(r *Reader) { r.idleEvery = d }
}

const replySQL = `
	SELECT coalesce(r.reply_time, '-infinity')::text, coalesce(r.flush_lsn, '0/0')::text, s.confirmed_flush_lsn::text
	FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1`

// reply is the last status update as the server shows it.
func (w *world) reply(t *testing.T) (at string, flush, confirmed schemas.LSN) {
	t.Helper()
	var flushText, confirmedText string
	if err := w.watch.QueryRow(t.Context(), replySQL, w.cfg.Slot).Scan(&at, &flushText, &confirmedText); err != nil {
		t.Fatal(err)
	}
	flush, err := schemas.ParseLSN(flushText)
	if err != nil {
		t.Fatal(err)
	}
	if confirmed, err = schemas.ParseLSN(confirmedText); err != nil {
		t.Fatal(err)
	}
	return at, flush, confirmed
}

// tells waits for n more status updates, and fails at one beyond stored.
func (w *world) tells(t *testing.T, n int, stored schemas.LSN) {
	t.Helper()
	last := ""
	eventually(t, fmt.Sprintf("%d status updates", n), patience, func() bool {
		at, flush, confirmed := w.reply(t)
		if flush > stored || confirmed > stored {
			t.Fatalf("the server was told %s and confirmed %s, stored is %s", flush, confirmed, stored)
		}
		if at != last {
			last = at
			n--
		}
		return n < 0
	})
}

// blockAfter blocks appends, except those that pass allows, and returns a channel that is
// closed when one is blocked.
func (r *recorder) blockAfter(pass func(schemas.Batch) bool) (held chan struct{}, release func()) {
	held, open := make(chan struct{}), make(chan struct{})
	once := false
	r.hook(func(ctx context.Context, batch schemas.Batch) error {
		if pass(batch) {
			return nil
		}
		if !once {
			once = true
			close(held)
		}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil)
	return held, func() { r.hook(nil, nil); close(open) }
}

func within(t *testing.T, what string, done chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
	}
}

// The server may remove WAL up to the reported flush position.
func TestFeedback_TellsTheServerOnlyWhatIsStored(t *testing.T) {
	t.Parallel()
	hasChanges := func(b schemas.Batch) bool { return len(b.Changes) > 0 }
	for _, test := range []struct {
		name  string
		write string
		pass  func(schemas.Batch) bool // appends that are let through
		stop  bool                     // the reader stops meanwhile
		idle  time.Duration
	}{
		{
			name:  "while an append is under way",
			write: "INSERT INTO items VALUES (1, 7, 'x')",
			pass:  func(b schemas.Batch) bool { return !hasChanges(b) },
			idle:  time.Hour,
		},
		{
			name:  "while an idle advance is being stored",
			write: "SELECT txid_current()",
			pass:  hasChanges,
			idle:  time.Millisecond,
		},
		{
			name:  "in the middle of a large transaction",
			write: "INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 35000) n",
			pass:  func(b schemas.Batch) bool { return b.Position.Ordinal <= chunkChanges },
			idle:  time.Hour,
		},
		{
			name:  "when it stops",
			write: "INSERT INTO items VALUES (1, 7, 'x')",
			pass:  func(b schemas.Batch) bool { return !hasChanges(b) },
			stop:  true,
			idle:  time.Hour,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			r := w.start(t, idleEvery(test.idle))
			w.settle(t)
			held, release := w.store.blockAfter(test.pass)
			w.exec(t, test.write)
			within(t, "an append", held)
			stored := w.store.flush()
			if test.stop {
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				if confirmed := w.confirmed(t); confirmed > stored {
					t.Errorf("the slot stands at %s, stored is %s", confirmed, stored)
				}
				return
			}
			w.tells(t, 3, stored)
			release()
			w.settle(t)
			end := w.store.flush()
			eventually(t, "the slot at what is stored", patience, func() bool { return w.confirmed(t) >= end })
			if n := w.store.taken - r.taken; n != 1 {
				t.Errorf("connected %d times, want once", n)
			}
		})
	}
}

// An idle database's slot must not hold back the whole server's WAL.
func TestFeedback_TheSlotFollowsWhileOthersWrite(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "CREATE TABLE busy (n int)")
	w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, items, notes")
	w.setup(t)
	const every = 100 * time.Millisecond
	w.start(t, idleEvery(every))
	began := time.Now()
	for range 3 {
		w.exec(t, "INSERT INTO busy SELECT generate_series(1, 20000)")
		target := w.walEnd(t)
		eventually(t, "the slot at the end of the WAL", patience, func() bool {
			w.exec(t, "INSERT INTO busy VALUES (1)") // it is never quiet
			confirmed, stored := w.confirmed(t), w.store.flush()
			if confirmed > stored {
				t.Fatalf("the slot stands at %s, stored is %s", confirmed, stored)
			}
			return confirmed >= target
		})
	}
	appends, most := look(w.store, func() int { return len(w.store.batches) }), int(time.Since(began)/every)+3
	if appends > most {
		t.Errorf("%d idle advances were stored in %s, want at most %d", appends, time.Since(began), most)
	}
}

// A blocked store must not cost the connection.
func TestFeedback_AnswersTheServerWhileAnAppendIsBlocked(t *testing.T) {
	t.Parallel()
	const timeout = 5 * statusEvery
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"wal_sender_timeout": fmt.Sprint(timeout.Milliseconds())}})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "")
	r := w.start(t)
	w.settle(t)
	release := w.store.block()
	// More than the batch holds: the receiver blocks too.
	w.exec(t, "INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 35000) n")
	pid := one[int](t, w, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot)
	began := time.Now()
	eventually(t, "more than twice the server's patience", patience, func() bool {
		if now := one[*int](t, w, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot); now == nil || *now != pid {
			t.Fatalf("the server gave up on us after %s", time.Since(began))
		}
		return time.Since(began) > 2*timeout+timeout/2
	})
	release()
	w.settle(t)
	w.wantIDs(t, 35000)
	if n := w.store.taken - r.taken; n != 1 {
		t.Errorf("connected %d times, want once", n)
	}
}

// slowTakeOver makes each take-over last until it is released.
func (r *recorder) slowTakeOver() (release func()) {
	open := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taking = func(ctx context.Context) error {
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return func() { close(open) }
}

// What a store reads when it is taken over grows with the carrier. It must not cost the
// connection, however long it takes and whatever the server has to send meanwhile.
func TestFeedback_AnswersTheServerDuringATakeOver(t *testing.T) {
	t.Parallel()
	const timeout = 5 * statusEvery
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"wal_sender_timeout": fmt.Sprint(timeout.Milliseconds())}})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "")
	stored := w.confirmed(t)
	release := w.store.slowTakeOver()
	r := w.start(t)
	const active = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1"
	var pid int
	eventually(t, "the slot to be in use", patience, func() bool {
		now := one[*int](t, w, active, w.cfg.Slot)
		if now != nil {
			pid = *now
		}
		return now != nil
	})
	// More than the connection holds.
	w.exec(t, "INSERT INTO items SELECT n, 7, repeat('x', 1000) FROM generate_series(1, 35000) n")
	began := time.Now()
	eventually(t, "more than twice the server's patience", patience, func() bool {
		if now := one[*int](t, w, active, w.cfg.Slot); now == nil || *now != pid {
			t.Fatalf("the server gave up on us after %s", time.Since(began))
		}
		return time.Since(began) > 2*timeout+timeout/2
	})
	if now := w.confirmed(t); now != stored {
		t.Errorf("the slot moved from %s to %s before anything was stored", stored, now)
	}
	release()
	w.settle(t)
	w.wantIDs(t, 35000)
	if n := w.store.taken - r.taken; n != 1 {
		t.Errorf("connected %d times, want once", n)
	}
}

// A take-over whose connection breaks holds nothing any more: it ends, and the next one
// begins.
func TestFeedback_ATakeOverEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.log = quiet
	release := w.store.slowTakeOver()
	r := w.start(t)
	taken := func() int { return look(w.store, func() int { return w.store.taken }) - r.taken }
	eventually(t, "a take-over", patience, func() bool { return taken() == 1 })
	w.exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+w.cfg.Slot+"'")
	eventually(t, "the next take-over", patience, func() bool { return taken() == 2 })
	release()
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')")
	w.settle(t)
	w.wantIDs(t, 1)
}

// A server that shuts down asks again after every answer, until all that it has written
// is stored.
func TestFeedback_AServerThatAsksIsAnsweredSoonAndNotInALoop(t *testing.T) {
	t.Parallel()
	s := detached(schemas.Checkpoint{Flush: 0x100}, 0x100)
	now := time.Now()
	s.lastStatus, s.nextStatus = now, now.Add(statusEvery)
	for range 3 {
		if err := s.copyData(t.Context(), keepaliveData(0x200, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if wait := s.nextStatus.Sub(now); wait <= 0 || wait > 100*time.Millisecond { // by the last status, not by the clock
		t.Errorf("answered after %s", wait)
	}
}
