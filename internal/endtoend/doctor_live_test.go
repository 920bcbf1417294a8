package endtoend

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// TestDoctor_DisturbsNobody examines a pipeline that is at work, again and
// again: nothing is lost, repeated or held up, doctor finds nothing, though
// positions move while it looks, and no transaction of it ever writes.
func TestDoctor_DisturbsNobody(t *testing.T) {
	t.Parallel()
	settings := healthy()
	settings["autovacuum"] = "off"
	p := newPatient(t, pgtest.NewCluster(t, pgcluster.Options{Settings: settings}))
	var mu sync.Mutex
	arrived := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		arrived[r.Header.Get("Webhook-Id")]++
	}))
	t.Cleanup(server.Close)
	p.exec(t, fmt.Sprintf("UPDATE users SET web_hook_url = '%s'", server.URL))
	p.settings["allow-cidr"] = "127.0.0.0/8"
	p.setup(t)
	process := startChild(t, append([]string{"run", "--listen", "off"}, p.flags(t, []string{"run"})...)...)

	const checkups = 10
	examined := make(chan struct{})
	go func() {
		defer close(examined)
		for range checkups {
			if findings := p.examine(t); len(bad(findings)) > 0 {
				t.Errorf("doctor names %q in what is well:\n%s", bad(findings), describe(findings))
			}
		}
	}()
	conn := p.db.Connect(t)
	rows := 0
	for working := true; working; rows++ { // something is always on its way
		if _, err := conn.Exec(t.Context(), "INSERT INTO items VALUES ($1, 7, 'x')", rows); err != nil {
			t.Fatal(err)
		}
		select {
		case <-examined:
			working = false
		default:
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		n := len(arrived)
		mu.Unlock()
		if n == rows {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events arrived", n, rows)
		}
	}
	process.stop(t)
	for id, n := range arrived {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}

	// Whatever writes takes a transaction id.
	next := func() (xid int64) {
		if err := conn.QueryRow(t.Context(), "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").Scan(&xid); err != nil {
			t.Fatal(err)
		}
		return xid
	}
	before := next()
	for range 3 {
		wantBad(t, p.examine(t))
	}
	if after := next(); after != before {
		t.Errorf("doctor took %d transaction ids", after-before)
	}
}

// TestDoctor_WaitsForNoLockForLong examines a source and an outbox whose every
// table somebody else has locked: the server opens a few of them to answer.
func TestDoctor_WaitsForNoLockForLong(t *testing.T) {
	t.Parallel()
	p := newPatient(t, pgtest.NewCluster(t, pgcluster.Options{Settings: healthy()}))
	p.apart(t)
	p.setup(t)
	lock := func(conn *pgx.Conn, tables string) {
		if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE "+tables+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
	}
	lock(p.db.Connect(t), "users, items, notes, calls")
	lock(p.outbox.Connect(t), "walhook.gap, walhook.shard, walhook.sender, walhook.endpoint")
	began := time.Now()
	findings := p.examine(t)
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, id := range []string{"outbox.gaps", "outbox.senders", "outbox.shards", "outbox.secrets"} {
		if !slices.Contains(bad(findings), id) {
			t.Errorf("%s looks as if it had been made", id)
		}
	}
	for _, f := range findings {
		if f.Bad() && (f.Status != doctor.Warning || !strings.Contains(f.Evidence, "the check failed")) {
			t.Errorf("%s is %s: %s", f.ID, f.Status, f.Evidence)
		}
	}
}
