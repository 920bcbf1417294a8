package endtoend

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// A source that refuses the role ends neither the process nor its senders: what
// is stored is sent and sent again meanwhile, and reading goes on by itself once
// the source allows it.
func TestOutage_SendersContinueWhileTheSourceRefusesTheRole(t *testing.T) {
	t.Parallel()
	var status, requests, delivered atomic.Int64
	status.Store(http.StatusInternalServerError)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		if status.Load() == http.StatusOK {
			delivered.Add(1)
		}
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	db := pgtest.Database(t)
	role, slot, listen := "reader_"+db.Name, "trouble_"+db.Name, loopback.Address(t)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (7, 'n', '`+server.URL+`')`)
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION SUPERUSER PASSWORD 'pw'`)
	mustRun(t, "setup", "--source", db.URL, "--slot", slot)
	args := []string{"run", "--source", withUser(t, db.URL, role, "pw"), "--outbox", db.URL, "--slot", slot, "--listen", listen,
		"--allow-cidr", "127.0.0.0/8", "--retry-schedule", "500ms,500ms,500ms,500ms,500ms,500ms,500ms,500ms,500ms,500ms"}
	p := startChild(t, args...)
	awaitReady(t, listen)
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`)
	eventually(t, 20*time.Second, func() bool { return requests.Load() >= 1 })

	refuse := func() {
		db.Exec(t, `ALTER ROLE `+role+` NOLOGIN`)
		db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '`+role+`'`)
	}
	ready := func() int {
		resp, err := http.Get("http://" + listen + "/readyz")
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	refuse()
	eventually(t, 20*time.Second, func() bool { return ready() == http.StatusServiceUnavailable })
	status.Store(http.StatusOK)
	eventually(t, 20*time.Second, func() bool { return delivered.Load() == 1 }) // a retry, of what is stored
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (2, 7, '2')`)
	db.Exec(t, `ALTER ROLE `+role+` LOGIN`)
	eventually(t, 60*time.Second, func() bool { return delivered.Load() == 2 && ready() == http.StatusOK })
	p.stop(t)

	// The same where the source refuses from the start.
	refuse()
	p = startChild(t, args...)
	eventually(t, 20*time.Second, func() bool { return ready() == http.StatusServiceUnavailable })
	db.Exec(t, `ALTER ROLE `+role+` LOGIN`)
	awaitReady(t, listen)
	p.stop(t)
}
