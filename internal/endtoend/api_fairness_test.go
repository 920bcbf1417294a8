package endtoend

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// TestAPI_ExpensiveCallsOfOneAccountDelayNoOther lets one account's token ask for whatever
// is expensive, forty calls at a time, while another account gets its events.
func TestAPI_ExpensiveCallsOfOneAccountDelayNoOther(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures")
	}
	db := pgtest.Database(t)
	var arrived sync.Map // by number
	number := regexp.MustCompile(`"number\\":\\"(\d+)`)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if found := number.FindSubmatch(body); found != nil && r.URL.Path == "/victim" {
			arrived.Store(string(found[1]), time.Now())
		}
	}))
	t.Cleanup(server.Close)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (7, 'attacker', NULL), (8, 'victim', '`+server.URL+`/victim')`)
	address := loopback.Address(t)
	slot := "starve_" + db.Name
	run := func() *childProcess {
		process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--setup", "--listen", address, "--allow-cidr", "127.0.0.0/8",
			"--admin-token", "the operator of the test")
		awaitReady(t, address)
		return process
	}
	process := run()
	defer mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	token, _ := data(t, operator.call(t, 201, "PUT", "7/tokens", ""))["token"].(string)
	mine := apiClient{operator.base, token}
	hook := data(t, mine.call(t, 201, "PUT", "7/webhooks", `{"data":{"name":"n","uri":"`+server.URL+`/attacker"}}`))["id"].(string)
	process.stop(t)
	db.Exec(t, `
		WITH e AS (
			INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
			SELECT 1000 + n, (SELECT id FROM walhook.endpoint WHERE account = '7'), 1, 'dids:1', 'evt_' || n, 'dids', 'update', now(), now(), '{}'
			FROM generate_series(1, 100000) n RETURNING id, endpoint)
		INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now(), endpoint, id, 1, 1, '1 ms', 200, 'delivered', '2xx', '' FROM e;
		UPDATE walhook.position SET next_event_id = 200000;
		UPDATE walhook.shard SET tail = 199999;
		ANALYZE walhook.event, walhook.attempt`)
	process = run()
	defer process.stop(t)

	next := 0
	latency := func(length time.Duration) (p90 time.Duration) {
		t.Helper()
		sent := map[string]time.Time{}
		for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(40 * time.Millisecond) {
			next++
			id := fmt.Sprint(next)
			sent[id] = time.Now()
			db.Exec(t, "INSERT INTO dids (id, user_id, number) VALUES ("+id+", 8, '"+id+"')")
		}
		var took []time.Duration
		for id, at := range sent {
			var got any
			eventually(t, 30*time.Second, func() (there bool) {
				got, there = arrived.Load(id)
				return there
			})
			took = append(took, got.(time.Time).Sub(at))
		}
		slices.Sort(took)
		return took[len(took)*9/10]
	}
	latency(time.Second)
	quiet := latency(2 * time.Second)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	calls := [][3]string{
		{"POST", "7/webhooks/" + hook + "/replay", `{"data":{"since":"2020-01-01T00:00:00Z","dry_run":true}}`},
		{"POST", "7/webhooks/" + hook + "/replay", `{"data":{"since":"2020-01-01T00:00:00Z","rate":10000}}`},
		{"GET", "7/webhooks/" + hook + "/events?page_size=500", ""},
		{"GET", "7/webhooks/attempts?page_size=500", ""},
		{"GET", "7/webhooks/dead?page_size=500", ""},
	}
	var refused, served, odd atomic.Int64
	var attack sync.WaitGroup
	for i := range 40 {
		call := calls[max(i-15, 0)%len(calls)] // most of them count
		attack.Go(func() {
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, call[0], mine.base+call[1], strings.NewReader(call[2]))
				if err != nil {
					return
				}
				request.Header.Set("X-Auth-Token", token)
				request.Header.Set("Content-Type", "application/json")
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				switch {
				case response.StatusCode < 300:
					served.Add(1)
				case (response.StatusCode == 429 || response.StatusCode == 503) && response.Header.Get("Retry-After") != "":
					refused.Add(1)
				default:
					odd.Add(1)
				}
			}
		})
	}
	eventually(t, 20*time.Second, func() bool { return served.Load() > 0 && refused.Load() > 0 }) // it is under way
	attacked := latency(4 * time.Second)
	answer, err := http.Get("http://" + address + "/readyz")
	if err != nil || answer.StatusCode != 200 {
		t.Errorf("readyz meanwhile: %v %v", answer, err)
	} else {
		answer.Body.Close()
	}
	operator.call(t, 200, "GET", "8/webhooks", "")
	stop()
	attack.Wait()
	t.Logf("p90 %s, attacked %s; served %d, refused %d, otherwise %d", quiet, attacked, served.Load(), refused.Load(), odd.Load())
	if attacked > 10*quiet+200*time.Millisecond {
		t.Errorf("the victim's events take %s instead of %s", attacked, quiet)
	}
	if served.Load() == 0 || refused.Load() == 0 || odd.Load() > 0 {
		t.Errorf("served %d, refused %d, otherwise %d", served.Load(), refused.Load(), odd.Load())
	}
	if open := pgtestCount(t, db, "SELECT count(*) FROM walhook.request WHERE done_at IS NULL"); open > 10 {
		t.Errorf("%d replays in progress", open)
	}
	if text := process.log(); strings.Contains(text, "lease") {
		t.Errorf("a lease was lost:\n%s", text)
	}
}

func pgtestCount(t *testing.T, db *pgtest.DB, sql string) (n int) {
	t.Helper()
	if err := db.Connect(t).QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
