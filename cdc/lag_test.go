package cdc

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/schemas"
)

// TestLag_IsTheAgeOfTheOldestChangeThatIsNotStored goes through what the source
// may say, second by second.
func TestLag_IsTheAgeOfTheOldestChangeThatIsNotStored(t *testing.T) {
	t.Parallel()
	state := Reading
	m := newMetrics(prometheus.NewRegistry(), func() State { return state })
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	want := func(why string, second int, want float64) {
		t.Helper()
		if got := m.lagSeconds(at(second)); got != want {
			t.Errorf("after %d s, %s: %g, want %g", second, why, got, want)
		}
	}
	m.answers.Store(true)
	m.flushed.Store(100)
	m.lag.mark(100, at(0))
	want("all is stored", 1, 0)
	for s := 2; s <= 10; s += 2 { // another database writes, and the server has read it
		m.lag.mark(100+schemas.LSN(s), at(s))
		m.lag.reads(100 + schemas.LSN(s))
		want("nothing concerns us", s+1, 0)
	}
	for s := 12; s <= 72; s += 2 { // it reads no further
		m.lag.mark(200+schemas.LSN(s), at(s))
		want("the server sends nothing", s, float64(s-12))
	}
	m.lag.reads(300)
	want("it was sent, and is nothing", 73, 0)
	m.received(at(70))
	want("a change waits", 75, 5)
	m.lag.mark(300, at(74))
	m.flushed.Store(310)
	m.oldest.Store(0)
	want("it is stored", 76, 0)
	m.unknown()
	want("the source is away", 166, 92)
	m.answers.Store(true)
	m.lag.begins()
	m.lag.mark(9000, at(170))
	want("it is back with a backlog, of which nobody knows how old", 171, 97)
	m.lag.reads(9000)
	want("all is read", 172, 0)

	state = Standby
	m.lag.begins()
	m.lag.mark(9100, at(174))
	want("the other one confirms late", 180, 0)
	want("the other one confirms no more", 200, 26)
	for s := range 10_000 {
		m.lag.mark(20_000+schemas.LSN(s), at(200+2*s))
	}
	if n := len(m.lag.marks); n > maxMarks {
		t.Errorf("%d marks are kept", n)
	}
	want("many marks later", 30_000, 30_000-174)
}
