package sender

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/zap"

	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childEnv); url != "" {
		os.Exit(beSender(url))
	}
	os.Exit(pgtest.Main(m))
}

// patience bounds every wait of a test for something that has to happen.
const patience = 90 * time.Second

// secretA is what the endpoints of these tests sign with.
const secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver is an endpoint that checks what it gets.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	fails  float64

	mu    sync.Mutex
	times map[string]int // webhook-id → how often answered with 200
	order []string       // bodies in order of their first 200
}

func newReceiver(t *testing.T, fails float64) *receiver {
	r := &receiver{t: t, fails: fails, times: map[string]int{}}
	official, err := standardwebhooks.NewWebhook(secretA)
	if err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if err := official.Verify(body, req.Header); err != nil {
			t.Errorf("verify: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if rand.Float64() < r.fails {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		id := req.Header.Get("webhook-id")
		if r.times[id]++; r.times[id] == 1 {
			r.order = append(r.order, string(body))
		}
	}))
	t.Cleanup(r.server.Close)
	return r
}

// check wants each of n events once, and rising numbers within a record.
func (r *receiver) check(name string, n int) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.times) != n {
		r.t.Errorf("%s: %d of %d events arrived", name, len(r.times), n)
	}
	for id, times := range r.times {
		if times != 1 {
			r.t.Errorf("%s: %s arrived %d times", name, id, times)
		}
	}
	last := map[string]int{}
	for _, body := range r.order {
		record, _, _ := strings.Cut(body, " ")
		if n := number(r.t, body); n < last[record] {
			r.t.Errorf("%s: record %s: %d after %d", name, record, n, last[record])
		} else {
			last[record] = n
		}
	}
}

// number is the event's in a body of appendSQL.
func number(t *testing.T, body string) int {
	t.Helper()
	_, digits, _ := strings.Cut(body, " ")
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// openOutbox makes an outbox with the given endpoints, ids from 1 on.
func openOutbox(t *testing.T, urls ...string) (*outbox.Store, *pgx.Conn) {
	t.Helper()
	db := pgtest.Database(t)
	if err := outbox.Migrate(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	store, err := outbox.Open(t.Context(), outbox.Config{URL: db.URL}, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	conn := db.Connect(t)
	for i, url := range urls {
		execute(t, conn, `INSERT INTO walhook.endpoint (account, url, state, secret) VALUES ($1, $2, 'active', $3)`, fmt.Sprint(i+1), url, secretA)
	}
	return store, conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

const appendSQL = `
	INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
	SELECT g, 1 + g % $3, 1, 'dids ' || g % 50, 'evt_' || g, 'dids', 'update', now(), now(), convert_to(g % 50 || ' ' || g, 'UTF8')
	FROM generate_series($1::bigint, $2::bigint) g`

func startReal(t *testing.T, store *outbox.Store, schedule ...time.Duration) (stop func()) {
	t.Helper()
	if schedule == nil {
		schedule = []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond}
	}
	s, err := New(Config{
		HTTP:          deliver.Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		RetrySchedule: schedule,
	}, Outbox(store), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// eventually polls a query until it answers want.
func eventually(t *testing.T, conn *pgx.Conn, want int, sql string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var got int
		if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got == want {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: %d, want %d", sql, got, want)
		case <-tick.C:
		}
	}
}

func TestSender_OnPostgresDeliversInOrderAndACleanStopRepeatsNothing(t *testing.T) {
	t.Parallel()
	healthy, flaky := newReceiver(t, 0), newReceiver(t, .1)
	store, conn := openOutbox(t, flaky.server.URL, healthy.server.URL)
	execute(t, conn, appendSQL, 1, 1000, 2)
	stop := startReal(t, store)
	eventually(t, conn, 500, `SELECT count(*) FROM walhook.attempt WHERE endpoint = 2 AND outcome = 'delivered'`)
	execute(t, conn, appendSQL, 1001, 2000, 2)
	stop() // amid deliveries
	var senders, held int
	if err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM walhook.sender), (SELECT count(*) FROM walhook.shard WHERE sender IS NOT NULL)`).Scan(&senders, &held); err != nil {
		t.Fatal(err)
	}
	if senders != 0 || held != 0 {
		t.Errorf("after the stop: %d senders, %d shards held", senders, held)
	}
	stop = startReal(t, store)
	eventually(t, conn, 2000, `SELECT count(DISTINCT event_id) FROM walhook.attempt WHERE outcome = 'delivered'`)
	eventually(t, conn, 0, `SELECT count(*) FROM walhook.retry`)
	stop()
	healthy.check("healthy", 1000)
	flaky.check("flaky", 1000)
}

func TestSender_OnPostgresKeepsADeadEndpointsLaneForTheNextOwner(t *testing.T) {
	t.Parallel()
	dead, healthy := newReceiver(t, 1), newReceiver(t, 0)
	store, conn := openOutbox(t, dead.server.URL, healthy.server.URL)
	execute(t, conn, appendSQL, 1, 2000, 2)
	stop := startReal(t, store)
	eventually(t, conn, 1000, `SELECT count(*) FROM walhook.attempt WHERE endpoint = 2`)
	stop()
	var open, behind bool
	var rows int
	if err := conn.QueryRow(t.Context(), `SELECT open, behind, (SELECT count(*) FROM walhook.retry) FROM walhook.lane WHERE endpoint = 1`).Scan(&open, &behind, &rows); err != nil {
		t.Fatal(err)
	}
	if !open || !behind || rows > 60 {
		t.Errorf("lane of the dead endpoint: open %v, behind %v, %d rows in retry", open, behind, rows)
	}
	dead.mu.Lock()
	dead.fails = 0
	dead.mu.Unlock()
	execute(t, conn, `UPDATE walhook.lane SET open_until = clock_timestamp() + interval '1 s'`) // instead of ten
	stop = startReal(t, store)
	eventually(t, conn, 2000, `SELECT count(DISTINCT event_id) FROM walhook.attempt WHERE outcome = 'delivered'`)
	stop()
	dead.check("dead, then alive", 1000)
	healthy.check("healthy", 1000)
}

func TestSender_OnPostgresTwoSendersShareTheLanes(t *testing.T) {
	t.Parallel()
	var receivers []*receiver
	var urls []string
	for range 8 {
		r := newReceiver(t, .05)
		receivers = append(receivers, r)
		urls = append(urls, r.server.URL)
	}
	store, conn := openOutbox(t, urls...)
	execute(t, conn, appendSQL, 1, 1000, 8)
	stopOne := startReal(t, store)
	eventually(t, conn, 1, `SELECT count(DISTINCT sender) FROM walhook.shard WHERE sender IS NOT NULL`)
	stopTwo := startReal(t, store)
	execute(t, conn, appendSQL, 1001, 2000, 8)
	eventually(t, conn, 2, `SELECT count(DISTINCT sender) FROM walhook.shard WHERE sender IS NOT NULL`)
	execute(t, conn, appendSQL, 2001, 3000, 8)
	stopOne()
	execute(t, conn, appendSQL, 3001, 4000, 8)
	eventually(t, conn, 4000, `SELECT count(DISTINCT event_id) FROM walhook.attempt WHERE outcome = 'delivered'`)
	stopTwo()
	for i, r := range receivers {
		r.check(fmt.Sprint("receiver ", i+1), 500)
	}
}
