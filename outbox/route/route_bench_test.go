package route

import (
	"fmt"
	"testing"

	"walhook/schemas"
)

// BenchmarkRoute_AccountsWithOnlyTheirOwnURL is what most changes are: updates
// of records whose accounts have a URL and nothing else.
func BenchmarkRoute_AccountsWithOnlyTheirOwnURL(b *testing.B) {
	const accounts, changes = 100, 1000
	v := newView(b, smallCatalog)
	for n := range accounts {
		id := fmt.Sprint(n)
		v.Endpoints[id] = &Endpoint{Account: id, ID: int64(n + 1), Revision: 1, URL: "https://example.com/"}
		v.Parents[id] = fmt.Sprint(n / 2)
	}
	batch := make([]schemas.Change, changes)
	for i := range batch {
		batch[i] = dids.Update(row(i, i%accounts, "312"), row(i, i%accounts, "313"))
		batch[i].Position = schemas.Position{Commit: 0x1000, Ordinal: int64(i + 1)}
	}
	b.ReportAllocs()
	var done *Plan
	for b.Loop() {
		p := Route(v, batch, Part{End: changes}, nil, done)
		if len(p.Events) != changes {
			b.Fatalf("%d events", len(p.Events))
		}
		v.Apply(p)
		done = p
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*changes), "ns/change")
}
