package cdc

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/schemas"
)

// TestLag_IsTheAgeOfTheOldestChangeThatIsNotStored reports a source's states second by
// second.
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
	m.oldest.Store(at(70).UnixNano())
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

	m.lag.startsAt(at(0))
	m.lag.mark(9050, at(173))
	want("what it saw by itself is closer", 174, 1)
	m.lag.reads(9050)
	want("it is read", 174, 0)

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

// TestLag_OfABacklogCountsFromWhenTheStoreLastAdvanced has a process start on a
// backlog, with the store or the source answering first.
func TestLag_OfABacklogCountsFromWhenTheStoreLastAdvanced(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	stored := start.Add(-time.Hour)
	for name, begin := range map[string]func(l *lag){
		"the store answers first":  func(l *lag) { l.startsAt(stored); l.mark(200, start) },
		"the source answers first": func(l *lag) { l.mark(200, start); l.startsAt(stored) },
		"and then looks again":     func(l *lag) { l.mark(200, start); l.mark(300, start.Add(time.Second)); l.startsAt(stored) },
	} {
		m := newMetrics(prometheus.NewRegistry(), func() State { return Reading })
		m.answers.Store(true)
		m.flushed.Store(100)
		begin(&m.lag)
		if got := m.lagSeconds(start.Add(time.Second)); got != 3601 {
			t.Errorf("%s: %g, want 3601", name, got)
		}
		m.flushed.Store(300)
		if got := m.lagSeconds(start.Add(2 * time.Second)); got != 0 {
			t.Errorf("%s: %g once all is stored", name, got)
		}
		m.lag.mark(400, start.Add(3*time.Second))
		if got := m.lagSeconds(start.Add(4 * time.Second)); got != 1 {
			t.Errorf("%s: %g of what came afterwards, want 1", name, got)
		}
	}
	m := newMetrics(prometheus.NewRegistry(), func() State { return Connecting })
	m.lag.startsAt(stored)
	if got := m.lagSeconds(start); got != 3600 {
		t.Errorf("%g while the source is away from the start, want 3600", got)
	}
}
