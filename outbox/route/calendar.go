package route

import (
	"fmt"
	"time"
	_ "time/tzdata" // a scratch container has no time zones
)

// Date is a day of the calendar, counted from 1 January 1970.
type Date int32

func dateOf(year int, month time.Month, day int) Date {
	return Date(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// String returns the date in ISO 8601.
func (d Date) String() string { return d.midnightUTC().Format(time.DateOnly) }

func (d Date) midnightUTC() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Calendar says when the days of a daily webhook end: each at one time of day in
// one zone.
type Calendar struct {
	at   time.Duration // since local midnight
	zone *time.Location
}

// NewCalendar reads a webhook's daily settings. An error names the wrong setting.
func NewCalendar(at time.Duration, zone string) (Calendar, error) {
	if at < 0 || at >= 24*time.Hour {
		return Calendar{}, fmt.Errorf("daily_at %s: want 00:00 to 23:59:59", at)
	}
	if zone == "" || zone == "Local" {
		return Calendar{}, fmt.Errorf("daily_zone %q: want an IANA time zone, such as Europe/London", zone)
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return Calendar{}, fmt.Errorf("daily_zone %q: unknown, want an IANA time zone, such as Europe/London", zone)
	}
	return Calendar{at, location}, nil
}

// End returns the instant at which the day of a local date ends: the first instant at
// which a clock of the zone has reached the calendar's time on that date. Every date
// has exactly one: if clocks skip that time, it is the instant of the skip; if the time
// occurs twice, it is the first.
func (c Calendar) End(d Date) time.Time { return c.reached(d.midnightUTC().Add(c.at)) }

// exists reports whether a local date exists in the zone. A zone that moved across the
// date line skipped one.
func (c Calendar) exists(d Date) bool { return c.on(c.reached(d.midnightUTC())) == d }

// on returns the local date of an instant.
func (c Calendar) on(t time.Time) Date { return dateOf(t.In(c.zone).Date()) }

// widestOffset is larger than every offset from UTC that any zone has had.
const widestOffset = 26 * time.Hour

// reached returns the first instant at which a clock of the zone shows wall or later;
// wall is written as if it were UTC.
func (c Calendar) reached(wall time.Time) time.Time {
	for t := wall.Add(-widestOffset).In(c.zone); ; {
		start, next := t.ZoneBounds()
		_, offset := t.Zone()
		first := wall.Add(-time.Duration(offset) * time.Second)
		if first.Before(start) {
			first = start // clocks skip it
		}
		if next.IsZero() || first.Before(next) {
			return first
		}
		t = next
	}
}

// next returns the first day that ends both after the day last and after an instant.
func (c Calendar) next(last Date, after time.Time) (Date, time.Time) {
	for d := max(last+1, c.on(after)-1); ; d++ {
		if end := c.End(d); end.After(after) && c.exists(d) {
			return d, end
		}
	}
}

// Ended returns the last day that has ended at an instant.
func (c Calendar) Ended(now time.Time) Date {
	for d := c.on(now) + 1; ; d-- {
		if !c.End(d).After(now) && c.exists(d) {
			return d
		}
	}
}

// UTC returns the calendar of days that end at midnight UTC.
func UTC() Calendar { return Calendar{zone: time.UTC} }

// ParseDate reads what [Date.String] writes.
func ParseDate(text string) (Date, error) {
	t, err := time.Parse(time.DateOnly, text)
	return dateOf(t.Date()), err
}
