package outbox

import (
	"context"
	"errors"
	"testing"
	"time"
)

// look has a tail read once.
func look(t *testing.T, tail *FeedTail) {
	t.Helper()
	if _, err := tail.look(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Who waits may have read less than the tail has handed out to others: what lies between
// is in the event log alone.
func TestFeedTail_WhoHasReadLessThanItHandedOutReadsTheLog(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint(t, "7")
	tail := w.store.FeedTail()
	earlier := tail.Wait(endpoint)
	look(t, tail)
	if taken := earlier.Take(0, tail.mark); !taken.Behind {
		t.Errorf("who waited before the tail began: %+v", taken)
	}
	w.event(t, 1, endpoint, "dids:1")
	look(t, tail)
	wantIDs(t, earlier.Take(0, tail.mark).Events, 1)

	later := tail.Wait(endpoint) // it has read the log before event 1 was there
	if taken := later.Take(0, tail.mark); !taken.Behind {
		t.Fatalf("event 1 is left out: %+v", taken)
	}
	w.event(t, 2, endpoint, "dids:1")
	look(t, tail)
	taken := later.Take(1, tail.mark)
	wantIDs(t, taken.Events, 2)
	if taken.Behind || taken.Upto != 2 {
		t.Errorf("after it has read the log: %+v", taken)
	}
	later.Leave()
	earlier.Leave()
}

// A look reads the events of those who wait when it begins. Who comes meanwhile, for
// another endpoint, is not told that it has everything.
func TestFeedTail_WhoComesWhileItReadsMissesNothing(t *testing.T) {
	w := newWorld(t)
	endpoint, other := w.endpoint(t, "7"), w.endpoint(t, "8")
	tail := w.store.FeedTail()
	defer tail.Wait(other).Leave()
	look(t, tail)

	tx := w.begin(t)
	execTx(t, tx, `LOCK TABLE walhook.event IN ACCESS EXCLUSIVE MODE`)
	execTx(t, tx, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		VALUES (1, $1, 1, 'dids:1', 'evt_1', 'dids', 'update', now(), now(), 'x')`, endpoint)
	looked := make(chan error, 1)
	go func() {
		_, err := tail.look(t.Context())
		looked <- err
	}()
	w.blocked(t, "FROM walhook.event e WHERE e.id >")
	comes := tail.Wait(endpoint)
	defer comes.Leave()
	commit(t, tx)
	if err := <-looked; err != nil {
		t.Fatal(err)
	}
	if taken := comes.Take(0, tail.mark); !taken.Behind && len(taken.Events) == 0 {
		t.Errorf("event 1 is left out: %+v", taken)
	}
	select {
	case <-comes.Signal():
	default:
		t.Error("nobody wakes it")
	}
}

// Before the tail has begun there is nothing to take, and the log need not be read over
// and over.
func TestFeedTail_WhoWaitsForItsBeginningDoesNotReadTheLog(t *testing.T) {
	w := newWorld(t)
	tail := w.store.FeedTail()
	waiter := tail.Wait(w.endpoint(t, "7"))
	defer waiter.Leave()
	if taken := waiter.Take(5, tail.mark); taken.Behind || taken.Upto != 5 {
		t.Errorf("before: %+v", taken)
	}
	look(t, tail)
	select {
	case <-waiter.Signal():
	default:
		t.Error("nobody wakes it when the tail begins")
	}
	if taken := waiter.Take(5, tail.mark); !taken.Behind {
		t.Errorf("after: %+v", taken)
	}
}

// One who does not take loses what it was handed, and is told so. The others get theirs.
func TestFeedTail_WhoIsSlowIsSentToTheLog(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint(t, "7")
	tail := w.store.FeedTail()
	slow, quick := tail.Wait(endpoint), tail.Wait(endpoint)
	look(t, tail)
	slow.Take(0, tail.mark)
	quick.Take(0, tail.mark)
	for id := int64(1); id <= feedQueueEvents+1; id += 100 {
		w.bodies(t, id, id+99, endpoint, "dids:1", 8)
		look(t, tail)
		if n := len(quick.Take(id-1, tail.mark).Events); n != 100 {
			t.Errorf("the quick one gets %d events after %d, want 100", n, id-1)
		}
	}
	if taken := slow.Take(0, tail.mark); !taken.Behind || len(slow.events) > 0 {
		t.Errorf("the slow one: %+v", taken)
	}
	slow.Leave()
	quick.Leave()
	if tail.anybody() || tail.live {
		t.Error("it reads for nobody")
	}
}

// A tail whose log cannot be read goes on once it can.
func TestFeedTail_GoesOnAfterAFault(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint(t, "7")
	tail := w.store.FeedTail()
	waiter := tail.Wait(endpoint)
	defer waiter.Leave()
	look(t, tail)
	<-waiter.Signal() // the tail has begun
	waiter.Take(0, tail.mark)
	w.event(t, 1, endpoint, "dids:1")
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := tail.look(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("a look that is cut short: %v", err)
	}
	if taken := waiter.Take(0, tail.mark); taken.Upto != 0 || len(taken.Events) > 0 {
		t.Errorf("after a fault: %+v", taken)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tail.Run(ctx) }()
	select {
	case <-waiter.Signal():
	case <-time.After(90 * time.Second):
		t.Fatal("nothing is handed out")
	}
	wantIDs(t, waiter.Take(0, tail.mark).Events, 1)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Two servers that were promoted one after the other, the second without what the first had
// appended, give the same ids. Nobody continues from the one's place in the other's log.
func TestFeedTail_AnotherTimelineSendsEverybodyToTheLog(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint(t, "7")
	tail := w.store.FeedTail()
	waiter := tail.Wait(endpoint)
	defer waiter.Leave()
	w.event(t, 5, endpoint, "dids:1")
	w.exec(t, logEndSQL, 6)
	look(t, tail)
	first := tail.mark
	if taken := waiter.Take(5, first); !taken.Behind {
		t.Fatalf("before it has read the log: %+v", taken)
	}

	const id = 2 * eventPartitionSize
	w.moveOn(t)
	page, err := w.store.Feed(t.Context(), FeedQuery{Endpoint: endpoint, After: 5, Limit: 10, MaxBytes: 1 << 20})
	if err != nil || page.Log.Timeline == first {
		t.Fatalf("the page is of the timeline before: %+v, %v", page, err)
	}
	if taken := waiter.Take(page.Upto, page.Log.Timeline); !taken.Behind {
		t.Errorf("a reader that knows another timeline than the tail: %+v", taken)
	}
	if taken := waiter.Take(page.Upto, page.Log.Timeline); taken.Behind || len(taken.Events) > 0 || taken.Upto != page.Upto {
		t.Errorf("it comes from the log, and would read it over and over: %+v", taken)
	}
	look(t, tail)
	if taken := waiter.Take(5, first); !taken.Behind {
		t.Errorf("a reader that knows an earlier timeline: %+v", taken)
	}
	for n := range int64(3) {
		w.event(t, id+n, endpoint, "dids:1")
	}
	w.exec(t, logEndSQL, id+3)
	look(t, tail)
	waiter.Take(5, tail.mark)
	w.event(t, id+3, endpoint, "dids:1")
	look(t, tail)
	taken := waiter.Take(id+2, tail.mark)
	wantIDs(t, taken.Events, id+3)
	second := tail.mark
	if second != page.Log.Timeline {
		t.Errorf("events of %s are handed out as of %s", page.Log.Timeline, second)
	}

	w.exec(t, "DELETE FROM walhook.event WHERE id > $1", int64(id))
	w.exec(t, "UPDATE walhook.timeline SET token = 'the second' WHERE id = (SELECT max(id) FROM walhook.timeline)")
	waiter.sent = second // the log had it when the tail did not
	look(t, tail)
	if got := waiter.Take(taken.Upto, second); !got.Behind {
		t.Fatalf("it continues from another history: %+v", got)
	}
	page, err = w.store.Feed(t.Context(), FeedQuery{Endpoint: endpoint, After: taken.Upto, Limit: 10, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if holds, newer := page.Log.Holds(taken.Upto, second); holds || !newer {
		t.Errorf("the log has everything after a place that it never had: %+v", page.Log)
	}
	if holds, newer := page.Log.Holds(id, first); holds || !newer {
		t.Errorf("the timeline that ended before %d had that place: %+v", id, page.Log)
	}
}
