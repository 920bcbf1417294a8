package sender

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// A separate sending process is this test's binary with the outbox's URL in childEnv and
// a name in childName, which its User-Agent shows.
const (
	childEnv  = "TEST_SENDER_OUTBOX"
	childName = "TEST_SENDER_NAME"

	childLease = 6 * time.Second // far more than a busy machine holds up a sender that runs
)

func beSender(url string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log, err := zap.NewDevelopment()
	if err != nil {
		return 1
	}
	store, err := outbox.Open(ctx, outbox.Config{URL: url}, log, prometheus.NewRegistry())
	if err != nil {
		log.Error("open", zap.Error(err))
		return 1
	}
	defer store.Close()
	s, err := New(Config{
		Name: os.Getenv(childName), Lease: childLease,
		HTTP: deliver.Config{Version: os.Getenv(childName), AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	}, Outbox(store), log, prometheus.NewRegistry())
	if err == nil {
		err = s.Run(ctx)
	}
	if err != nil {
		log.Error("run", zap.Error(err))
		return 1
	}
	return 0
}

func startChild(t *testing.T, url, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+url, childName+"="+name)
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT) // one that is stopped does not end
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func signalChild(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// witness is a receiver that notes which sender sent what. It answers the first sender
// only once hold is closed.
type witness struct {
	mu    sync.Mutex
	from  map[string][]string // event → senders, in order
	first string
	hold  chan struct{} // closed when the first sender is answered
}

func (w *witness) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	sender := strings.TrimPrefix(r.Header.Get("User-Agent"), "walhook/")
	w.mu.Lock()
	id := r.Header.Get("webhook-id")
	w.from[id] = append(w.from[id], sender)
	held := sender == w.first && len(w.of(sender)) > 40
	w.mu.Unlock()
	if held {
		<-w.hold
	}
}

// of lists the events that a sender has sent. The caller holds mu.
func (w *witness) of(sender string) (ids []string) {
	for id, senders := range w.from {
		for _, s := range senders {
			if s == sender {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func (w *witness) count(sender string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.of(sender))
}

// atRest is count once it has stopped rising.
func (w *witness) atRest(sender string) int {
	for before := -1; ; <-time.After(300 * time.Millisecond) {
		now := w.count(sender)
		if now == before {
			return now
		}
		before = now
	}
}

// TestSender_OnPostgresAPausedSenderStartsNothingWithItsOldLease stops a sender
// with attempts in flight and more in its buffers, past its lease, until
// another has taken over and delivered everything. When it continues, it cannot reach
// the outbox at first, so only its own clocks show that the lease has ended.
func TestSender_OnPostgresAPausedSenderStartsNothingWithItsOldLease(t *testing.T) {
	t.Parallel()
	w := &witness{from: map[string][]string{}, first: "one", hold: make(chan struct{})}
	server := httptest.NewServer(w)
	defer server.Close()
	let := sync.OnceFunc(func() { close(w.hold) })
	defer let()
	_, conn := openOutbox(t, server.URL)
	url := conn.Config().ConnString()
	const n = 300 // more than the window, less than what a lane buffers by far
	execute(t, conn, appendSQL, 1, n, 1)

	one := startChild(t, url, "one")
	waitFor(t, "attempts in flight", func() bool { return w.count("one") > 45 })
	signalChild(t, one, syscall.SIGSTOP)
	w.atRest("one") // what it had written may still be on its way to the receiver
	var stored int  // of those; a settlement may still be on its way
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM walhook.attempt`).Scan(&stored); err != nil {
		t.Fatal(err)
	}
	startChild(t, url, "two")
	eventually(t, conn, n, `SELECT count(DISTINCT event_id) FROM walhook.attempt WHERE outcome = 'delivered'`)

	lock, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close(context.Background())
	execute(t, lock, "BEGIN")
	execute(t, lock, "LOCK TABLE walhook.sender, walhook.shard IN ACCESS EXCLUSIVE MODE")
	atStop := w.atRest("one")
	let() // its attempts in flight are answered the moment it goes on
	signalChild(t, one, syscall.SIGCONT)
	<-time.After(500 * time.Millisecond) // of freedom to do wrong
	if got := w.count("one"); got != atStop {
		t.Errorf("%d attempts started after the lease was over", got-atStop)
	}
	execute(t, lock, "COMMIT")

	// It comes back as a sender among others, and what is new is delivered once.
	eventually(t, conn, 2, `SELECT count(DISTINCT sender) FROM walhook.shard WHERE sender IS NOT NULL`)
	execute(t, conn, appendSQL, n+1, n+100, 1)
	eventually(t, conn, n+100, `SELECT count(DISTINCT event_id) FROM walhook.attempt WHERE outcome = 'delivered'`)
	var rows, events int
	if err := conn.QueryRow(t.Context(), `SELECT count(*), count(DISTINCT event_id) FROM walhook.attempt`).Scan(&rows, &events); err != nil {
		t.Fatal(err)
	}
	if rows != events {
		t.Errorf("%d attempts of %d events are stored: one that was settled with the old lease among them", rows, events)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	repeated := 0
	for id, senders := range w.from {
		if len(senders) > 1 {
			repeated++
		}
		if len(senders) > 2 {
			t.Errorf("%s was sent %d times", id, len(senders))
		}
	}
	if repeated > atStop-stored {
		t.Errorf("%d events were repeated, more than the %d that were not settled", repeated, atStop-stored)
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("no %s within %s", what, patience)
		case <-tick.C:
		}
	}
}
