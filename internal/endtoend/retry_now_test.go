package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// A receiver fails and is well again. Its account asks the API, whose process sends
// nothing, for a retry now: what waited for an hour arrives, in order per record. So it
// does where the sender was away at that moment.
func TestRetryNow_SendsAtOnceWhatWaits(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"after failures": 500, "after a pause": 503} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			var mu sync.Mutex
			var got []string
			tries := 0
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				tries++
				if broken.Load() {
					w.Header().Set("Retry-After", "3600")
					w.WriteHeader(status)
					return
				}
				got = append(got, fmt.Sprint(numberOf(body), " ", r.Header.Get("webhook-id")))
			}))
			t.Cleanup(receiver.Close)
			tried := func() int {
				mu.Lock()
				defer mu.Unlock()
				return tries
			}
			db := pgtest.Database(t)
			db.Exec(t, carrier.Tables)
			db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES (7, 'seven', '%s')`, receiver.URL))
			slot, address := "now_"+db.Name, loopback.Address(t)
			flags := []string{"run", "--listen", "off", "--allow-cidr", "127.0.0.0/8", "--retry-schedule", "1h,1h,1h"}
			startChild(t, "run", "--role", "publisher", "--source", db.URL, "--slot", slot, "--setup", "--listen", "off")
			conn := db.Connect(t)
			eventually(t, patience, func() bool { // set up, which the other processes require
				var ready bool
				return conn.QueryRow(t.Context(), "SELECT state = 'ready' FROM walhook.source").Scan(&ready) == nil && ready
			})
			startChild(t, "run", "--role", "api", "--outbox", db.URL, "--listen", address, "--admin-token", chaosOperator)
			startSender := func() *childProcess {
				return startChild(t, append(flags, "--role", "sender", "--outbox", db.URL)...)
			}
			process := startSender()
			awaitReady(t, address)
			client := apiClient{"http://" + address + "/v2/accounts/7/webhooks/account", chaosOperator}
			retrying := func() float64 {
				return data(t, client.call(t, 200, "GET", "", ""))["health"].(map[string]any)["retrying"].(float64)
			}

			// Two changes of each record; the second waits behind the first.
			fail := func(first int) {
				broken.Store(true)
				before := tried()
				db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, 7, '1'), (%d, 7, '1')`, first, first+1))
				db.Exec(t, fmt.Sprintf(`UPDATE dids SET number = '2' WHERE id >= %d`, first))
				eventually(t, patience, func() bool { return tried() > before && retrying() > 0 })
				broken.Store(false)
			}
			arrived := func(n int) func() bool {
				return func() bool {
					mu.Lock()
					defer mu.Unlock()
					return len(got) >= n
				}
			}
			eventually(t, patience, func() bool { return len(data(t, client.call(t, 200, "GET", "", ""))) > 0 })
			fail(1)
			client.call(t, 202, "POST", "/retry", "")
			eventually(t, patience, arrived(4))

			fail(11)
			process.stop(t)
			client.call(t, 202, "POST", "/retry", "")
			startSender()
			eventually(t, patience, arrived(8))
			mu.Lock()
			defer mu.Unlock()
			last := map[string]string{}
			for _, one := range got {
				var record, id string
				fmt.Sscan(one, &record, &id)
				if last[record] >= id {
					t.Errorf("record %s: %s arrived after %s", record, id, last[record])
				}
				last[record] = id
			}
			if len(last) != 4 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 8 {
				t.Errorf("arrived %v", got)
			}
		})
	}
}
