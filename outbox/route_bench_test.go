package outbox

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// BenchmarkRoute_AccountsWithOnlyTheirOwnURL is what most changes are: updates
// of records whose accounts have a URL and nothing else.
func BenchmarkRoute_AccountsWithOnlyTheirOwnURL(b *testing.B) {
	const accounts, changes = 100, 1000
	p := publisherInMemory(b)
	for n := range accounts {
		id := fmt.Sprint(n)
		p.routes[id] = &route{account: id, endpoint: int64(n + 1), revision: 1, url: urlA}
		p.parents[id] = fmt.Sprint(n / 2)
	}
	batch := make([]schemas.Change, changes)
	for i := range batch {
		batch[i] = dids.update(row(i, i%accounts, "312"), row(i, i%accounts, "313"))
		batch[i].Position = schemas.Position{Commit: 0x1000, Ordinal: int64(i + 1)}
	}
	b.ReportAllocs()
	for b.Loop() {
		r := newRouter(p, batch)
		r.route()
		if len(r.events) != changes {
			b.Fatalf("%d events", len(r.events))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*changes), "ns/change")
}

// publisherInMemory routes without an outbox: for what needs no stored owner.
func publisherInMemory(tb testing.TB) *Publisher {
	tb.Helper()
	parsed, err := catalog.Parse([]byte(smallCatalog))
	if err != nil {
		tb.Fatal(err)
	}
	store := &Store{cfg: Config{MaxEventBytes: defaultMaxEventBytes}, log: zap.NewNop(), metrics: newMetrics(prometheus.NewRegistry())}
	p := store.Publisher(parsed)
	p.routes, p.parents = map[string]*route{}, map[string]string{}
	p.owners, p.plans = newOwnerCache(), map[*schemas.Relation]*catalog.Plan{}
	p.departed.above = map[string]string{}
	p.nextID = 1
	return p
}
