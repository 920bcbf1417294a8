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

	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/sender/deliver"
)

// A name that leads to a forbidden address each time is shown as an endpoint that
// only fails, with that reason, in every list of the operator, by any process. One
// that does so at times is retried, and then nothing is shown.
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
	for limit := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		endpoints, err := elsewhere.ListEndpoints(ctx)
		if err != nil {
			t.Fatal(err)
		}
		status, err := elsewhere.Status(ctx)
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
			// The account is not told what its name leads to.
			reasons == "retry unreachable, delivered 2xx" && sometimes.Lane.FailingSince.IsZero() && sometimes.Retries == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("not seen:\n%s", seen)
		}
	}
}

// namedDestination stands in for the name servers alone: it makes each attempt at
// one of the addresses that the endpoint's name leads to, the last one for good.
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
