package outbox

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgtest"
	"walhook/outbox/route"
	"walhook/outbox/route/routetest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// benchmarkStore is an outbox of its own, with fsync off: what is measured is
// the work, not the disk. Its one account has an endpoint.
func benchmarkStore(b *testing.B) *Store {
	b.Helper()
	return benchmarkStoreAt(b, func(url string) string { return url })
}

// benchmarkStoreAt is one that is reached in another way.
func benchmarkStoreAt(b *testing.B, by func(url string) string) *Store {
	b.Helper()
	db := pgtest.Database(b)
	if err := Migrate(b.Context(), db.URL); err != nil {
		b.Fatal(err)
	}
	store, err := Open(b.Context(), Config{URL: by(db.URL)}, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(store.Close)
	db.Exec(b, `INSERT INTO walhook.endpoint (account, url, state, secret) VALUES ('7', 'https://example.com/', 'active', 'whsec_eA==')`)
	return store
}

func benchmarkEvents(n int) []route.Event {
	to := &route.Endpoint{Account: "7", ID: 1, Revision: 1}
	body := fmt.Appendf(nil, `{"type":"insert","schema":"dids","data":"%0350d"}`, 1)
	events := make([]route.Event, n)
	for i := range events {
		key := fmt.Sprint(i)
		events[i] = route.Event{
			ID: int64(i + 1), To: to, Record: "dids:" + key, WebhookID: schemas.Position{Commit: 0x1000, Ordinal: int64(i)}.WebhookID(0),
			Schema: "dids", Type: "insert", CommittedAt: time.Now(), Body: body, Size: len(body),
		}
	}
	return events
}

const benchmarkBatch = 1000

// BenchmarkAppend copies a batch of events into the log.
func BenchmarkAppend(b *testing.B) {
	store := benchmarkStore(b)
	conn, err := store.pool.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	events := benchmarkEvents(benchmarkBatch)
	b.ReportAllocs()
	for b.Loop() {
		if err := (&Store{encoding: &encoding{}}).copyEvents(b.Context(), conn.Conn(), events, time.Now()); err != nil {
			b.Fatal(err)
		}
		for i := range events {
			events[i].ID += benchmarkBatch
		}
	}
	perEvent(b)
}

// BenchmarkPublish appends batches of as many new records as a publisher finds at ordinary
// rates, and more: all that an append does, from routing to the answer to its COMMIT.
func BenchmarkPublish(b *testing.B) {
	for _, events := range []int{1, 3, 64} {
		b.Run(fmt.Sprint(events), func(b *testing.B) {
			w := watchWire(b)
			store := benchmarkStoreAt(b, w.through)
			p := benchmarkPublisher(b, store)
			commit, key := schemas.LSN(0x2000), 0
			next := func() {
				changes := make([]schemas.Change, events)
				for i := range changes {
					key++
					changes[i] = dids.Insert(key, 7, "312")
				}
				commit += 0x100
				if err := p.Append(b.Context(), batch(routetest.Tx(commit, changes...))); err != nil {
					b.Fatal(err)
				}
			}
			for range 10 { // until the server has settled for a plan of each statement
				next()
			}
			w.reset()
			server, ours := serverTime(b, store), ownTime(b)
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
			each := float64(b.N) * float64(time.Microsecond)
			b.ReportMetric(float64(w.most())/float64(b.N), "round-trips/append")
			b.ReportMetric(float64(ownTime(b)-ours)/each, "own-cpu-µs/append")
			if now := serverTime(b, store); now > 0 {
				b.ReportMetric(float64(now-server)/each, "server-cpu-µs/append")
			}
			var stored int
			if err := store.pool.QueryRow(b.Context(), "SELECT count(*) FROM walhook.event").Scan(&stored); err != nil || stored != 1+key {
				b.Fatalf("%d events are stored of %d, %v", stored, 1+key, err)
			}
		})
	}
}

// ownTime is the processor time of this process, which the wire shares.
func ownTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// serverTime is the processor time of the store's sessions on the server, where the system
// tells it; 0 where not.
func serverTime(b *testing.B, store *Store) (sum time.Duration) {
	b.Helper()
	pids, err := collect[int](store.pool.Query(b.Context(), "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1", applicationName))
	if err != nil {
		b.Fatal(err)
	}
	for _, pid := range pids {
		var spent time.Duration
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid)); err == nil {
			_, _ = fmt.Sscan(string(text), &spent)
		}
		sum += spent
	}
	return sum
}

func benchmarkPublisher(b *testing.B, store *Store) *Publisher {
	b.Helper()
	small, err := catalog.Parse([]byte(smallCatalog))
	if err != nil {
		b.Fatal(err)
	}
	p := store.Publisher(small)
	steps := []func() error{
		func() error { _, err := p.TakeOver(b.Context()); return err },
		func() error { return p.BeginSnapshot(b.Context(), testSource) },
		func() error {
			return p.LoadSnapshot(b.Context(), firstLSN, func(catalog.SnapshotSink) error { return nil })
		},
		func() error { _, err := p.TakeOver(b.Context()); return err },
		func() error { return p.Append(b.Context(), batch(routetest.Tx(0x1f00, account(7)))) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			b.Fatal(err)
		}
	}
	return p
}

// BenchmarkTail reads a batch from the log.
func BenchmarkTail(b *testing.B) {
	store := benchmarkStore(b)
	fillLog(b, store)
	session, err := store.Join(b.Context(), "bench", time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	q := TailQuery{Shards: allShards(), Limit: benchmarkBatch, MaxBytes: 2 << 20}
	b.ReportAllocs()
	for b.Loop() {
		stretch, err := session.Tail(b.Context(), q)
		if err != nil || len(stretch.Events) != benchmarkBatch {
			b.Fatalf("%d events, %v", len(stretch.Events), err)
		}
	}
	perEvent(b)
}

// BenchmarkSettle acknowledges a batch of deliveries.
func BenchmarkSettle(b *testing.B) {
	store := benchmarkStore(b)
	session, err := store.Join(b.Context(), "bench", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	batch := make([]Settlement, benchmarkBatch)
	for i := range batch {
		batch[i] = delivered(Event{ID: int64(i + 1), Endpoint: 1, Revision: 1, Record: "dids:1"})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := session.Settle(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		for i := range batch {
			batch[i].Event.ID += benchmarkBatch
		}
	}
	perEvent(b)
}

func fillLog(b *testing.B, store *Store) {
	b.Helper()
	conn, err := store.pool.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	if err := (&Store{encoding: &encoding{}}).copyEvents(b.Context(), conn.Conn(), benchmarkEvents(2*benchmarkBatch), time.Now()); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), "ANALYZE walhook.event", pgx.QueryExecModeSimpleProtocol); err != nil {
		b.Fatal(err)
	}
}

func perEvent(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchmarkBatch), "ns/event")
}
