package outbox

import (
	"testing"
)

// feedAside reads a feed beside the test, which holds a lock meanwhile. Its statements are
// prepared: to prepare one that waits for the lock would wait before the first is executed.
func (w *world) feedAside(t *testing.T, q FeedQuery) (page func() FeedPage) {
	t.Helper()
	type answer struct {
		page FeedPage
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		page, err := w.store.Feed(t.Context(), q)
		read <- answer{page, err}
	}()
	return func() FeedPage {
		t.Helper()
		a := <-read
		if a.err != nil {
			t.Fatal(a.err)
		}
		return a.page
	}
}

// logEndSQL says which id is the next.
const logEndSQL = `INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (1, '0/1', 1, 1, '0/1', $1)`

// What is committed while a page is read is in the page, or after its place: the end of
// the log is read before the events.
func TestFeed_APagePassesNothingThatIsCommittedWhileItIsRead(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint(t, "7")
	w.feedAside(t, FeedQuery{Endpoint: endpoint, Limit: 10, MaxBytes: 1 << 20})()
	tx := w.begin(t)
	execTx(t, tx, `LOCK TABLE walhook.position IN ACCESS EXCLUSIVE MODE`)
	execTx(t, tx, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		VALUES (1, $1, 1, 'dids:1', 'evt_1', 'dids', 'update', now(), now(), 'x')`, endpoint)
	execTx(t, tx, logEndSQL, 2)
	page := w.feedAside(t, FeedQuery{Endpoint: endpoint, Limit: 10, MaxBytes: 1 << 20})
	w.blocked(t, "next_event_id FROM walhook.position") // it reads the end of the log
	commit(t, tx)
	if got := page(); got.Upto >= 1 {
		wantIDs(t, got.Events, 1)
	}
}

// What retention drops while a page is read is not passed in silence: the beginning of the
// log is read after the events.
func TestFeed_APageSaysWhatRetentionDroppedWhileItWasRead(t *testing.T) {
	w := newWorldAlone(t)
	endpoint := w.endpoint(t, "7")
	w.event(t, 1, endpoint, "dids:1")
	w.event(t, 2, endpoint, "dids:1")
	w.exec(t, logEndSQL, 3)
	w.feedAside(t, FeedQuery{Endpoint: endpoint, Limit: 10, MaxBytes: 1 << 20})()
	tx := w.begin(t)
	execTx(t, tx, `DROP TABLE walhook.event_000000`)
	page := w.feedAside(t, FeedQuery{Endpoint: endpoint, After: 1, Limit: 10, MaxBytes: 1 << 20})
	w.blocked(t, "FROM walhook.event e")
	commit(t, tx)
	got := page()
	wantIDs(t, got.Events)
	if holds, newer := got.Log.Holds(1, got.Log.Timeline); holds || newer {
		t.Errorf("event 2 is gone, and the log says that it has everything after 1: %+v", got.Log)
	}
}
