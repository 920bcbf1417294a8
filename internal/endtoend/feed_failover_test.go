package endtoend

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/receiver"
)

// feedFollower reads one webhook's feed by pages, each from the cursor of the page before.
type feedFollower struct {
	url    string
	cursor string

	mu      sync.Mutex
	events  []receiver.Delivery // guarded by mu
	cursors []keptCursor        // guarded by mu: now and then, a cursor with the events before it
	ids     []string            // guarded by mu: webhook-ids in order, with those that came again
}

type keptCursor struct {
	cursor string
	before int
}

// page reads the page after a cursor.
func (f *feedFollower) page(ctx context.Context, cursor string, limit, wait int) (events []receiver.Delivery, ids []string, next string, err error) {
	after := ""
	if cursor != "" {
		after = "&after=" + cursor
	}
	request, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/feed?limit=%d&wait=%d%s", f.url, limit, wait, after), nil)
	if err != nil {
		return nil, nil, "", err
	}
	request.Header.Set("X-Auth-Token", "the operator of the test")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, nil, "", err
	}
	defer response.Body.Close()
	var page struct {
		Data []struct {
			EventID string `json:"event_id"`
			Schema  string
			Type    string
			Record  string
			Body    string
		}
		Cursor  string
		Message string
	}
	if err := json.NewDecoder(response.Body).Decode(&page); err != nil || response.StatusCode/100 == 5 {
		return nil, nil, "", fmt.Errorf("the feed answers %d %s: %v", response.StatusCode, page.Message, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, "", feedRefusal(fmt.Sprint(response.StatusCode, " ", page.Message))
	}
	now := time.Now()
	for _, e := range page.Data {
		_, record, _ := strings.Cut(e.Record, ":")
		events = append(events, receiver.Delivery{Account: "1", ID: e.EventID, Schema: e.Schema, Type: e.Type, Record: record,
			Body: sha256.Sum256([]byte(e.Body)), SentAt: now, Arrived: now, Answered: now, Status: http.StatusOK, Attempt: 1})
		ids = append(ids, e.EventID)
	}
	return events, ids, page.Cursor, nil
}

// feedRefusal is an answer that no failover excuses.
type feedRefusal string

func (r feedRefusal) Error() string { return string(r) }

// follow reads until ctx ends. What cannot be answered for the moment is asked again.
func (f *feedFollower) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		events, ids, next, err := f.page(ctx, f.cursor, 1+rand.IntN(20), rand.IntN(3))
		if refused, ok := err.(feedRefusal); ok {
			return refused
		}
		if err != nil {
			linger(ctx, 50*time.Millisecond)
			continue
		}
		f.mu.Lock()
		for i := range events {
			events[i].Seq = len(f.events) + i + 1
		}
		f.events, f.ids = append(f.events, events...), append(f.ids, ids...)
		if len(events) > 0 {
			f.cursors = append(f.cursors, keptCursor{next, len(f.ids)})
		}
		f.mu.Unlock()
		f.cursor = next
	}
	return nil
}

func (f *feedFollower) read() []receiver.Delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

// TestFailover_AFeedsCursorGoesOn has a reader follow a feed while one publisher is killed
// and another one takes over, the outbox fails over, and events are replayed: it gets every
// event in its record's order, and a cursor of any time still continues where it was.
func TestFailover_AFeedsCursorGoesOn(t *testing.T) {
	t.Parallel()
	f := newFailover(t, true)
	second := f.shop.publisher(t)
	address := loopback.Address(t)
	api := newActor(t, "api", "--role", "api", "--outbox", f.outbox.URL, "--admin-token", "the operator of the test", "--catalog", f.catalog)
	api.args[2] = address
	startAll(t, f.publisher, f.sender, api)
	awaitReady(t, address)
	load := f.load(t)
	follower := &feedFollower{url: "http://" + address + "/v2/accounts/1/webhooks/account"}
	reading, end := context.WithCancel(t.Context())
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- follower.follow(reading) }()
	more := func(n int) {
		t.Helper()
		want := len(follower.read()) + n
		eventually(t, patience, func() bool {
			select {
			case err := <-ended:
				t.Fatalf("the reader ended: %v", err)
			default:
			}
			return len(follower.read()) >= want
		})
	}
	more(10)
	startAll(t, second) // it waits for the slot
	more(5)
	_ = f.publisher.end(syscall.SIGKILL)
	more(10)
	f.failOver(t)
	more(10)
	load()
	expected := slices.DeleteFunc(slices.Clone(f.allExpected()), func(e carrier.Expected) bool { return e.Account != "1" })
	judge := func() (report receiver.Report) {
		t.Helper()
		eventually(t, patience, func() bool {
			report = receiver.Verify(expected, follower.read(), receiver.Terms{})
			return report.Lost == 0
		})
		if !report.OK() {
			t.Errorf("the contract was not kept: %+v %v", report.Counts, report.Faults)
		}
		return report
	}
	judge()

	before := len(follower.read())
	mustRun(t, "replay", "--account", "1", "--since", "1h", "--outbox", f.outbox.URL)
	eventually(t, patience, func() bool { return len(follower.read()) >= before+len(expected) })
	report := judge()
	end()
	if err := <-ended; err != nil {
		t.Errorf("the reader ended: %v", err)
	}
	t.Logf("%d events, %d with those that came again, %d cursors", len(expected), len(follower.ids), len(follower.cursors))
	if report.Duplicates < len(expected) {
		t.Errorf("%d events of the replay, want %d", report.Duplicates, len(expected))
	}
	// Every cursor, also of the time before the kill and the failover, has the rest. A dying
	// primary may show what its standby has not received; that comes again.
	early, n := readEarly(t, follower.ids, follower.after(t, ""))
	t.Logf("%d events were read of the dying primary and came again", n)
	for _, kept := range follower.cursors {
		want := follower.ids[kept.before:]
		if kept.before < early+n {
			want = slices.Concat(follower.ids[min(kept.before, early):early], follower.ids[early+n:])
		}
		if rest := follower.after(t, kept.cursor); !slices.Equal(rest, want) {
			t.Fatalf("a cursor after %d events continues with %d, want %d: the first of them %v, want %v", kept.before, len(rest), len(want), head(rest), head(want))
		}
	}
	for _, a := range []*actor{second, f.sender, api} {
		a.stop(t)
	}
}

// after reads the ids of all that follows a cursor.
func (f *feedFollower) after(t *testing.T, cursor string) (all []string) {
	t.Helper()
	for {
		_, ids, next, err := f.page(t.Context(), cursor, 500, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) == 0 {
			return all
		}
		all, cursor = append(all, ids...), next
	}
}

// readEarly finds the events that were read of a primary whose standby did not have them,
// and that came again at once: how many came before them, and how many they are.
func readEarly(t *testing.T, read, log []string) (before, n int) {
	t.Helper()
	same := 0
	for same < min(len(read), len(log)) && read[same] == log[same] {
		same++
	}
	n = len(read) - len(log)
	before = same - n
	if n < 0 || before < 0 || !slices.Equal(read[before:same], read[same:same+n]) || !slices.Equal(read[same+n:], log[same:]) {
		t.Fatalf("%d events were read, and the log has %d: they part after %d: %v, %v", len(read), len(log), same, head(read[same:]), head(log[same:]))
	}
	return before, n
}

func head(list []string) []string { return list[:min(len(list), 3)] }
