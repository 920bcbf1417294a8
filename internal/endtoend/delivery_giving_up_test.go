package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

// heard is what one receiver took, in order.
type heard struct {
	mu     sync.Mutex
	bodies []string
	ids    []string
}

func (h *heard) take(r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bodies, h.ids = append(h.bodies, string(body)), append(h.ids, r.Header.Get("webhook-id"))
}

func (h *heard) has(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(h.bodies), func(body string) bool { return !strings.Contains(body, text) }))
}

// TestRun_ParentAccountIsNotifiedOfADisabledEndpointAndEnablingDeliversWhatWasHeld goes the way of an
// endpoint that is gone and comes back, in a process of its own.
func TestRun_ParentAccountIsNotifiedOfADisabledEndpointAndEnablingDeliversWhatWasHeld(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	var above, below heard
	var back atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/above", func(_ http.ResponseWriter, r *http.Request) { above.take(r) })
	mux.HandleFunc("/below", func(w http.ResponseWriter, r *http.Request) {
		if !back.Load() {
			w.WriteHeader(http.StatusGone)
			return
		}
		below.take(r)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	db.Exec(t, carrier.Tables)
	db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, reseller_id, username, web_hook_url) VALUES
		(1, NULL, 'one', '%[1]s/above'), (7, 1, 'seven', '%[1]s/below')`, server.URL))

	slot := "giving_up_" + db.Name
	mustRun(t, "setup", "--source", db.URL, "--slot", slot)
	process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--listen", "off", "--allow-cidr", "127.0.0.0/8")
	db.Exec(t, "UPDATE users SET username = 'eight' WHERE id = 7") // and so its endpoint is gone
	const told = `{"type":"update","schema":"webhook.disabled","status":"disabled","verbose":"the endpoint answered 410 Gone","account":"7"}`
	eventually(t, 30*time.Second, func() bool { return above.has(told) > 0 })
	if id := above.ids[slices.Index(above.bodies, told)]; !strings.HasPrefix(id, "notice_") {
		t.Errorf("webhook-id of the notice is %s", id)
	}
	if list := mustRun(t, "endpoints", "--outbox", db.URL); !strings.Contains(list, "disabled  the endpoint answered 410 Gone (disabled by walhook)") {
		t.Errorf("endpoints are\n%s", list)
	}

	for n := range 20 {
		db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, 7, '3125551%03d')`, n, n))
	}
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (100, 1, '3125552000')`)
	eventually(t, 30*time.Second, func() bool { return above.has(`\"id\":100,`) > 0 }) // and so were the others appended
	back.Store(true)
	mustRun(t, "endpoints", "enable", "7", "--outbox", db.URL)
	eventually(t, 30*time.Second, func() bool { return below.has(`"schema":"dids"`) >= 20 && below.has(`"schema":"users"`) >= 1 })
	process.stop(t)
	if n := above.has(told); n != 1 {
		t.Errorf("told %d times", n)
	}
	if n := below.has(`"schema":"dids"`); n != 20 {
		t.Errorf("%d of 20 that were held arrived", n)
	}
	mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
}
