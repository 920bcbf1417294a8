package outbox

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walhook/internal/pooler"
)

// elsewhere is a store of the world's outbox as another process has it.
func (w *world) elsewhere(t *testing.T, url string) (*Store, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	store, err := Open(t.Context(), Config{URL: url}, zap.New(core), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, logs
}

// listens has a store listen as a sender's does, until the test ends.
func listens(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Listen(ctx, true) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Listen: %v", err)
		}
	})
}

// runs has a publisher at work until the test ends.
func runs(t *testing.T, p *Publisher) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func isNotified(s *Store) func() bool {
	return func() bool { return time.Now().Before(s.NotifiedUntil()) }
}

// quiet takes the signals that are there, until none comes for longer than any gate holds
// one back.
func quiet(c <-chan struct{}) (signals int) {
	for {
		select {
		case <-c:
			signals++
		case <-time.After(300 * time.Millisecond):
			return signals
		}
	}
}

func signalled(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(90 * time.Second):
		t.Fatalf("%s is not signalled", what)
	}
}

func notifications(s *Store, direction string) int {
	var m dto.Metric
	_ = s.metrics.notifications.WithLabelValues(direction).Write(&m)
	return int(m.GetCounter().GetValue())
}

func listeners(t *testing.T, w *world) []string {
	t.Helper()
	return all[string](t, w, `SELECT coalesce(state, '') || coalesce(' since ' || xact_start::text, '') FROM pg_stat_activity
		WHERE application_name = '`+listenerName+`' AND datname = current_database()`)
}

func listenerPIDs(t *testing.T, w *world) []int32 {
	t.Helper()
	return all[int32](t, w, `SELECT pid FROM pg_stat_activity WHERE application_name = '`+listenerName+`' AND datname = current_database()`)
}

// The sender of another process polls seldom once it has heard the publisher, and each
// append wakes it. What it listens on is inside no transaction.
func TestListen_AnAppendOfAnotherProcessIsSignalled(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	other, _ := f.elsewhere(t, f.db.URL)
	listens(t, other)
	runs(t, f.publisher)
	eventually(t, "a notification of the publisher", isNotified(other))
	wantLines(t, listeners(t, f.world), "idle")
	quiet(other.Appended())
	session, err := other.Join(t.Context(), "elsewhere", lease)
	if err != nil {
		t.Fatal(err)
	}
	after := int64(0)
	for id := 1; id <= 3; id++ {
		f.commit(t, dids.Insert(id, 7, "1"))
		signalled(t, "an append", other.Appended())
		stretch, err := session.Tail(t.Context(), TailQuery{After: after, Shards: allHeld(), Limit: 100, MaxBytes: 1 << 20})
		if err != nil || stretch.Upto <= after {
			t.Fatalf("read up to %d after %d, %v: the signal came before the append", stretch.Upto, after, err)
		}
		after = stretch.Upto
	}
	// It has read what the publisher's next notifications name: they start nothing. Those
	// before them may have started something that is still held back.
	twoMore := func() {
		before := notifications(other, notificationReceived)
		eventually(t, "two more notifications", func() bool { return notifications(other, notificationReceived) >= before+2 })
	}
	twoMore()
	quiet(other.Appended())
	twoMore()
	if n := quiet(other.Appended()); n > 0 {
		t.Errorf("%d looks for what was read", n)
	}
}

// What a process notifies others of that changed without an append.
func TestListen_ChangesOfOtherProcessesAreSignalled(t *testing.T) {
	w := newWorld(t)
	listens(t, w.store)
	eventually(t, "the listener", func() bool { return len(listeners(t, w)) == 1 })
	other, _ := w.elsewhere(t, w.db.URL)
	access := other.Access()
	for _, one := range []struct {
		what   string
		notify func()
		to     chan struct{}
	}{
		{"an endpoint", access.NotifyEndpoints, w.store.changed},
		{"the inbox", access.NotifyInbox, w.store.inboxed},
		{"a request", access.NotifyRequest, w.store.requested},
	} {
		quiet(one.to)
		one.notify()
		signalled(t, one.what, one.to)
	}
	// A command ends at once: what it has to say is sent all the same.
	quiet(w.store.changed)
	access.NotifyEndpoints()
	other.Close()
	signalled(t, "an endpoint, by a command that ended", w.store.changed)
	if until := w.store.NotifiedUntil(); !until.IsZero() {
		t.Error("a process that publishes nothing passes for a publisher")
	}
}

// A process does not act on its own notifications, and one that is alone sends none.
func TestNotifier_AnAloneProcessSendsNothing(t *testing.T) {
	f := newFeed(t)
	listens(t, f.store)
	runs(t, f.publisher)
	eventually(t, "the publisher to know that it is alone", f.store.notifier.alone.Load)
	before := notifications(f.store, notificationSent)
	for id := range 20 {
		f.commit(t, account(100+id))
	}
	eventually(t, "a sender beside the publisher to rely on it", isNotified(f.store))
	if sent := notifications(f.store, notificationSent); sent != before {
		t.Errorf("sent %d notifications to nobody", sent-before)
	}
	if n := notifications(f.store, notificationReceived); n > 0 {
		t.Errorf("acted on %d notifications of its own", n)
	}
	other, _ := f.elsewhere(t, f.db.URL)
	listens(t, other)
	eventually(t, "a notification for the new process", isNotified(other))
}

// A connection that ends is made again, and nothing is relied upon meanwhile.
func TestListen_AfterACutItPollsLooksAndListensAgain(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	other, logs := f.elsewhere(t, f.db.URL)
	listens(t, other)
	runs(t, f.publisher)
	for cut := range 4 {
		eventually(t, "a notification of the publisher", isNotified(other))
		cutListener(t, f, other, cut)
	}
	if logs.FilterMessage("no notifications from other processes, polling the outbox meanwhile").Len() != 1 {
		t.Errorf("logged for each cut: %v", logs.All())
	}
}

// cutListener ends the connection that a store listens on, while the publisher says
// nothing.
func cutListener(t *testing.T, f *feed, other *Store, cut int) {
	t.Helper()
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	quiet(other.Appended())
	before := listenerPIDs(t, f.world)
	f.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '`+listenerName+`' AND datname = current_database()`)
	signalled(t, "the cut", other.Appended())
	if until := other.NotifiedUntil(); !until.IsZero() {
		t.Errorf("cut %d: the process relies on notifications until %v", cut, until)
	}
	eventually(t, "another connection", func() bool {
		now := listenerPIDs(t, f.world)
		return len(now) == 1 && now[0] != before[0]
	})
	signalled(t, "what was missed", other.Appended())
}

// A flood that anybody may send costs a bounded number of looks, and hides nothing.
func TestListen_AFloodStartsFewLooks(t *testing.T) {
	w := newWorld(t)
	listens(t, w.store)
	eventually(t, "the listener", func() bool { return len(listeners(t, w)) == 1 })
	quiet(w.store.appended)
	began := time.Now()
	var looks, others atomic.Int64
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-w.store.appended:
				looks.Add(1)
			case <-w.store.changed:
				others.Add(1)
			case <-w.store.inboxed:
				others.Add(1)
			case <-w.store.requested:
				others.Add(1)
			}
		}
	}()
	const each = 10_000
	for _, payload := range []string{
		`i::text`, `'1 x'`, `''`, `repeat('a', 7000) || i`, `'1 ' || i || ' a'`, `'2 other a 7'`, `'1 other a -' || i`, `'1 other a 99999999999999999999' || i`,
		`'1 other aeirl ' || 9223372036854775807 - i`, // well formed, of ids that no event has
	} {
		n := each
		if strings.HasPrefix(payload, "repeat") {
			n = 500
		}
		w.exec(t, fmt.Sprintf(`SELECT pg_notify('%s', %s) FROM generate_series(1, %d) i`, channel, payload, n))
	}
	eventually(t, "the end of the flood", func() bool { return notifications(w.store, notificationReceived) >= each })
	tails, rest := looks.Load(), others.Load()
	took := time.Since(began)
	close(done)
	if most := int64(took.Seconds()*tailsPerSecond) + 2*tailsAtOnce; tails > most {
		t.Errorf("%d looks at the event log in %s, want %d at most", tails, took, most)
	}
	if most := 3 * (int64(took.Seconds()*looksPerSecond) + 2*looksAtOnce); rest > most {
		t.Errorf("%d other looks in %s, want %d at most", rest, took, most)
	}
	if tails == 0 || notifications(w.store, notificationIgnored) == 0 {
		t.Errorf("%d looks, %d ignored: the flood did not arrive", tails, notifications(w.store, notificationIgnored))
	}
	// An id from the future is not remembered as one that was read.
	quiet(w.store.appended)
	w.exec(t, `SELECT pg_notify('`+channel+`', '1 other a 1')`)
	signalled(t, "the first event", w.store.appended)
}

// However often something is appended, a process notifies 200 times a second at most,
// and the last notification names the last event.
func TestNotifier_SendsNoMoreThan200ASecond(t *testing.T) {
	w := newWorld(t)
	w.exec(t, "LISTEN "+channel)
	began := time.Now()
	last := int64(0)
	for time.Since(began) < 2*time.Second {
		last++
		w.store.signalAppended(last)
		time.Sleep(200 * time.Microsecond)
	}
	received, newest := 0, int64(0)
	for newest < last {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		n, err := w.conn.WaitForNotification(ctx)
		cancel()
		if err != nil {
			t.Fatalf("after event %d of %d: %v", newest, last, err)
		}
		parsed, ok := parseNotification(n.Payload)
		if !ok || parsed.news != newsAppended || parsed.newest < newest || parsed.newest > last {
			t.Fatalf("notification %q after event %d", n.Payload, newest)
		}
		received, newest = received+1, parsed.newest
	}
	took := time.Since(began)
	if most := int(took/notifyEvery) + 2; received > most || received < 2 {
		t.Errorf("%d notifications of %d appends in %s, want %d at most", received, last, took, most)
	}
}

// A notification that the server refuses is tried again; nobody waits for it.
func TestNotifier_TriesARefusedNotificationAgain(t *testing.T) {
	w := newWorldAlone(t)
	role := "mute_" + w.db.Name
	w.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'p'")
	w.exec(t, "REVOKE EXECUTE ON FUNCTION pg_notify FROM PUBLIC")
	address, err := url.Parse(w.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.UserPassword(role, "p")
	mute, logs := w.elsewhere(t, address.String())
	mute.signalAppended(41)
	eventually(t, "two refused ones", func() bool { return notifications(mute, notificationFailed) >= 2 })
	if n := logs.FilterMessage("notifying other processes failed, they poll meanwhile").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
	w.exec(t, "LISTEN "+channel)
	w.exec(t, "GRANT EXECUTE ON FUNCTION pg_notify TO "+role)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	n, err := w.conn.WaitForNotification(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if parsed, _ := parseNotification(n.Payload); parsed.newest != 41 {
		t.Errorf("notification %q", n.Payload)
	}
}

// A pooler that keeps a session per client passes notifications on. One that lends
// sessions per transaction does not, whatever process id it tells, and gets no LISTEN.
func TestListen_KnowsAPoolerThatPassesNoNotifications(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		options  pooler.Options
		notified bool
	}{
		{"by session", pooler.Options{}, true},
		{"by session, with the server's process id", pooler.Options{ServerPID: true}, true},
		{"by transaction", pooler.Options{Transaction: true}, false},
		{"by transaction, with the server's process id", pooler.Options{Transaction: true, ServerPID: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeedAlone(t)
			runs(t, f.publisher)
			address, err := url.Parse(f.db.URL)
			if err != nil {
				t.Fatal(err)
			}
			address.Host = pooler.Start(t, f.db.URL, c.options)
			store, logs := f.elsewhere(t, address.String())
			listens(t, store)
			if c.notified {
				eventually(t, "a notification of the publisher", isNotified(store))
				return
			}
			const polling = "polling the outbox for events of other processes: notifications do not pass the connection pooler"
			eventually(t, "the log", func() bool { return logs.FilterMessage(polling).Len() > 0 })
			conn, err := pgx.Connect(t.Context(), address.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			var channels int
			if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_listening_channels()`).Scan(&channels); err != nil || channels > 0 {
				t.Errorf("%d channels, %v, in a session that others get", channels, err)
			}
			if isNotified(store)() {
				t.Error("it relies on notifications")
			}
			if all := logs.FilterMessage(polling).All(); len(all) != 1 || all[0].Level != zap.InfoLevel {
				t.Errorf("logged %v", all)
			}
		})
	}
}

func TestNotification_IsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	for what := range news(1 << len(newsLetters)) {
		for _, newest := range []int64{0, 1, 1<<63 - 1} {
			want := notification{process: newProcess(), news: what, newest: newest}
			if len(want.String()) > maxPayload {
				t.Errorf("%q is longer than what is read", want)
			}
			if got, ok := parseNotification(want.String()); !ok || got != want {
				t.Errorf("%q is read as %+v, %t", want, got, ok)
			}
		}
	}
	if n, ok := parseNotification("1 p az 5"); !ok || n.news != newsAppended {
		t.Errorf("news of a later version hide what is known: %+v, %t", n, ok)
	}
}

func FuzzParseNotification(f *testing.F) {
	f.Add("1 0123456789abcdef ae 5")
	f.Add("1  a 5")
	f.Add("2 p a -1")
	f.Fuzz(func(t *testing.T, payload string) {
		n, ok := parseNotification(payload)
		if !ok {
			return
		}
		if again, ok := parseNotification(n.String()); !ok || again != n {
			t.Errorf("%q is %+v, and that is read as %+v", payload, n, again)
		}
	})
}
