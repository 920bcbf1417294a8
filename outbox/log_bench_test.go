package outbox

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgtest"
	"walhook/outbox/route"
	"walhook/schemas"
)

// benchmarkStore is an outbox of its own, with fsync off: what is measured is
// the work, not the disk. Its one account has an endpoint.
func benchmarkStore(b *testing.B) *Store {
	b.Helper()
	db := pgtest.Database(b)
	if err := Migrate(b.Context(), db.URL); err != nil {
		b.Fatal(err)
	}
	store, err := Open(b.Context(), Config{URL: db.URL}, zap.NewNop(), prometheus.NewRegistry())
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
