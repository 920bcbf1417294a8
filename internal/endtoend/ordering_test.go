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

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// orderedReceiver refuses its first two requests, and notes what it takes and how many
// requests it had at a time.
type orderedReceiver struct {
	*httptest.Server
	mu               sync.Mutex
	taken            []string // ids of events
	requests         int
	at, most, events int
}

func newOrderedReceiver(t *testing.T) *orderedReceiver {
	r := &orderedReceiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *orderedReceiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	ids := []string{request.Header.Get("webhook-id")}
	if list := request.Header.Get("webhook-event-ids"); list != "" {
		ids = strings.Split(list, ",")
	}
	r.mu.Lock()
	r.requests++
	refused := r.requests <= 2
	r.at++
	r.most, r.events = max(r.most, r.at), max(r.events, len(ids))
	r.mu.Unlock()
	time.Sleep(20 * time.Millisecond) // others that were sent at the same time arrive meanwhile
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at--; refused {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	for _, id := range ids {
		if !slices.Contains(r.taken, id) {
			r.taken = append(r.taken, id)
		}
	}
}

func TestOrdering_StrictHoldsForTheWebhooksOfTheAPI(t *testing.T) {
	t.Parallel()
	const events = 12
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'seven')`) // without a URL
	slot, address := "test_"+db.Name, loopback.Address(t)
	start := func() *childProcess {
		process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--setup", "--listen", address, "--allow-cidr", "127.0.0.0/8",
			"--admin-token", chaosOperator, "--retry-schedule", "100ms,100ms,100ms,1h")
		awaitReady(t, address)
		return process
	}
	process := start()
	defer mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
	defer func() { process.stop(t) }()
	api := apiClient{"http://" + address + "/v2/accounts/", chaosOperator}
	hook := func(more string) *orderedReceiver {
		r := newOrderedReceiver(t)
		api.call(t, 201, "PUT", "7/webhooks", `{"data":{"name":"n","uri":"`+r.URL+`","schemas":["dids"]`+more+`}}`)
		return r
	}
	receivers := map[string]*orderedReceiver{"made before": hook(""), "made before, with batches": hook(`,"batch":4`)}
	process.stop(t) // so that its sender begins with the ordering
	if out := mustRun(t, "endpoints", "ordering", "7", "strict", "--outbox", db.URL); !strings.Contains(out, "account 7 has ordering strict; webhooks: 2") {
		t.Errorf("printed %s", out)
	}
	process = start()
	receivers["made after"] = hook("")
	db.Exec(t, fmt.Sprintf("INSERT INTO dids (id, user_id, number) SELECT n, 7, n FROM generate_series(1, %d) n", events))
	for name, r := range receivers {
		eventually(t, time.Minute, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.taken) == events
		})
		r.mu.Lock()
		number := func(id string) (n int) {
			_, err := fmt.Sscanf(id[strings.LastIndexByte(id, '_')+1:], "%d", &n)
			if err != nil {
				t.Errorf("event %s: %v", id, err)
			}
			return n
		}
		if !slices.IsSortedFunc(r.taken, func(a, b string) int { return number(a) - number(b) }) || r.most != 1 || r.events != 1 {
			t.Errorf("%s: %d requests at a time, %d events in one, taken in the order %v", name, r.most, r.events, r.taken)
		}
		r.mu.Unlock()
	}
}
