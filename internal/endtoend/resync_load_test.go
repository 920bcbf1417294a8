package endtoend

import (
	"context"
	"encoding/json"
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

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// parent and sub-accounts: their records, masked as in changes, by a webhook's filters.
func TestResync_OfAWebhookWithFiltersAndSubaccounts(t *testing.T) {
	t.Parallel()
	s := resyncShop(t, pgtest.Database(t), pgtest.Database(t), 4, 20)
	s.db.Exec(t, `UPDATE account SET parent = id - 1, url = 'http://u:p@127.0.0.1:9/hook?k=' || id WHERE id IN (2, 3)`)
	address := loopback.Address(t)
	process := startChild(t, "run", "--role", "publisher,api", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog,
		"--listen", address, "--allow-cidr", "127.0.0.0/8", "--admin-token", "the operator of the test")
	defer process.stop(t)
	awaitReady(t, address)
	s.storedAll(t)
	conn := s.outbox.Connect(t)
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	hook := data(t, operator.call(t, 201, "PUT", "1/webhooks",
		`{"data":{"name":"all","uri":"http://127.0.0.1:9999/","include_subaccounts":true,"schemas":["items","accounts"],"types":["insert"],"initial_state":true}}`))
	awaitResyncs(t, conn)
	to := applied(t, conn, int64(hook["endpoint"].(float64)), 0)
	want := map[string]string{}
	for account := 1; account <= 3; account++ {
		for name, data := range s.present(t, account) {
			if account > 1 && strings.HasPrefix(name, "accounts:") {
				data = fmt.Sprintf(`{"id":%d,"url":"http://…@127.0.0.1:9/hook?…"}`, account)
			}
			if !strings.HasPrefix(name, "parts:") {
				want[name] = data
			}
		}
	}
	wantRecords(t, to.records, want)
	if to.kinds["insert"] != to.synced || len(to.done) != 1 {
		t.Errorf("%d records as %v, and %d ends", to.synced, to.kinds, len(to.done))
	}
	// It gets no updates, so there is nothing else to send again.
	operator.call(t, 409, "POST", "1/webhooks/"+hook["id"].(string)+"/resync", "")
	operator.call(t, 400, "POST", "1/webhooks/account/resync", `{"data":{"schema":"nothing"}}`)
	list, _ := operator.call(t, 200, "GET", "1/webhooks/"+hook["id"].(string)+"/resync", "")["data"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["state"] != "done" || list[0].(map[string]any)["total"] != float64(to.synced) {
		t.Errorf("progress %v, want %d records", list, to.synced)
	}
}

// A large account is resynced while it changes. The receiver applies what arrives. Nobody
// else waits: with -resync-records=200000 and -resync-rate=500 the log compares the p99 of
// others with and without it.
func TestResync_OfALargeAccountUnderLoad(t *testing.T) {
	t.Parallel()
	s := resyncShop(t, pgtest.Database(t), pgtest.Database(t), 2, 1)
	s.db.Exec(t, fmt.Sprintf(`INSERT INTO item (id, account, n) SELECT 3000000 + i, 1, nextval('state') FROM generate_series(1, %d) i; ANALYZE item`, *resyncRecords))
	var mu sync.Mutex
	records, backwards, arrived := map[int64]int64{}, 0, time.Now()
	var done atomic.Bool
	var others []time.Duration
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var event struct{ Schema, Data string }
		var data struct{ ID, N int64 }
		if json.Unmarshal(body, &event) != nil || event.Schema == "resync" {
			done.Store(true)
			return
		}
		if event.Schema != "items" || json.Unmarshal([]byte(event.Data), &data) != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/2" { // n is when it was committed
			others = append(others, time.Since(time.UnixMicro(data.N)))
			return
		}
		if arrived = time.Now(); data.N < records[data.ID] {
			backwards++
		}
		records[data.ID] = data.N
	}))
	t.Cleanup(server.Close)
	s.db.Exec(t, fmt.Sprintf("UPDATE account SET url = '%s/' || id", server.URL))
	process := startChild(t, "run", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog, "--listen", "off", "--allow-cidr", "127.0.0.0/8")
	defer process.stop(t)
	s.storedAll(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group errgroup.Group
	var written atomic.Int64
	group.Go(func() error { return s.steady(t, ctx, *resyncRecords, *resyncRate, &written) })
	p99 := func(during func()) time.Duration {
		mu.Lock()
		others = others[:0]
		mu.Unlock()
		during()
		mu.Lock()
		defer mu.Unlock()
		if len(others) == 0 {
			return 0
		}
		slices.Sort(others)
		return others[len(others)*99/100]
	}
	time.Sleep(time.Second) // connections are made
	without := p99(func() { time.Sleep(time.Duration(*resyncRecords) * time.Second / 10_000) })
	began := time.Now()
	mu.Lock()
	clear(records) // it starts empty
	mu.Unlock()
	var took time.Duration
	with := p99(func() {
		mustRun(t, "resync", "1", "--schema", "items", "--outbox", s.outbox.URL)
		eventually(t, 20*time.Minute, done.Load)
		took = time.Since(began)
	})
	changed := written.Load()
	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s.storedAll(t)
	conn := s.db.Connect(t)
	rows, err := conn.Query(t.Context(), "SELECT id, n FROM item WHERE account = 1")
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64]int64{}
	var id, n int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { want[id] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	wrong := 0
	eventually(t, patience, func() bool {
		mu.Lock()
		defer mu.Unlock()
		wrong = 0
		for id, n := range want {
			if records[id] != n {
				wrong++
			}
		}
		return wrong == 0 || time.Since(arrived) > 5*time.Second
	})
	if wrong > 0 || backwards > 0 {
		t.Errorf("%d of %d records are wrong, %d went backwards", wrong, len(want), backwards)
	}
	t.Logf("%d records resynced in %s while %d transactions changed them; p99 of others %s without and %s with it", len(want), took, changed, without, with)
}

// steady changes random records of account 1, and one of account 2 with each tenth, rate
// times a second.
func (s *shop) steady(t *testing.T, ctx context.Context, records int, rate float64, written *atomic.Int64) error {
	var group errgroup.Group
	for worker := range 4 {
		group.Go(func() error {
			conn, err := pgx.Connect(t.Context(), s.db.URL)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			tick := time.NewTicker(time.Duration(4 / rate * float64(time.Second)))
			defer tick.Stop()
			for turn := worker; ; turn += 4 {
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
				id := 3_000_000 + turn*7919%records + 1
				if _, err := conn.Exec(t.Context(), "UPDATE item SET n = nextval('state') WHERE id = $1", id); err != nil {
					return err
				}
				if turn%10 == 0 {
					if _, err := conn.Exec(t.Context(), "INSERT INTO item (account, n) VALUES (2, $1)", time.Now().UnixMicro()); err != nil {
						return err
					}
				}
				written.Add(1)
			}
		})
	}
	return group.Wait()
}
