package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

const extraCatalog = resyncCatalog + `  extras: {table: public.extra, owner: account, fields: [id, n]}
`

// arrivals are the events of account 2, whose n is when they were committed.
type arrivals struct {
	mu     sync.Mutex
	times  map[string]map[int64]int // how often a record came, by schema
	delays []time.Duration
}

func (a *arrivals) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var event struct{ Type, Schema, Data string }
	var data struct{ ID, N int64 }
	if json.Unmarshal(body, &event) != nil || json.Unmarshal([]byte(event.Data), &data) != nil || event.Type != "insert" || r.URL.Path != "/2" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.delays = append(a.delays, time.Since(time.UnixMicro(data.N)))
	if a.times[event.Schema] == nil {
		a.times[event.Schema] = map[int64]int{}
	}
	a.times[event.Schema][data.ID]++
}

// during returns the p99 and the longest delay of what arrived while f ran.
func (a *arrivals) during(f func()) (p99, longest time.Duration) {
	a.mu.Lock()
	a.delays = nil
	a.mu.Unlock()
	f()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.delays) == 0 {
		return 0, 0
	}
	slices.Sort(a.delays)
	return a.delays[len(a.delays)*99/100], a.delays[len(a.delays)-1]
}

// A large table is added to the catalog while the source changes: nothing is lost, doubled
// or a gap. With -adopt-records=1000000 and -resync-rate=500 the log says how long it takes
// and how long the others wait.
func TestCatalogChange_AddsALargeTableUnderLoad(t *testing.T) {
	t.Parallel()
	const records = 1000 // of a schema that stays
	s := resyncShop(t, pgtest.Database(t), pgtest.Database(t), 2, 1)
	s.db.Exec(t, fmt.Sprintf(`INSERT INTO item (id, account, n) SELECT 3000000 + i, 1, nextval('state') FROM generate_series(1, %d) i`, records))
	s.db.Exec(t, "CREATE TABLE extra (id bigint PRIMARY KEY, account bigint, n bigint)")
	s.db.Exec(t, fmt.Sprintf("INSERT INTO extra SELECT i, 1 + i %% 2, 0 FROM generate_series(1, %d) i; ANALYZE extra", *adoptRecords))
	arrived := &arrivals{times: map[string]map[int64]int{}}
	server := httptest.NewServer(arrived)
	t.Cleanup(server.Close)
	s.db.Exec(t, fmt.Sprintf("UPDATE account SET url = '%s/' || id", server.URL))
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(extraCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	address := loopback.Address(t)
	process := startChild(t, "run", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog, "--listen", address, "--allow-cidr", "127.0.0.0/8")
	defer process.stop(t)
	awaitReady(t, address)
	s.storedAll(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group errgroup.Group
	var written atomic.Int64
	group.Go(func() error { return s.steady(t, ctx, records, *resyncRate, &written) })
	var extras int64
	group.Go(func() (err error) {
		extras, err = s.addExtras(t, ctx, *resyncRate/10)
		return err
	})
	before, _ := arrived.during(func() { linger(t.Context(), 2*time.Second) })
	began := time.Now()
	with, longest := arrived.during(func() {
		mustRun(t, "setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", changed)
		linger(t.Context(), time.Second) // for some events after
		s.storedAll(t)
	})
	took := time.Since(began)
	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s.storedAll(t)

	conn, box := s.db.Connect(t), s.outbox.Connect(t)
	rows, err := conn.Query(t.Context(), "SELECT id FROM item WHERE account = 2 AND n > 1000000000")
	if err != nil {
		t.Fatal(err)
	}
	items, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	missing := 0
	eventually(t, patience, func() bool {
		arrived.mu.Lock()
		defer arrived.mu.Unlock()
		missing = 0
		for _, id := range items {
			if arrived.times["items"][id] == 0 {
				missing++
			}
		}
		return missing == 0 && arrived.times["extras"][firstExtra+extras-1] > 0
	})
	arrived.mu.Lock()
	defer arrived.mu.Unlock()
	doubled, told := 0, len(arrived.times["extras"])
	for _, schema := range arrived.times {
		for _, n := range schema {
			if n > 1 {
				doubled++
			}
		}
	}
	// From one commit on all of them are told.
	for id := firstExtra + extras - int64(told); id < firstExtra+extras; id++ {
		if arrived.times["extras"][id] == 0 {
			t.Errorf("%d extras are told, and the one of %d is not", told, id)
		}
	}
	if doubled > 0 {
		t.Errorf("%d events came twice", doubled)
	}
	var gaps, owners int
	err = box.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM walhook.gap), (SELECT count(*) FROM walhook.owner WHERE schema = 'extras' AND deleted_at IS NULL)").Scan(&gaps, &owners)
	if err != nil || gaps > 0 || owners != *adoptRecords+int(extras) {
		t.Errorf("%d gaps, %d owners of extras, want %d, err %v", gaps, owners, *adoptRecords+int(extras), err)
	}
	stood := regexp.MustCompile(`"stood":"([^"]+)`).FindStringSubmatch(process.log())
	t.Logf("%d records adopted in %s, the stream stood for %v, while %d transactions ran; p99 of others %s before and %s meanwhile, at most %s; %d extras told of %d",
		*adoptRecords, took, stood[1:], written.Load(), before, with, longest, told, extras)
}

// firstExtra is the id of the first extra that addExtras adds.
const firstExtra = int64(100_000_000)

// addExtras inserts extras of account 2, rate a second, until ctx ends, and returns how many.
func (s *shop) addExtras(t *testing.T, ctx context.Context, rate float64) (n int64, err error) {
	conn, err := pgx.Connect(t.Context(), s.db.URL)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for ; ; n++ {
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick.C:
		}
		if _, err := conn.Exec(t.Context(), "INSERT INTO extra VALUES ($1, 2, $2)", firstExtra+n, time.Now().UnixMicro()); err != nil {
			return n, err
		}
	}
}
