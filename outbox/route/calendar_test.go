package route

import (
	"fmt"
	"testing"
	"time"
)

func mustCalendar(t *testing.T, at, zone string) Calendar {
	t.Helper()
	clock, err := time.Parse("15:04:05", at)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCalendar(clock.Sub(clock.Truncate(24*time.Hour)), zone)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each local time that is skipped or comes twice, by the rules of the zone.
func TestCalendar_ADayEndsOnceAlsoWhereClocksJump(t *testing.T) {
	for _, test := range []struct{ zone, at, day, want string }{
		{"UTC", "00:00:00", "2024-06-10", "2024-06-10T00:00:00Z"},
		{"Asia/Kathmandu", "00:00:00", "2024-06-10", "2024-06-09T18:15:00Z"},
		{"Asia/Kathmandu", "23:59:59", "2024-06-10", "2024-06-10T18:14:59Z"},
		// New York: 02:00 became 03:00, and 02:00 came twice as 01:00.
		{"America/New_York", "02:30:00", "2024-03-09", "2024-03-09T07:30:00Z"},
		{"America/New_York", "02:30:00", "2024-03-10", "2024-03-10T07:00:00Z"},
		{"America/New_York", "03:00:00", "2024-03-10", "2024-03-10T07:00:00Z"},
		{"America/New_York", "02:30:00", "2024-03-11", "2024-03-11T06:30:00Z"},
		{"America/New_York", "01:30:00", "2024-11-03", "2024-11-03T05:30:00Z"},
		{"America/New_York", "02:00:00", "2024-11-03", "2024-11-03T07:00:00Z"},
		// Lord Howe's clocks jump by half an hour.
		{"Australia/Lord_Howe", "02:15:00", "2024-10-06", "2024-10-05T15:30:00Z"},
		{"Australia/Lord_Howe", "01:45:00", "2024-04-07", "2024-04-06T14:45:00Z"},
		// In these the day begins with the jump: midnight does not exist.
		{"Africa/Cairo", "00:00:00", "2024-04-26", "2024-04-25T22:00:00Z"},
		{"America/Havana", "00:00:00", "2024-03-10", "2024-03-10T05:00:00Z"},
		// And here it comes twice.
		{"America/Havana", "00:30:00", "2024-11-03", "2024-11-03T04:30:00Z"},
	} {
		c := mustCalendar(t, test.at, test.zone)
		day, _ := time.Parse(time.DateOnly, test.day)
		if got := c.End(dateOf(day.Date())).UTC().Format(time.RFC3339); got != test.want {
			t.Errorf("%s at %s in %s ends at %s, want %s", test.day, test.at, test.zone, got, test.want)
		}
	}
}

// The oracle walks through every minute and looks at the clock.
func TestCalendar_AgreesWithAWalkThroughEveryMinute(t *testing.T) {
	for _, test := range []struct{ zone, from string }{
		{"America/New_York", "2024-02-20"}, {"Europe/London", "2024-03-20"}, {"Australia/Lord_Howe", "2024-03-25"},
		{"Asia/Kathmandu", "2024-01-01"}, {"Africa/Casablanca", "2024-03-01"}, {"Antarctica/Troll", "2024-03-20"},
		{"Africa/Cairo", "2024-04-15"}, {"America/Havana", "2024-03-01"}, {"Asia/Tehran", "2022-03-10"}, {"Europe/Dublin", "2024-03-20"},
		{"Pacific/Apia", "2011-12-20"}, {"America/Santiago", "2024-03-28"}, {"America/New_York", "2024-10-25"}, {"Australia/Lord_Howe", "2024-09-28"},
	} {
		for _, at := range []string{"00:00:00", "00:30:00", "01:30:00", "01:45:00", "02:15:00", "02:30:00", "03:00:00", "12:00:00", "23:45:00", "23:59:00"} {
			c := mustCalendar(t, at, test.zone)
			from, _ := time.Parse(time.DateOnly, test.from)
			wantEnds(t, fmt.Sprint(test.zone, " at ", at), c, from, 20)
		}
	}
}

func wantEnds(t *testing.T, name string, c Calendar, from time.Time, days int) {
	t.Helper()
	wall := func(at time.Time) time.Time {
		_, offset := at.In(c.zone).Zone()
		return at.Add(time.Duration(offset) * time.Second).UTC()
	}
	// The first instant at which the clock has reached at on each date, in order.
	ends, seen := map[Date]time.Time{}, map[Date]bool{}
	next := c.on(from) + 1
	for at := from; at.Before(from.AddDate(0, 0, days)); at = at.Add(time.Minute) {
		seen[c.on(at)] = true
		for !wall(at).Before(next.midnightUTC().Add(c.at)) {
			ends[next] = at
			next++
		}
	}
	last, after := c.on(from), from
	for {
		d, end := c.next(last, after)
		if end.After(from.AddDate(0, 0, days-2)) {
			break
		}
		for skipped := last + 1; skipped < d; skipped++ {
			if seen[skipped] {
				t.Errorf("%s: %s has no end", name, skipped)
			}
		}
		if !ends[d].Equal(end) {
			t.Errorf("%s: %s ends at %s, want %s", name, d, end.UTC(), ends[d].UTC())
		}
		if !seen[d] {
			t.Errorf("%s: %s, which the zone skipped, has an end", name, d)
		}
		if got := c.Ended(end); got != d {
			t.Errorf("%s: when %s ends, the last that has ended is %s", name, d, got)
		}
		if got := c.Ended(end.Add(-time.Second)); got != last && d > c.on(from)+1 {
			t.Errorf("%s: before %s ends, the last that has ended is %s, want %s", name, d, got, last)
		}
		last, after = d, end
	}
}

func TestCalendar_FourHundredDaysHaveFourHundredEnds(t *testing.T) {
	for _, zone := range []string{"America/New_York", "Europe/London", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"} {
		for minute := 0; minute < 24*60; minute += 15 {
			c, err := NewCalendar(time.Duration(minute)*time.Minute, zone)
			if err != nil {
				t.Fatal(err)
			}
			first := dateOf(2024, time.January, 1)
			last, end := first, c.End(first)
			for range 400 {
				d, after := c.next(last, end)
				if gap := after.Sub(end); d != last+1 || gap < 22*time.Hour || gap > 26*time.Hour {
					t.Fatalf("%s at %d min: after %s at %s comes %s at %s", zone, minute, last, end, d, after)
				}
				last, end = d, after
			}
		}
	}
}

// Settings that change go on after the day that ended last, and after its end.
func TestCalendar_AnotherZoneContinuesAfterTheLastDay(t *testing.T) {
	kathmandu, newYork := mustCalendar(t, "00:00:00", "Asia/Kathmandu"), mustCalendar(t, "00:00:00", "America/New_York")
	day := dateOf(2024, time.June, 10)
	if d, end := newYork.next(day, kathmandu.End(day)); d != day+1 || !end.Equal(newYork.End(day+1)) {
		t.Errorf("after %s in Kathmandu comes %s at %s in New York", day, d, end)
	}
	if d, end := kathmandu.next(day, newYork.End(day)); d != day+1 || !end.Equal(kathmandu.End(day+1)) {
		t.Errorf("after %s in New York comes %s at %s in Kathmandu", day, d, end)
	}
}

func TestCalendar_NamesAnInvalidTimeOrZone(t *testing.T) {
	for _, test := range []struct {
		at   time.Duration
		zone string
	}{{-time.Second, "UTC"}, {24 * time.Hour, "UTC"}, {0, "Europe/Atlantis"}, {0, "Local"}, {0, ""}, {0, "../etc/passwd"}} {
		if _, err := NewCalendar(test.at, test.zone); err == nil {
			t.Errorf("%s in %q is accepted", test.at, test.zone)
		}
	}
}
