package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// partitions lists the partitions of a table that are attached.
func (w *world) partitions(t *testing.T, table string) []string {
	t.Helper()
	return all[string](t, w, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = ('walhook.' || $1)::regclass AND NOT i.inhdetachpending ORDER BY 1`, table)
}

func (w *world) maintain(t *testing.T) {
	t.Helper()
	if err := w.store.maintainOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// oldDay makes the partitions of a day long past.
func (w *world) oldDay(t *testing.T, days int) string {
	t.Helper()
	day := time.Now().UTC().AddDate(0, 0, -days)
	tx := w.begin(t)
	for _, table := range dailyTables() {
		from, to := day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)
		if err := makePartitionTx(t.Context(), tx, table, table+"_"+day.Format(dayFormat), "'"+from+" 00:00+00'", "'"+to+" 00:00+00'"); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, tx)
	return day.Format(dayFormat)
}

func TestPartitions_AreMadeAheadAndOnce(t *testing.T) {
	w := newWorldAlone(t)
	for range 3 {
		if err := w.store.MakePartitions(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantLines(t, w.partitions(t, "event"), "event_000000", "event_000001", "event_000002")
	for _, table := range dailyTables() {
		var want []string
		for ahead := range 3 {
			want = append(want, table+"_"+time.Now().UTC().AddDate(0, 0, ahead).Format(dayFormat))
		}
		wantLines(t, w.partitions(t, table), want...)
	}
	w.exec(t, "INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (1, '0/1', 1, 1, '0/1', $1)",
		int64(2*eventPartitionSize))
	if err := w.store.MakePartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.partitions(t, "event"); !slices.Equal(rest(got, 3), []string{"event_000003", "event_000004"}) {
		t.Errorf("partitions %v", got)
	}
}

func TestPartitions_AnyNumberMayMakeThem(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, "DROP TABLE walhook.event_000001, walhook.event_000002")
	done := make(chan error)
	for range 4 {
		go func() {
			for {
				err := w.store.MakePartitions(t.Context())
				// Each waits two seconds for the others, which may not do on a busy machine.
				if fault, ok := errors.AsType[*pgconn.PgError](err); ok && fault.Code == lockNotAvailable {
					continue
				}
				done <- err
				return
			}
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wantLines(t, w.partitions(t, "event"), "event_000000", "event_000001", "event_000002")
}

// A session that waits for the lock of another one, which itself waits for a lock.
const queuedSQL = `
	SELECT coalesce(min(a.query || ' behind ' || w.query), '')
	FROM pg_stat_activity a CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) b JOIN pg_stat_activity w ON w.pid = b
	WHERE a.datname = current_database() AND a.wait_event_type = 'Lock' AND w.wait_event_type = 'Lock'`

// unqueued appends. The append must not queue behind who waits for a lock: it would wait as
// long as that one does. How long it takes otherwise is the machine's time.
func (f *feed) unqueued(t *testing.T, n int) {
	t.Helper()
	b, done := batch(f.tx(dids.Insert(n, 7, "1"))), make(chan error, 1)
	go func() { done <- f.publisher.Append(t.Context(), b) }()
	const lasts = 10 // looks in a row: a statement that has its lock by now may be shown as waiting
	for looks := 0; ; {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("append %d: %v", n, err)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
		queued := one[string](t, f.world, queuedSQL)
		if looks++; queued == "" {
			looks = 0
		}
		if looks == lasts {
			t.Errorf("append %d waits: %s", n, queued)
		}
	}
}

func TestPartitions_NeitherMakingNorDroppingHoldsUpAnAppend(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.rotate(t)
	reader := f.begin(t)
	f.exec(t, "DROP TABLE walhook.event_000002")
	execTx(t, reader, "SELECT count(*) FROM walhook.event")
	execTx(t, reader, "SELECT count(*) FROM walhook.position")
	if err := f.store.MakePartitions(t.Context()); err != nil {
		t.Errorf("a reader holds up the making of partitions: %v", err)
	}
	f.unqueued(t, 1)

	f.allDelivered(t)
	dropped := make(chan error, 1)
	go func() { dropped <- f.store.maintainOnce(t.Context()) }()
	f.blocked(t, "DETACH PARTITION")
	for n := range 5 {
		f.unqueued(t, n)
	}
	s, _ := f.join(t)
	if events := f.tail(t, s, TailQuery{Endpoint: 1}); len(events) != 7 {
		t.Errorf("%d events are read meanwhile, want the 7 of the later partition", len(events))
	}
	if err := <-dropped; err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("dropped under a reader: %v", err)
	}

	// Interrupted, it is finished the next time.
	commit(t, reader)
	f.maintain(t)
	f.unqueued(t, 10)
	if n := one[int](t, f.world, "SELECT count(*) FROM pg_class WHERE relname = 'event_000000'"); n != 0 {
		t.Error("the partition is still there")
	}
	for _, conn := range f.store.pool.AcquireAllIdle(t.Context()) {
		var timeout string
		if err := conn.QueryRow(t.Context(), "SHOW lock_timeout").Scan(&timeout); err != nil || timeout != "0" {
			t.Errorf("a connection of the pool has a lock timeout of %s, %v", timeout, err)
		}
		conn.Release()
	}
}

// rotate makes the next append begin the next partition of the log, and what
// is in the present one too old.
func (f *feed) rotate(t *testing.T) {
	t.Helper()
	f.commit(t, dids.Insert(99, 7, "1"))
	f.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - interval '8 days'")
	f.takeOver(t)
	before := eventPartition(f.publisher.view.NextID)
	f.commit(t, dids.Insert(100, 7, "1"))
	if after := eventPartition(f.publisher.view.NextID); after != before+1 {
		t.Fatalf("the log is in partition %d after %d", after, before)
	}
}

// allDelivered makes every event settled and every tail and lane moved past it.
func (f *feed) allDelivered(t *testing.T) {
	t.Helper()
	f.exec(t, "UPDATE walhook.shard SET tail = (SELECT max(id) FROM walhook.event)")
}

func TestPublisher_MovesToTheNextPartitionWhenThePresentOneIsOldEnough(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), dids.Insert(1, 7, "1"))
	f.takeOver(t)
	f.commit(t, dids.Insert(2, 7, "1"))
	wantLines(t, all[string](t, f.world, "SELECT e.id::text FROM walhook.event e ORDER BY e.id"), "1", "2", "3")
	f.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - interval '25 hours'")
	f.restart(t)
	f.commit(t, dids.Insert(3, 7, "1"))
	f.commit(t, dids.Insert(4, 7, "1"))
	f.restart(t)
	f.commit(t, dids.Insert(5, 7, "1"))
	wantLines(t, all[string](t, f.world, "SELECT e.id::text FROM walhook.event e ORDER BY e.id"), "1", "2", "3",
		fmt.Sprint(eventPartitionSize), fmt.Sprint(eventPartitionSize+1), fmt.Sprint(eventPartitionSize+2))
	wantLines(t, f.partitions(t, "event"), "event_000000", "event_000001", "event_000002")
}

func TestPublisher_StaysWhereItIsWhenThereIsNoNextPartition(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), dids.Insert(1, 7, "1"))
	f.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - interval '25 hours'")
	f.restart(t)
	other := f.begin(t)
	execTx(t, other, "SELECT pg_advisory_xact_lock($1)", partitionLock)
	f.commit(t, dids.Insert(2, 7, "1"))
	f.unqueued(t, 3) // does not try again at once
	if n := one[int64](t, f.world, "SELECT max(id) FROM walhook.event"); n != 4 {
		t.Errorf("the newest event is %d", n)
	}
	if n := f.logs.FilterMessage("creating partitions failed").Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

func TestRetention_DropsWhatIsOldAndDelivered(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.rotate(t)
	f.allDelivered(t)
	old, kept := f.oldDay(t, 9), f.oldDay(t, 6)
	f.exec(t, `INSERT INTO walhook.attempt SELECT now() - interval '9 days', 1, 1, 1, 1, '1s', 200, 'delivered', '2xx', ''`)
	f.exec(t, `INSERT INTO walhook.owner VALUES ('dids', 'old', '7', now() - interval '8 days'), ('dids', 'young', '7', now() - interval '6 days'), ('dids', 'living', '7', NULL)`)
	f.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - interval '8 days' WHERE id < $1", int64(eventPartitionSize))
	f.maintain(t)
	if got := f.partitions(t, "event"); got[0] != "event_000001" {
		t.Errorf("the log has the partitions %v", got)
	}
	for _, table := range dailyTables() {
		got := f.partitions(t, table)
		if slices.Contains(got, table+"_"+old) || !slices.Contains(got, table+"_"+kept) {
			t.Errorf("%s has the partitions %v", table, got)
		}
	}
	wantLines(t, all[string](t, f.world, "SELECT key FROM walhook.owner WHERE key !~ '\\d' ORDER BY 1"), "living", "young")
	f.commit(t, dids.Insert(9, 7, "1"))
}

func TestRetention_KeepsWhatIsYoungOrInUse(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.rotate(t)
	f.allDelivered(t)
	f.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - interval '6 days'")
	f.maintain(t)
	if got := f.partitions(t, "event"); got[0] != "event_000000" {
		t.Errorf("young: the log has the partitions %v", got)
	}
	f.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - interval '30 days'")
	f.maintain(t)
	if got := f.partitions(t, "event"); got[0] != "event_000001" {
		t.Errorf("the partition in use is dropped, or the one before it is not: %v", got)
	}
}

// A shard for which nothing is appended has a tail that stands still.
func TestRetention_IsNotHeldUpByAnIdleShard(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.rotate(t)
	f.exec(t, "UPDATE walhook.shard SET tail = (SELECT max(id) FROM walhook.event) WHERE id = 1")
	f.maintain(t)
	if got := f.partitions(t, "event"); got[0] != "event_000001" {
		t.Errorf("the log has the partitions %v", got)
	}
}

func TestRetention_NeverDropsTheNewestPosition(t *testing.T) {
	f := newFeedAlone(t)
	day := f.oldDay(t, 30)
	f.oldDay(t, 31)
	f.exec(t, "UPDATE walhook.position SET stored_at = stored_at - interval '30 days'")
	before, err := f.store.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.maintain(t)
	if got := f.partitions(t, "position"); got[0] != "position_"+day {
		t.Errorf("positions have the partitions %v", got)
	}
	if got := f.partitions(t, "attempt"); strings.HasSuffix(got[0], day) {
		t.Errorf("attempts have the partitions %v", got)
	}
	if after, err := f.store.Checkpoint(t.Context()); err != nil || after != before {
		t.Errorf("checkpoint is %+v, %v", after, err)
	}
}

// What was detached and not dropped, as after a crash, is dropped the next time.
func TestRetention_FinishesADrop(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.rotate(t)
	f.allDelivered(t)
	day := f.oldDay(t, 20)
	f.exec(t, "ALTER TABLE walhook.event DETACH PARTITION walhook.event_000000")
	f.exec(t, "ALTER TABLE walhook.attempt DETACH PARTITION walhook.attempt_"+day)
	f.maintain(t)
	if left := all[string](t, f.world, "SELECT relname FROM pg_class WHERE relname IN ('event_000000', 'attempt_' || $1)", day); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestRetention_OneProcessAtATime(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.rotate(t)
	f.allDelivered(t)
	other := f.begin(t)
	execTx(t, other, "SELECT pg_advisory_xact_lock($1)", retentionLock)
	f.maintain(t)
	if got := f.partitions(t, "event"); got[0] != "event_000000" {
		t.Errorf("dropped while another was at it: %v", got)
	}
	commit(t, other)
	f.maintain(t)
	if got := f.partitions(t, "event"); got[0] != "event_000001" {
		t.Errorf("not dropped afterwards: %v", got)
	}
}

func TestMaintain_EndsWithItsContext(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, "DROP TABLE walhook.event_000002")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.store.Maintain(ctx) }()
	eventually(t, "the partition is made", func() bool { return len(w.partitions(t, "event")) == 3 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
