package outbox

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgtest"
	"walhook/outbox/route"
	"walhook/schemas/catalog"
)

// benchAccounts is how many accounts the outbox of these benchmarks has; the figures of
// docs/PERFORMANCE.md are for a million.
var benchAccounts = flag.Int("accounts", 50_000, "accounts of the benchmarks of taking over and following webhooks")

// manyAccountsSQL gives each account a URL, a webhook, a parent account and a record.
const manyAccountsSQL = `
	INSERT INTO walhook.endpoint (account, webhook, url, state, secret)
	SELECT (100000000 + n)::text, w, 'https://receiver.example.com/hooks/' || n, 'active', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
	FROM generate_series(1, %[1]d) n, unnest('{account,hook}'::text[]) w;
	INSERT INTO walhook.account (id, parent) SELECT (100000000 + n)::text, (100000000 + n %% 1000)::text FROM generate_series(1001, %[1]d) n;
	INSERT INTO walhook.owner (schema, key, account) SELECT 'dids', n::text, (100000000 + n)::text FROM generate_series(1, %[1]d) n`

func manyAccounts(b *testing.B) (*pgtest.DB, *Publisher) {
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
	conn := db.Connect(b)
	for _, sql := range []string{fmt.Sprintf(manyAccountsSQL, *benchAccounts), "VACUUM ANALYZE"} {
		if _, err := conn.Exec(b.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			b.Fatal(err)
		}
	}
	small, err := catalog.Parse([]byte(smallCatalog))
	if err != nil {
		b.Fatal(err)
	}
	return db, store.Publisher(small)
}

// live is the memory in use, in bytes.
func live() float64 {
	runtime.GC()
	runtime.GC() // what pools held until the first one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkTakeOver reads all that a publisher knows, and says what it takes in memory.
func BenchmarkTakeOver(b *testing.B) {
	_, p := manyAccounts(b)
	before := live()
	for b.Loop() {
		if _, err := p.TakeOver(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	n := float64(*benchAccounts)
	all := live()
	p.view.SetWebhooks(0, map[string][]*route.Endpoint{})
	b.ReportMetric((all-before)/n, "B/account")
	b.ReportMetric((all-live())/n, "B/webhook")
	runtime.KeepAlive(p)
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/n*1e6, "ms/million")
}

// BenchmarkFollowWebhooks follows one edit among many webhooks.
func BenchmarkFollowWebhooks(b *testing.B) {
	db, p := manyAccounts(b)
	if _, err := p.TakeOver(b.Context()); err != nil {
		b.Fatal(err)
	}
	conn := db.Connect(b)
	for b.Loop() {
		b.StopTimer()
		edit := &pgx.Batch{}
		edit.Queue(RaiseWebhooksSQL)
		edit.Queue("UPDATE walhook.endpoint SET "+ChangedInSQL+" WHERE account = $1 AND webhook <> 'account'", fmt.Sprint(100_000_001+rand.N(*benchAccounts)))
		if err := conn.SendBatch(b.Context(), edit).Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := p.followWebhooks(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
