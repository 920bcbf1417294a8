package sender

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/doctor"
	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/sender/deliver"
)

// An endpoint with a forbidden host is unusable before its first event. The sender tries
// and loses nothing: once the host is allowed, it delivers what was held.
func TestHeldHost_IsAStateAndGoesOnOnceItIsAllowed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := pgtest.Database(t)
	if err := outbox.Migrate(ctx, db.URL); err != nil {
		t.Fatal(err)
	}
	store, err := outbox.Open(ctx, outbox.Config{URL: db.URL}, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	conn := db.Connect(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		execute(t, conn, sql, args...)
	}
	count := func(sql string) (n int) {
		t.Helper()
		if err := conn.QueryRow(ctx, sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	soon := func(what string, is func() bool) {
		t.Helper()
		for limit := time.Now().Add(patience); !is(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("not seen: " + what)
			}
		}
	}
	good := newReceiver(t, 0)
	_, port, _ := strings.Cut(strings.TrimPrefix(good.server.URL, "http://"), ":")
	insert := `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, revision) VALUES ($1, 'account', $2, 'active', $3, 1)`
	held := []string{ // each leads to the receiver
		"http://127.0.0.1:" + port, "http://2130706433:" + port + "/x", "http://user:pass@0x7f.1:" + port, "http://LOCALHOST.:" + port, "http://[::ffff:127.0.0.1]:" + port + "/y?z",
	}
	for i, address := range held {
		exec(insert, fmt.Sprint(i), address, secretA)
	}
	exec(insert, "port", "http://example.com:22/", secretA)
	exec(insert, "none", "http://xn--a.example/", secretA) // as an earlier version stored it

	shown := func() (unusable int) {
		t.Helper()
		endpoints, err := admin.New(store).ListEndpoints(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range endpoints {
			w, err := admin.New(store).Webhook(ctx, e.Account, "account")
			if err != nil {
				t.Fatal(err)
			}
			if e.State != w.State || e.Reason != w.DisableReason {
				return -1 // it changes at the moment
			}
			if e.State == outbox.EndpointUnusable {
				if e.Reason == "" || strings.Contains(e.Reason, "127.0.0.1") {
					t.Errorf("the account is told %q", e.Reason)
				}
				unusable++
			}
		}
		return unusable
	}
	exec(`UPDATE walhook.endpoint SET changed_at = now() - interval '1 day'`) // as those of a database that is served already
	reasons := map[string]bool{}
	start := func(allow ...string) func() {
		var networks []netip.Prefix
		for _, network := range allow {
			networks = append(networks, netip.MustParsePrefix(network))
		}
		s, err := New(Config{HTTP: deliver.Config{AllowCIDR: networks}, OnAttempt: func(a AttemptReport) { reasons[a.Reason] = true }, RetrySchedule: []time.Duration{time.Millisecond}}, Outbox(store), zap.NewNop(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		return func() {
			t.Helper()
			cancel()
			if err := <-done; err != nil {
				t.Errorf("sender: %v", err)
			}
		}
	}
	stop := start()
	soon("every endpoint is held before it has an event", func() bool { return shown() == len(held)+2 })
	for i := range held {
		exec(`INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
			SELECT $1::int, id, 1, 'dids:1', 'evt_' || $1, 'dids', 'insert', now(), now(), '{}' FROM walhook.endpoint WHERE account = $2`, i+1, fmt.Sprint(i))
	}
	// One that is set while the sender runs.
	exec(insert, "late", "http://10.1.2.3/", secretA)
	soon("the one set last is held", func() bool { return shown() == len(held)+3 })
	exec(`UPDATE walhook.endpoint SET url = $1, revision = revision + 1, changed_at = clock_timestamp() WHERE account = 'late'`, "https://example.com/")
	soon("another URL ends it", func() bool { return shown() == len(held)+2 })
	warned := false
	for _, finding := range outbox.Examine(ctx, outbox.Config{URL: db.URL}, doctor.Options{}) {
		warned = warned || finding.ID == "outbox.set_aside" && finding.Status == doctor.Warning && strings.Contains(finding.Evidence, "set aside as host")
	}
	if !warned {
		t.Error("doctor does not name them")
	}
	time.Sleep(time.Second)
	stop()
	if n := count("SELECT (SELECT count(*) FROM walhook.attempt) + (SELECT count(*) FROM walhook.retry) + (SELECT count(*) FROM walhook.dead_letter)"); n != 0 || len(reasons) > 0 {
		t.Errorf("%d attempts, retries and dead letters of what is held", n)
	}

	stop = start("127.0.0.0/8")
	soon("what was held is delivered", func() bool {
		return count("SELECT count(*) FROM walhook.attempt WHERE outcome = 'delivered'") == len(held)
	})
	soon("and no longer shown as held", func() bool { return shown() == 2 }) // a port, and no host at all
	stop()
	good.mu.Lock()
	defer good.mu.Unlock()
	if len(good.times) != len(held) {
		t.Errorf("%d events arrived, want %d", len(good.times), len(held))
	}
}

// An endpoint whose name always resolves to a forbidden address is listed as one that
// only fails, with that reason, by every process. One whose name sometimes does is
// retried, and then not listed.
func TestHeldHost_ANameThatIsForbiddenIsShownAndOneThatOnlySometimesIsIsRetried(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	db := pgtest.Database(t)
	if err := outbox.Migrate(ctx, db.URL); err != nil {
		t.Fatal(err)
	}
	open := func() *outbox.Store {
		store, err := outbox.Open(ctx, outbox.Config{URL: db.URL}, zap.NewNop(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		return store
	}
	good := newReceiver(t, 0)
	_, port, _ := strings.Cut(strings.TrimPrefix(good.server.URL, "http://"), ":")
	conn := db.Connect(t)
	for i, name := range []string{"always", "sometimes"} {
		execute(t, conn, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, revision) VALUES ($1, 'account', $2, 'active', $3, 1)`,
			name, "http://"+name+".example.:"+port+"/", secretA)
		execute(t, conn, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
			SELECT $1::int, id, 1, 'dids:1', 'evt_' || $1, 'dids', 'insert', now(), now(), '{}' FROM walhook.endpoint WHERE account = $2`, i+1, name)
	}
	s, err := New(Config{HTTP: deliver.Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, RetrySchedule: []time.Duration{time.Millisecond, time.Hour}}, Outbox(open()), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s.destination = &namedDestination{Destination: s.destination, lead: map[string][]string{"always": {"10.1.2.3"}, "sometimes": {"10.1.2.3", "127.0.0.1"}}}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("sender: %v", err)
		}
	})

	elsewhere := open() // as a process that sends nothing has it
	var seen string
	for limit := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		endpoints, err := admin.New(elsewhere).ListEndpoints(ctx)
		if err != nil {
			t.Fatal(err)
		}
		status, err := admin.New(elsewhere).Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		always, sometimes := &endpoints[0], &endpoints[1]
		var listed strings.Builder
		for i := range status.Worst {
			listed.WriteString(status.Worst[i].Account + " " + status.Worst[i].Lane.LastReason + "; ")
		}
		var reasons string
		if err := conn.QueryRow(ctx, `SELECT coalesce(string_agg(outcome || ' ' || reason, ', ' ORDER BY number), '') FROM walhook.attempt WHERE endpoint = $1`, sometimes.ID).Scan(&reasons); err != nil {
			t.Fatal(err)
		}
		seen = fmt.Sprintf("%+v\n%+v\nworst %s\nattempts %s", always.Lane, sometimes.Lane, listed.String(), reasons)
		if !always.Lane.FailingSince.IsZero() && always.Lane.LastReason == "blocked_address" && always.Retries == 1 && listed.String() == "always blocked_address; " &&
			// The account does not see the address of its name.
			reasons == "retry unreachable, delivered 2xx" && sometimes.Lane.FailingSince.IsZero() && sometimes.Retries == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("not seen:\n%s", seen)
		}
	}
}

// namedDestination replaces the name servers: each attempt goes to the next of the
// addresses of the endpoint's name, and in the end always to the last one.
type namedDestination struct {
	deliver.Destination
	mu   sync.Mutex
	lead map[string][]string // by account; guarded by mu
}

func (d *namedDestination) Deliver(ctx context.Context, endpoint outbox.Endpoint, event outbox.Event) deliver.Result {
	d.mu.Lock()
	addresses := d.lead[endpoint.Account]
	if len(addresses) > 1 {
		d.lead[endpoint.Account] = addresses[1:]
	}
	d.mu.Unlock()
	endpoint.URL = strings.Replace(endpoint.URL, endpoint.Account+".example.", addresses[0], 1)
	return d.Destination.Deliver(ctx, endpoint, event)
}
