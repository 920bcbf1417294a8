package carrier

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// fakes invents plausible values. It includes difficult ones on purpose (quotes, HTML,
// other scripts, line breaks, trailing zeros), which must arrive unchanged.
type fakes struct{ *rand.Rand }

func newFakes(seed, stream uint64) fakes {
	return fakes{rand.New(rand.NewPCG(seed, stream))}
}

func pick[T any](f fakes, from ...T) T { return from[f.IntN(len(from))] }

func (f fakes) chance(percent int) bool { return f.IntN(100) < percent }

func (f fakes) first() string {
	return pick(f, "Ada", "Grace", "Zoë", "José", "Mary-Ann", "Siobhán", "Li", "Ольга", "Kwame", "Noor", "Anaïs", "Bjørn")
}

func (f fakes) last() string {
	return pick(f, "Lovelace", "Hopper", "O'Brien", "García", "Smith", "Müller", "Nguyễn", "van der Berg", "王", "Okafor", "Żak")
}

func (f fakes) business() string {
	return pick(f, "Smith & Sons", `"Quoted" Telecom`, "Blue <Sky> Dental", "Café Zürich", "Acme\\Widgets", "Pizza 🍕 Palace", "North Shore Law", "Tabs\tand\nLines Inc.")
}

func (f fakes) place() (city, state, zip string) {
	p := pick(f, [3]string{"Chicago", "IL", "60601"}, [3]string{"Boise", "ID", "83702"}, [3]string{"New York", "NY", "10001"},
		[3]string{"Española", "NM", "87532"}, [3]string{"O'Fallon", "MO", "63366"}, [3]string{"Boston", "MA", "02108"})
	return p[0], p[1], p[2]
}

func (f fakes) ratecenter() string {
	return pick(f, "CHICGOZN01", "BOISE", "NWYRCYZN01", "OFALLON", "BOSTONCNTL")
}

func (f fakes) street() string {
	return fmt.Sprintf("%d %s", 1+f.IntN(9999), pick(f, "W Main St", "Rue de l'Église", "Elm Ave", "5th Ave", "State Hwy 9"))
}

func (f fakes) number() string {
	return fmt.Sprintf("%s555%04d", pick(f, "312", "208", "212", "505", "636", "617"), f.IntN(10000))
}

func (f fakes) email() string {
	return fmt.Sprintf("%s%d@example.%s", pick(f, "billing", "office", "front+desk", "it"), f.IntN(1000), pick(f, "com", "net", "org"))
}

// money returns an amount with four decimals, trailing zeros included.
func (f fakes) money(most int) string {
	return fmt.Sprintf("%d.%04d", f.IntN(most), pick(f, 0, 5000, 2500, 99, 1, 9999))
}

func (f fakes) uuid() string {
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", f.Uint32(), f.IntN(1<<16), f.IntN(1<<12), f.IntN(1<<12), f.Int64N(1<<48))
}

func (f fakes) ip() string {
	return pick(f, fmt.Sprintf("198.51.100.%d", f.IntN(256)), fmt.Sprintf("203.0.113.%d", f.IntN(256)), fmt.Sprintf("2001:db8::%x", 1+f.IntN(65535)))
}

func (f fakes) time() time.Time {
	return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(f.Int64N(int64(2 * 365 * 24 * time.Hour)))).Truncate(time.Microsecond)
}

func (f fakes) date() time.Time { return f.time().Truncate(24 * time.Hour) }

// flow returns a call flow: json with its own white space, sometimes longer than a page,
// so that PostgreSQL stores it out of line.
func (f fakes) flow() string {
	var menu strings.Builder
	entries := 1 + f.IntN(4)
	if f.chance(10) {
		entries = 400
	}
	for i := range entries {
		if i > 0 {
			menu.WriteString(",\n   ")
		}
		fmt.Fprintf(&menu, `{"digit": %d, "say": "press %d for %s", "token": "%s"}`, i%10, i%10, pick(f, "sales", "Café", "<support>"), f.uuid())
	}
	return fmt.Sprintf("{\n  \"name\": %q,\n  \"weight\": 1.50e1,\n  \"menu\": [\n   %s]\n}", pick(f, "day", "night"), menu.String())
}

// maybe returns the value or, sometimes, null.
func maybe[T any](f fakes, value T) *T {
	if f.chance(15) {
		return nil
	}
	return &value
}
