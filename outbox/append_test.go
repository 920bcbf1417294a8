package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

func TestAppend_StoresEventsOwnersAndPositionAtomically(t *testing.T) {
	f := newFeed(t)
	b := batch(f.tx(account(7), dids.Insert(1, 7, "312")), f.tx(faxes.Insert(5, 1, "2")))
	b.Position.Ordinal, b.Xid, b.Flush = 9, 4_000_000_000, 0x1_0000_2000
	f.append(t, b)
	wantLines(t, all[string](t, f.world, `SELECT format('%s#%s %s %s %s', commit_lsn, ordinal, xid, flush_lsn, next_event_id)
		FROM walhook.position ORDER BY id DESC LIMIT 1`), "0/1200#9 4000000000 1/2000 4")
	wantLines(t, all[string](t, f.world, "SELECT format('%s:%s %s', schema, key, account) FROM walhook.owner ORDER BY 1"), "dids:1 7", "faxes:5 7", "users:7 7")
	wantLines(t, all[string](t, f.world, `SELECT format('%s %s %s %s %s %s %s %s', id, endpoint, endpoint_revision, record, webhook_id, schema, type,
		extract(epoch FROM committed_at)::bigint) FROM walhook.event ORDER BY id`),
		"1 1 1 users:7 evt_0000000000001100_1 users insert 1700000000",
		"2 1 1 dids:1 evt_0000000000001100_2 dids insert 1700000000",
		"3 1 1 faxes:5 evt_0000000000001200_1 faxes insert 1700000000")
	got := f.takeOver(t)
	want := schemas.Checkpoint{Source: testSource, Position: b.Position, Xid: b.Xid, Flush: b.Flush}
	if got != want {
		t.Errorf("checkpoint is %+v, want %+v", got, want)
	}
	if read, err := f.store.Checkpoint(t.Context()); err != nil || read != want {
		t.Errorf("checkpoint is read as %+v, %v", read, err)
	}
}

func TestAppend_IdleAdvanceMovesThePosition(t *testing.T) {
	f := newFeed(t)
	f.append(t, schemas.Batch{Position: schemas.Position{Commit: 0x1100, Ordinal: 2}, Flush: 0x2000})
	if got := f.takeOver(t); got.Flush != 0x2000 || got.Position != (schemas.Position{Commit: 0x1100, Ordinal: 2}) {
		t.Errorf("checkpoint is %+v", got)
	}
	select {
	case <-f.store.Appended():
		t.Error("an append without events was signalled")
	default:
	}
}

func TestAppend_WhatFailsLeavesNothing(t *testing.T) {
	for name, breakIt := range map[string]string{
		"the first statement": "endpoint NEW.account = '7'",
		"the events":          "event NEW.record = 'dids:1'",
		"the last statement":  "position NEW.commit_lsn = '0/1200'",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeedAlone(t)
			f.commit(t, account(8))
			before := f.takeOver(t)
			table, when, _ := strings.Cut(breakIt, " ")
			refuse(t, f.world, "walhook."+table, when, "53100") // the disk is full: it is no item's fault
			b := batch(f.tx(account(7), dids.Insert(1, 7, "312"), faxes.Insert(2, 99, "1"), setURL(urlA, urlB)))
			if err := f.publisher.Append(t.Context(), b); err == nil || errors.Is(err, ErrFenced) {
				t.Fatalf("appended: %v", err)
			}
			if e, o, u, p := f.count(t, "event"), f.count(t, "owner"), f.count(t, "unrouted"), f.count(t, "endpoint"); e != 1 || o != 1 || u != 0 || p != 1 {
				t.Errorf("%d events, %d owners, %d unrouted, %d endpoints are stored", e, o, u, p)
			}
			f.wantSkipped(t, map[string]int{})

			// The same batch, once more.
			f.exec(t, "DROP TRIGGER refuse ON walhook."+table)
			if again := f.takeOver(t); again != before {
				t.Errorf("checkpoint is %+v, was %+v", again, before)
			}
			f.append(t, b)
			if ids := all[int64](t, f.world, "SELECT id FROM walhook.event ORDER BY id"); !slices.Equal(ids, []int64{1, 2, 3, 4}) {
				t.Errorf("events %v", ids)
			}
		})
	}
}

func TestAppend_OfAnEarlierPublisherIsRefused(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	second := newPublisher(t, f.world)
	if _, err := second.TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := batch(f.tx(dids.Insert(1, 7, "312"), account(8), faxes.Insert(2, 99, "1")))
	if err := f.publisher.Append(t.Context(), b); !errors.Is(err, ErrFenced) {
		t.Fatalf("appended: %v", err)
	}
	if e, o, p, u := f.count(t, "event"), f.count(t, "owner"), f.count(t, "endpoint"), f.count(t, "unrouted"); e != 1 || o != 1 || p != 1 || u != 0 {
		t.Errorf("%d events, %d owners, %d endpoints, %d unrouted", e, o, p, u)
	}
	if err := f.publisher.LoadSnapshot(t.Context(), 0x9000, func(catalog.SnapshotSink) error { return nil }); !errors.Is(err, ErrFenced) {
		t.Errorf("stored a snapshot: %v", err)
	}
	if err := second.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// A take-over waits for the append that is running, and reads its position.
func TestAppend_TakeOverWaitsForOneInTheMiddle(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, dids.Insert(9, 7, "311")) // what is prepared before a transaction begins, is
	held := f.begin(t)
	execTx(t, held, "LOCK TABLE walhook.owner IN SHARE MODE")
	b := batch(f.tx(dids.Insert(1, 7, "312")))
	appended := make(chan error, 1)
	go func() { appended <- f.publisher.Append(t.Context(), b) }()
	f.blocked(t, "INSERT INTO walhook.owner")

	second := newPublisher(t, f.world)
	type taken struct {
		checkpoint schemas.Checkpoint
		err        error
	}
	tookOver := make(chan taken, 1)
	go func() {
		checkpoint, err := second.TakeOver(t.Context())
		tookOver <- taken{checkpoint, err}
	}()
	f.blocked(t, "UPDATE walhook.epoch")
	select {
	case got := <-tookOver:
		t.Fatalf("took over in the middle of an append: %+v", got)
	default:
	}
	commit(t, held)
	if err := <-appended; err != nil {
		t.Errorf("the append that came first: %v", err)
	}
	got := <-tookOver
	if got.err != nil || got.checkpoint.Position != b.Position {
		t.Fatalf("took over at %+v, %v", got.checkpoint, got.err)
	}
	if err := f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(2, 7, "313")))); !errors.Is(err, ErrFenced) {
		t.Errorf("appended: %v", err)
	}
	if err := second.Append(t.Context(), batch(f.tx(dids.Insert(3, 7, "314")))); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, f.world, "SELECT id || ' ' || record FROM walhook.event ORDER BY id"), "1 users:7", "2 dids:9", "3 dids:1", "4 dids:3")
}

// An append that waits behind a take-over stores nothing.
func TestAppend_BehindATakeOverStoresNothing(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	taking := f.begin(t)
	execTx(t, taking, takeEpochSQL, "another")
	appended := make(chan error, 1)
	b := batch(f.tx(dids.Insert(1, 7, "312"), account(8)))
	go func() { appended <- f.publisher.Append(t.Context(), b) }()
	f.blocked(t, "assert_append")
	commit(t, taking)
	if err := <-appended; !errors.Is(err, ErrFenced) {
		t.Errorf("appended: %v", err)
	}
	if e, o, p := f.count(t, "event"), f.count(t, "owner"), f.count(t, "endpoint"); e != 1 || o != 1 || p != 1 {
		t.Errorf("%d events, %d owners, %d endpoints", e, o, p)
	}
}

// A batch that certainly is not stored is tried again as it is: nothing is loaded,
// and nobody else takes over.
func TestAppend_OneThatIsRolledBackIsTriedAgain(t *testing.T) {
	const once = "nextval('public.tries') = 1"
	for name, fail := range map[string]func(t *testing.T, f *feed) (after func()){
		"a killed session": func(t *testing.T, f *feed) func() {
			held := f.begin(t)
			execTx(t, held, "LOCK TABLE walhook.owner IN SHARE MODE")
			return func() {
				f.blocked(t, "INSERT INTO walhook.owner")
				f.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND query LIKE '%INSERT INTO walhook.owner%' AND pid <> pg_backend_pid()`)
				commit(t, held)
			}
		},
		"a deadlock": func(t *testing.T, f *feed) func() {
			held := f.begin(t)
			execTx(t, held, "LOCK TABLE walhook.owner IN SHARE MODE")
			return func() {
				f.blocked(t, "INSERT INTO walhook.owner")
				execTx(t, held, "SET LOCAL deadlock_timeout = '1h'") // the other session finds it, or waits too long
				execTx(t, held, "SELECT FROM walhook.epoch FOR UPDATE")
				commit(t, held)
			}
		},
		"a serialization failure": func(t *testing.T, f *feed) func() {
			refuse(t, f.world, "walhook.position", once, "40001")
			return func() {}
		},
		"a statement that takes too long": func(t *testing.T, f *feed) func() {
			// The timeout of a statement counts from the next one on.
			f.exec(t, `CREATE FUNCTION public.hurry() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN IF nextval('public.tries') = 1 THEN PERFORM set_config('statement_timeout', '20', true); END IF; RETURN NEW; END $$`)
			f.exec(t, `CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN IF (SELECT last_value FROM public.tries) = 1 THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$`)
			f.exec(t, "CREATE TRIGGER hurry BEFORE INSERT ON walhook.event FOR EACH STATEMENT EXECUTE FUNCTION public.hurry()")
			f.exec(t, "CREATE TRIGGER dawdle BEFORE INSERT ON walhook.position FOR EACH ROW EXECUTE FUNCTION public.dawdle()")
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeedAlone(t)
			f.commit(t, account(7), account(8))
			f.commit(t, dids.Insert(9, 7, "311")) // what is prepared before a transaction begins, is
			f.exec(t, "CREATE SEQUENCE public.tries")
			f.forget(t)
			after := fail(t, f)
			view, epoch := f.publisher.view, one[int64](t, f.world, "SELECT epoch FROM walhook.epoch")
			b := batch(f.tx(dids.Insert(1, 7, "312"), dids.Insert(2, 8, "313")))
			appended := make(chan error, 1)
			go func() { appended <- f.publisher.Append(t.Context(), b) }()
			after()
			if err := <-appended; err != nil {
				t.Fatal(err)
			}
			f.commit(t, dids.Update(row(1, 7, "312"), row(1, 8, "314")))
			wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', id, endpoint, record, type) FROM walhook.event ORDER BY id"),
				"4 1 dids:1 insert", "5 2 dids:2 insert", "6 1 dids:1 delete", "7 2 dids:1 insert")
			if f.publisher.view != view || one[int64](t, f.world, "SELECT epoch FROM walhook.epoch") != epoch {
				t.Error("everything was loaded again")
			}
			f.wantSkipped(t, map[string]int{})
		})
	}
}

// What could not be read for a batch is read when the batch is tried again.
func TestAppend_WhatCouldNotBeReadIsReadAgain(t *testing.T) {
	f := newBilling(t)
	f.webhook(t, "7", "a", "hook = 'number'")
	f.commit(t, payers.Insert(7, "n", nil, nil, "S-7", "p"))
	f.restart(t)
	held := f.begin(t)
	execTx(t, held, "LOCK TABLE walhook.account_column IN ACCESS EXCLUSIVE MODE")
	appended := make(chan error, 1)
	b := batch(f.tx(dids.Insert(1, 7, "312")))
	go func() { appended <- f.publisher.Append(t.Context(), b) }()
	f.blocked(t, "FROM walhook.account_column")
	f.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND query LIKE '%FROM walhook.account_column%' AND pid <> pg_backend_pid()`)
	commit(t, held)
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, "event WHERE convert_from(body, 'UTF8') LIKE '%S-7%'"); n != 1 {
		t.Errorf("%d events have the account's column, want 1", n)
	}
}

// A transaction whose COMMIT was sent is tried again only where the server says
// that it failed, or was ended before it came to that.
func TestTransaction_KnowsWhetherItMayBeCommitted(t *testing.T) {
	failed, ended := &pgconn.PgError{SeverityUnlocalized: "ERROR", Code: "40P01"}, &pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "57P01"}
	for _, test := range []struct {
		name  string
		atEnd bool
		err   error
		want  bool
	}{
		{"a statement failed", false, failed, false},
		{"the COMMIT failed", true, failed, false},
		{"the session was ended before the COMMIT", false, ended, false},
		{"the session was ended at the COMMIT", true, ended, true},
		{"no answer", false, context.DeadlineExceeded, true},
		{"the connection broke", true, io.ErrUnexpectedEOF, true},
		{"an answer that cannot be read", true, errors.New("scan"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			tx := &transaction{atEnd: test.atEnd}
			if got := tx.mayBeCommitted(test.err); got != test.want {
				t.Errorf("it may be committed: %t", got)
			}
		})
	}
}

func TestAppend_ThatIsCancelledCanBeRepeated(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	held := f.begin(t)
	execTx(t, held, "LOCK TABLE walhook.owner IN SHARE MODE")
	b := batch(f.tx(dids.Insert(1, 7, "312")))
	ctx, cancel := context.WithCancel(t.Context())
	appended := make(chan error, 1)
	go func() { appended <- f.publisher.Append(ctx, b) }()
	f.blocked(t, "INSERT INTO walhook.owner")
	cancel()
	if err := <-appended; !errors.Is(err, context.Canceled) {
		t.Errorf("appended: %v", err)
	}
	commit(t, held)
	if f.takeOver(t).Position != b.Position { // it is not known whether it was stored
		f.append(t, b)
	}
	if n := f.count(t, "event"); n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestAppend_IDsRiseInCommitOrderOverHandovers(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	publishers := []*Publisher{f.publisher, newPublisher(t, f.world), newPublisher(t, f.world)}
	for n := range 12 {
		f.publisher = publishers[n%len(publishers)]
		checkpoint := f.takeOver(t)
		if checkpoint.Position.Commit != f.commitLSN {
			t.Fatalf("hand-over %d begins at %s, want %X", n, checkpoint.Position, uint64(f.commitLSN))
		}
		for range 3 {
			f.commit(t, dids.Insert(n, 7, "1"), dids.Insert(n+100, 7, "2"))
		}
	}
	webhookIDs := all[string](t, f.world, "SELECT webhook_id FROM walhook.event ORDER BY id")
	if len(webhookIDs) != 1+12*6 || !slices.IsSorted(webhookIDs) {
		t.Errorf("%d events in the order %v", len(webhookIDs), webhookIDs)
	}
	// Append number by append number, the events are without a hole.
	if n := one[int](t, f.world, "SELECT max(id) FROM walhook.event"); n != len(webhookIDs) {
		t.Errorf("the newest id is %d of %d events", n, len(webhookIDs))
	}
}

func TestGap_IsNotedOnceUntilItIsAccepted(t *testing.T) {
	f := newFeed(t)
	for range 3 {
		if err := f.publisher.RecordGap(t.Context(), schemas.Gap{From: 0x2000, Reason: "slot is missing"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.publisher.RecordGap(t.Context(), schemas.Gap{From: 0x3000, To: 0x4000, Reason: "slot was advanced"}); err != nil {
		t.Fatal(err)
	}
	const gapsSQL = "SELECT format('%s %s %s %s', from_lsn, coalesce(to_lsn::text, '-'), reason, accepted_at IS NOT NULL) FROM walhook.gap ORDER BY id"
	wantLines(t, all[string](t, f.world, gapsSQL), "0/2000 - slot is missing f", "0/3000 0/4000 slot was advanced f")
	f.snapshot(t, 0x5000, load(t, nil))
	wantLines(t, all[string](t, f.world, gapsSQL), "0/2000 0/5000 slot is missing t", "0/3000 0/5000 slot was advanced t")
}

func TestPublisher_FollowsATimelineUnderItsEpoch(t *testing.T) {
	f := newFeed(t)
	if err := f.publisher.Follow(t.Context(), 2, "carrier_two"); err != nil {
		t.Fatal(err)
	}
	second := newPublisher(t, f.world)
	checkpoint, err := second.TakeOver(t.Context())
	if err != nil || checkpoint.Source.Timeline != 2 || checkpoint.Source.Database != "carrier_two" {
		t.Errorf("timeline %d, database %s, %v", checkpoint.Source.Timeline, checkpoint.Source.Database, err)
	}
	if err := f.publisher.Follow(t.Context(), 3, "carrier"); !errors.Is(err, ErrFenced) {
		t.Errorf("an earlier publisher: %v", err)
	}
	if checkpoint, err = f.store.Checkpoint(t.Context()); err != nil || checkpoint.Source.Timeline != 2 {
		t.Errorf("timeline %d, %v", checkpoint.Source.Timeline, err)
	}
}

// The publisher takes an inserted record for new without asking. One that used
// the key before may be stored, and then is what is not new.
func TestOwners_AKeyThatIsUsedAgainHasItsNewOwner(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), account(8))
	for id := range 3 {
		f.commit(t, dids.Insert(id, 7, "1"))
		f.commit(t, dids.Delete(id, 7, "1"))
	}
	f.restart(t) // knows none of them
	f.forget(t)
	f.commit(t, dids.Insert(0, 8, "2"), dids.Insert(10, 8, "3"))
	f.commit(t, dids.Insert(1, 8, "4"), dids.Delete(1, 8, "4"), dids.Insert(1, 7, "5"))
	f.commit(t, dids.Insert(11, 7, "6"))
	wantLines(t, all[string](t, f.world, `SELECT format('%s %s %s', key, account, deleted_at IS NOT NULL) FROM walhook.owner WHERE schema = 'dids' ORDER BY key::int`),
		"0 8 f", "1 7 f", "2 7 t", "10 8 f", "11 7 f")
	if got := len(f.events(t)); got != 6 {
		t.Errorf("%d events, want one for each change", got)
	}
	if f.publisher.keysReused == 0 {
		t.Error("the publisher goes on taking records for new")
	}
}

// An append that waits for what else its publisher does has no more time than another:
// whoever gets no answer gives the slot to a standby within publishTimeout.
func TestAppend_CountsTheTimeThatItWaits(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	lock := f.begin(t)
	execTx(t, lock, "LOCK TABLE walhook.position") // nobody answers
	const waited = publishTimeout - appendLeast/2
	f.publisher.mu.Lock()
	time.AfterFunc(waited, f.publisher.mu.Unlock)
	began := time.Now()
	err := f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(1, 7, "one"))))
	took := time.Since(began)
	if err == nil || took < waited || took > waited+appendLeast+3*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
}

// However often webhooks are edited, an append sees every edit that was committed before
// it began, and is stored.
func TestAppend_SeesEveryEditThatWasCommittedBeforeIt(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	const appends = 60
	var begun, committed atomic.Int64
	edit, edited, each := make(chan struct{}, appends), make(chan error, 1), make(chan struct{}, appends)
	conn := f.db.Connect(t)
	go func() { // edits while the append runs that it was told of
		for range edit {
			n := begun.Add(1)
			b := &pgx.Batch{} // without BEGIN: one transaction
			b.Queue("UPDATE walhook.webhooks_version SET version = version + 1")
			b.Queue(`INSERT INTO walhook.endpoint (account, webhook, url, state, secret) VALUES ('7', 'w' || $1::text, 'https://example.com/', 'active', 'whsec_eA==')`, fmt.Sprint(n))
			if err := conn.SendBatch(context.WithoutCancel(t.Context()), b).Close(); err != nil {
				edited <- err
				close(each)
				return
			}
			committed.Store(n)
			each <- struct{}{}
		}
		edited <- nil
	}()
	met := 0
	for id := 1; id <= appends; id++ {
		edit <- struct{}{}
		if id%2 == 0 { // every other append comes after the edits, and not beside one
			<-each
			<-each
		}
		least := committed.Load()
		f.commit(t, dids.Insert(id, 7, "312"))
		most := begun.Load()
		got := one[int64](t, f.world, "SELECT count(*) FROM walhook.event WHERE record = $1", fmt.Sprint("dids:", id))
		if got < least+1 || got > most+1 {
			t.Errorf("record %d has %d events; %d webhooks were there before its append, %d after", id, got, least, most)
		}
		if f.publisher.followsFirst == followsFor-1 {
			met++
			f.publisher.followsFirst = 0 // the next leaves it to its fence again
		}
	}
	close(edit)
	if err := <-edited; err != nil {
		t.Fatal(err)
	}
	if met == 0 {
		t.Error("no append met an edit")
	}
}

// What cannot be stored is isolated by the webhooks of now, too.
func TestAppend_IsolatesByTheWebhooksOfNow(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	refuse(t, f.world, "walhook.event", "NEW.record = 'dids:2'", "22021")
	f.webhook(t, "7", "w")
	f.commit(t, dids.Insert(1, 7, "n"), dids.Insert(2, 7, "n"), dids.Insert(3, 7, "n"))
	wantLines(t, all[string](t, f.world, "SELECT record FROM walhook.event WHERE record <> 'users:7' ORDER BY id"), "dids:1", "dids:1", "dids:3", "dids:3")
}

// The fence names the reason that counts more.
func TestAppend_OfAnEarlierPublisherIsRefusedWhateverItKnows(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	if _, err := newPublisher(t, f.world).TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.touch(t)
	if err := f.publisher.Append(t.Context(), batch(f.tx(dids.Insert(1, 7, "312")))); !errors.Is(err, ErrFenced) {
		t.Errorf("appended: %v", err)
	}
}
