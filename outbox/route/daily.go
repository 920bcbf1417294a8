package route

import (
	"crypto/sha256"
	"slices"
	"time"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// A webhook with daily delivery gets no events of single occurrences. The transaction
// that would append them counts them, and walhook sends the counts once a day.
//
// A day ends at a position in the WAL. Every earlier change counts for it:
//
//   - The day ends before the first change that committed at or after its end, when
//     the publisher appends that change. So days are kept apart even when their WAL is
//     read late.
//   - Without such a change the day ends at the stored position, once everything is
//     stored that the source committed before its end ([EndDays]).
//
// In both cases the outbox's clock must have passed the end too, so a time stamp from
// the future ends no day. So the counts of a day depend only on the WAL, however late
// walhook reads it.

// OpenDay is the day for which a daily webhook counts at present.
type OpenDay struct {
	calendar Calendar
	last     Date      // the previous day; counts are stored under it
	since    time.Time // when the previous day ended
	day      Date
	ends     time.Time
}

// NewOpenDay returns the day after the day last, which ended at since.
func NewOpenDay(c Calendar, last Date, since time.Time) *OpenDay {
	d := &OpenDay{calendar: c, last: last, since: since}
	d.day, d.ends = c.next(last, since)
	return d
}

// DayEnd is the end of a day. Position is the last one of the day; zero stands for the
// stored position.
type DayEnd struct {
	Endpoint     int64
	Day          Date
	Began, Ended time.Time
	Zone         string
	Position     schemas.Position
}

// day returns the open day of a webhook; nil for a webhook without daily delivery.
func (r *router) day(w *Endpoint) *OpenDay {
	if w.Day == nil {
		return nil
	}
	if day, changed := r.plan.state.days[w]; changed {
		return day
	}
	return w.Day
}

// endDays ends, before the i-th change, the days that ended before its commit.
func (r *router) endDays(i int) {
	at := r.changes[i].CommittedAt
	if r.part.Now.Before(at) {
		at = r.part.Now
	}
	if next := r.plan.state.nextEnd; next.IsZero() || at.Before(next) {
		return
	}
	var last schemas.Position
	if i > 0 {
		last = r.changes[i-1].Position
	}
	r.view.endDays(r.plan, at, last)
}

// maxDayEnds bounds how many days end in one transaction. The next transaction ends
// the rest, as after years without an outbox.
const maxDayEnds = 10_000

// EndDays returns a plan that ends, at the stored position, the days whose end is at
// or before an instant.
func EndDays(v *View, at time.Time) *Plan {
	p := NewPlan(v)
	if !v.nextEnd.IsZero() && !at.Before(v.nextEnd) {
		v.endDays(p, at, schemas.Position{})
	}
	return p
}

// NextEnd returns an instant before which no open day ends; zero when none is open.
func (v *View) NextEnd() time.Time { return v.nextEnd }

func (v *View) endDays(p *Plan, at time.Time, last schemas.Position) {
	first := len(p.DayEnds)
	for _, w := range v.daily {
		d := w.Day
		if day, changed := p.state.days[w]; changed {
			d = day
		}
		before := d
		for ; !at.Before(d.ends) && len(p.DayEnds)-first < maxDayEnds; d = NewOpenDay(d.calendar, d.day, d.ends) {
			p.DayEnds = append(p.DayEnds, DayEnd{w.ID, d.day, d.since, d.ends, d.calendar.zone.String(), last})
		}
		if d != before {
			put(&p.state.days, w, d)
		}
	}
	p.state.nextEnd = v.firstEnd(p.state.days)
}

// firstEnd returns the earliest end of the open days; zero for none.
func (v *View) firstEnd(changed map[*Endpoint]*OpenDay) (next time.Time) {
	for _, w := range v.daily {
		d := w.Day
		if day := changed[w]; day != nil {
			d = day
		}
		if next.IsZero() || d.ends.Before(next) {
			next = d.ends
		}
	}
	return next
}

// sum is what an occurrence adds to a day. Occurrences with the same group key share
// one body, with the count between head and tail.
type sum struct {
	group, head, tail []byte
	format            string
	n                 int64
}

// countDaily adds an occurrence to the open day of each recipient with daily delivery,
// and returns the other recipients.
func (r *router) countDaily(c *schemas.Change, account string, to []*Endpoint, o *occurrence) (others []*Endpoint) {
	if !slices.ContainsFunc(to, func(one *Endpoint) bool { return one.Day != nil }) {
		return to
	}
	own, err := o.daily(account, false)
	if err != nil {
		r.note(Error, "event cannot be counted, its change is unrouted",
			field("position", c.Position), field("hook", o.hook), field("schema", o.schema), field("error", err))
		r.refuse(c, o.schema, o.typ, "", SkipMalformed)
	}
	others = make([]*Endpoint, 0, len(to))
	for _, one := range to {
		switch {
		case one.Day == nil:
			others = append(others, one)
		case err == nil:
			s := own
			if o.masksFor(one) {
				s, _ = o.daily(account, true) // a body that renders also renders masked
			}
			key := SumKey{one.ID, r.day(one).last, account, sha256.Sum256(s.group)}
			d := r.plan.Sums[key]
			if d == nil {
				d = &Sum{Hook: o.hook, Type: o.typ, Format: s.format}
				put(&r.plan.Sums, key, d)
			}
			d.N += s.n
			d.Head, d.Tail = s.head, s.tail // the latest values of the account's columns
		}
	}
	return others
}

// daily returns what an occurrence adds. One without a count of its own adds 1 under
// its hook, object and action.
func (o *occurrence) daily(account string, masked bool) (sum, error) {
	if o.sum != nil {
		return o.sum(masked)
	}
	object, action := o.objectType, o.action
	if o.hook == HookRecords {
		object, action = o.schema, o.typ
	}
	head := []byte(`{`)
	for _, member := range [][2]string{{"account_id", account}, {"hook", o.hook}, {"object", object}, {"action", action}} {
		if member[1] == "" {
			continue
		}
		head = pgjson.AppendString(head, []byte(member[0]))
		head = append(pgjson.AppendString(append(head, ':'), []byte(member[1])), ',')
	}
	head = append(head, `"count":`...)
	return sum{group: head, head: head, tail: []byte(`}`), format: "json", n: 1}, nil
}
