package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// notice puts an event into the inbox.
func (w *world) notice(t *testing.T, account string, n int) {
	t.Helper()
	w.exec(t, `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body)
		VALUES ($1, 'test_' || $2::text, 'notice/' || $1, 'test', 'update', convert_to('{}', 'UTF8'))`, account, fmt.Sprint(n))
}

func (f *feed) appendInbox(t *testing.T) int {
	t.Helper()
	n, err := f.publisher.appendInbox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// notices lists the log's events that no change made.
func (f *feed) notices(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, `SELECT p.account || ' ' || e.webhook_id FROM walhook.event e
		JOIN walhook.endpoint p ON p.id = e.endpoint WHERE e.webhook_id NOT LIKE 'evt%' ORDER BY e.id`)
}

func TestInbox_IsAppendedOnceAndLeavesThePositionAsItWas(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	before := f.takeOver(t)
	f.notice(t, "7", 1)
	f.notice(t, "nobody", 2)
	f.notice(t, "7", 3)
	for range 3 {
		f.appendInbox(t)
	}
	wantLines(t, f.notices(t), "7 test_1", "7 test_3")
	if n := f.count(t, "inbox"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	f.wantSkipped(t, map[string]int{"no_endpoint": 1})
	// The source's changes go on behind it, with this publisher and the next.
	f.commit(t, dids.Insert(1, 7, "1"))
	f.notice(t, "7", 4)
	f.appendInbox(t)
	if got := f.takeOver(t); got.Position.Commit != before.Position.Commit+0x100 || got.Flush != got.Position.Commit+8 {
		t.Errorf("checkpoint is %+v, was %+v", got, before)
	}
	f.commit(t, dids.Insert(2, 7, "1"))
	if got := all[int64](t, f.world, "SELECT id FROM walhook.event ORDER BY id"); !slices.Equal(got, []int64{1, 2, 3, 4, 5, 6}) {
		t.Errorf("events %v", got)
	}
}

func TestInbox_IsThePublishersAlone(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	second := newPublisher(t, f.world)
	f.notice(t, "7", 1)
	if n, err := second.appendInbox(t.Context()); n != 0 || err != nil {
		t.Errorf("one that never took over appended %d, %v", n, err)
	}
	if _, err := second.TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := f.publisher.appendInbox(t.Context()); n != 0 || !errors.Is(err, ErrFenced) {
		t.Errorf("one that another took over from appended %d, %v", n, err)
	}
	if n, err := f.publisher.appendInbox(t.Context()); n != 0 || err != nil {
		t.Errorf("and again %d, %v", n, err)
	}
	if n, err := second.appendInbox(t.Context()); n != 1 || err != nil {
		t.Errorf("the publisher appended %d, %v", n, err)
	}
	wantLines(t, f.notices(t), "7 test_1")
}

// Before a first snapshot there is no position to keep.
func TestInbox_WaitsForAPosition(t *testing.T) {
	w := newWorld(t)
	f := &feed{world: w, publisher: newPublisher(t, w)}
	f.takeOver(t)
	f.notice(t, "7", 1)
	f.appendInbox(t)
	if inbox, positions := f.count(t, "inbox"), f.count(t, "position"); inbox != 1 || positions != 0 {
		t.Errorf("%d rows in the inbox, %d positions", inbox, positions)
	}
}

func TestInbox_IsAppendedPromptlyBesideTheSourcesChanges(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.publisher.Run(ctx) }()
	const notices, changes = 500, 200
	inserted := make(chan error, 1)
	go func() {
		conn, err := f.store.pool.Acquire(ctx)
		if err != nil {
			inserted <- err
			return
		}
		defer conn.Release()
		for n := range notices {
			if _, err = conn.Exec(ctx, `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body)
				VALUES ('7', 'test_' || $1::int, 'notice/7', 'test', 'update', '{}')`, n); err != nil {
				break
			}
			if n%10 == 0 {
				f.store.signalInbox()
			}
		}
		inserted <- err
	}()
	for n := range changes {
		f.commit(t, dids.Insert(n, 7, "1"))
	}
	if err := <-inserted; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the inbox is empty", func() bool { return f.count(t, "inbox") == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := f.count(t, "event"); n != 1+changes+notices {
		t.Errorf("%d events, want %d", n, 1+changes+notices)
	}
	got := f.notices(t)
	if slices.Sort(got); len(slices.Compact(got)) != notices {
		t.Errorf("%d different notices", len(slices.Compact(got)))
	}
	if got := f.takeOver(t); got.Position.Commit != f.commitLSN {
		t.Errorf("position %s, want %s", got.Position.Commit, f.commitLSN)
	}
}

// What was given up waiting for may still be running in the server.
func TestInbox_OneThatIsGivenUpInTheMiddleLeavesNothingBehind(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.notice(t, "7", 1)
	held := f.begin(t)
	execTx(t, held, "LOCK TABLE walhook.event IN SHARE MODE")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		n, err := f.publisher.appendInbox(ctx)
		if n != 0 || err == nil {
			err = fmt.Errorf("appended %d, %v", n, err)
		} else {
			err = nil
		}
		ended <- err
	}()
	f.blocked(t, "INSERT INTO walhook.event")
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	commit(t, held)
	f.commit(t, dids.Insert(1, 7, "1"))
	f.appendInbox(t)
	f.commit(t, dids.Insert(2, 7, "1"))
	wantLines(t, f.notices(t), "7 test_1")
	if got := f.takeOver(t); got.Position.Commit != f.commitLSN {
		t.Errorf("position %s, want %s", got.Position.Commit, f.commitLSN)
	}
	f.commit(t, dids.Insert(3, 7, "1"))
}

// A transaction of this publisher that it has given up waiting for is over
// before the next one stores anything.
func TestAppend_WaitsForThePublishersOwnEarlierTransaction(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	earlier := f.begin(t)
	execTx(t, earlier, assertEpochSQL, f.publisher.epoch, f.publisher.timeline.token)
	appended := make(chan error, 1)
	b := batch(f.tx(dids.Insert(1, 7, "312")))
	go func() { appended <- f.publisher.Append(t.Context(), b) }()
	f.blocked(t, "assert_append")
	commit(t, earlier)
	if err := <-appended; err != nil {
		t.Error(err)
	}
}

func TestInbox_IsNotHeldUpByARowThatSomebodyLocks(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.notice(t, "7", 1)
	f.notice(t, "7", 2)
	held := f.begin(t)
	execTx(t, held, "SELECT FROM walhook.inbox WHERE webhook_id = 'test_1' FOR UPDATE")
	f.appendInbox(t)
	wantLines(t, f.notices(t), "7 test_2")
	commit(t, held)
	f.appendInbox(t)
	wantLines(t, f.notices(t), "7 test_2", "7 test_1")
}

func TestInbox_AnEventThatIsTooLargeIsADeadLetter(t *testing.T) {
	f := newFeed(t, func(c *Config) { c.MaxEventBytes = 1024 })
	f.commit(t, account(7))
	f.exec(t, `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body)
		VALUES ('7', 'day_1', 'day', 'calls', 'insert', convert_to(repeat('x', 2000), 'UTF8'))`)
	f.appendInbox(t)
	wantLines(t, all[string](t, f.world, "SELECT webhook_id || ' ' || reason FROM walhook.dead_letter"), "day_1 too_large")
	f.commit(t, dids.Insert(1, 7, "1")) // its id is its own
}

func TestInbox_RefusesTheFormOfAChangesID(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"evt_1", "", "notice", "notice_ä", "notice_a b"} {
		_, err := w.conn.Exec(t.Context(), `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body) VALUES ('7', $1, 'r', 's', 'update', '{}')`, id)
		if err == nil || !strings.Contains(err.Error(), "inbox_webhook_id_is_no_change") {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// family is a feed of account 1, 2 below it and 3 below that.
func family(t *testing.T) (*feed, *Session) {
	f := newFeed(t)
	f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2))
	f.forget(t)
	s, _ := f.join(t)
	return f, s
}

func (f *feed) idOf(t *testing.T, account string) int64 {
	t.Helper()
	return one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = $1 ORDER BY webhook <> 'account', id", account)
}

func disabling(e Event, reason string) Settlement {
	s := retried(e, time.Hour)
	s.Disable = reason
	return s
}

func TestNotice_TheParentAccountIsNotifiedOfADisabledEndpoint(t *testing.T) {
	f, s := family(t)
	e := f.event(t, 1000, f.idOf(t, "3"), "dids:1")
	lost := disabling(e, "the endpoint answered 410 Gone \"<&>\"\n")
	for range 3 { // settled again, as after an answer that was lost
		f.settle(t, s, lost)
		f.appendInbox(t)
	}
	f.forgetEvent(t, 1000)
	got := f.events(t)
	const body = `2  notice/3 {"type":"update","schema":"webhook.disabled","status":"disabled","verbose":"the endpoint answered 410 Gone \"<&>\"\n","account":"3"}`
	raw := all[string](t, f.world, `SELECT format('%s  %s %s', p.account, e.record, convert_from(e.body, 'UTF8'))
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint`)
	wantLines(t, raw, body)
	if len(got) != 1 {
		t.Errorf("events %v", got)
	}
	if id := one[string](t, f.world, "SELECT webhook_id FROM walhook.event"); !strings.HasPrefix(id, "notice_") || len(id) != 7+32 {
		t.Errorf("webhook-id %s", id)
	}
}

func (f *feed) forgetEvent(t *testing.T, id int64) {
	t.Helper()
	f.exec(t, "DELETE FROM walhook.event WHERE id = $1", id)
}

func TestNotice_IsSentOnlyWhenAnEndpointIsDisabled(t *testing.T) {
	f, s := family(t)
	e := f.event(t, 1000, f.idOf(t, "3"), "dids:1")
	e.Revision = 7 // another URL's
	f.settle(t, s, disabling(e, "gone"))
	if n := f.count(t, "inbox"); n != 0 {
		t.Errorf("%d notices", n)
	}
}

// Whoever changes several endpoints takes them in order of account: none waits
// for another that waits for it.
func TestSettle_AndAppendTakeEndpointsInOneOrder(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, f *feed, s *Session) error{
		"append": func(t *testing.T, f *feed, _ *Session) error {
			return f.publisher.Append(t.Context(), batch(f.tx(setAccountURL(3, nil, urlB), setAccountURL(1, nil, urlB))))
		},
		"settle": func(t *testing.T, f *feed, s *Session) error {
			_, err := s.Settle(t.Context(), []Settlement{
				disabling(Event{ID: 1001, Endpoint: f.publisher.view.Endpoints["3"].ID, Revision: 1, Record: "dids:1"}, "gone"),
				disabling(Event{ID: 1002, Endpoint: f.publisher.view.Endpoints["1"].ID, Revision: 1, Record: "dids:1"}, "gone")})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t)
			f.commit(t, account(3))
			f.commit(t, account(1))
			s, _ := f.join(t)
			first := f.begin(t)
			execTx(t, first, "SELECT FROM walhook.endpoint WHERE account = '1' FOR UPDATE")
			changed := make(chan error, 1)
			go func() { changed <- change(t, f, s) }()
			f.blocked(t, "walhook.endpoint")
			execTx(t, first, "SELECT FROM walhook.endpoint WHERE account = '3' FOR UPDATE NOWAIT")
			commit(t, first)
			if err := <-changed; err != nil {
				t.Error(err)
			}
		})
	}
}
