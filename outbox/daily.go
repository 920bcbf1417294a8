package outbox

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// A webhook with daily delivery is not told of occurrences: they are counted,
// in the transaction that appends them, and what was counted is sent once a day
// (daily_end.go, daily_send.go).

// openDay is the day that a daily webhook counts for.
type openDay struct {
	calendar calendar
	last     date      // the day that ended before; counts are stored under it
	since    time.Time // when it did
	day      date
	ends     time.Time
}

func newOpenDay(c calendar, last date, since time.Time) *openDay {
	d := &openDay{calendar: c, last: last, since: since}
	d.day, d.ends = c.next(last, since)
	return d
}

// end makes the next day the open one.
func (d *openDay) end() { *d = *newOpenDay(d.calendar, d.day, d.ends) }

// sum is what an occurrence adds to a day: occurrences that are kin are one
// body, with the count n between head and tail.
type sum struct {
	kin, head, tail []byte
	format          string
	n               int64
}

// sumKey is one body of one day.
type sumKey struct {
	endpoint int64
	period   date
	account  string
	kin      [sha256.Size]byte
}

type daySum struct {
	hook, typ  string
	format     string
	head, tail []byte
	n          int64
}

// countDaily adds an occurrence to the open day of those of an audience that are
// told once a day, and gives the others.
func (r *router) countDaily(c *schemas.Change, account string, to []*route, o *occurrence) (others []*route) {
	if !slices.ContainsFunc(to, func(one *route) bool { return one.day != nil }) {
		return to
	}
	own, err := o.daily(account, false)
	if err != nil {
		r.p.log.Error("event cannot be counted, its change is listed as unrouted",
			zap.Stringer("position", c.Position), zap.String("hook", o.hook), zap.String("schema", o.schema), zap.Error(err))
		r.refuse(c, o.schema, o.typ, "", skipMalformed)
	}
	others = make([]*route, 0, len(to))
	for _, one := range to {
		switch {
		case one.day == nil:
			others = append(others, one)
		case err == nil:
			s := own
			if o.masksFor(one) {
				s, _ = o.daily(account, true) // what can be rendered can be masked
			}
			key := sumKey{one.endpoint, one.day.last, account, sha256.Sum256(s.kin)}
			d := r.sums[key]
			if d == nil {
				d = &daySum{hook: o.hook, typ: o.typ, format: s.format}
				r.sums[key] = d
			}
			d.n += s.n
			d.head, d.tail = s.head, s.tail // what is known of the account is as it was last
		}
	}
	return others
}

// daily is what an occurrence adds. One that has no count of its own is counted
// by hook, object and action.
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
	return sum{kin: head, head: head, tail: []byte(`}`), format: "json", n: 1}, nil
}

const writeSumsSQL = `
	INSERT INTO walhook.daily_count AS d (endpoint, period, account, kin, hook, type, format, n, head, tail)
	SELECT * FROM unnest($1::bigint[], $2::text[]::date[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bytea[], $10::bytea[])
	ON CONFLICT (endpoint, period, account, kin) DO UPDATE SET n = d.n + excluded.n, head = excluded.head, tail = excluded.tail`

func (r *router) queueSums(b *pgx.Batch) {
	if len(r.sums) == 0 {
		return
	}
	var endpoints, numbers []int64
	var periods, accounts, hooks, types, formats []string
	var kin, heads, tails [][]byte
	for k, d := range r.sums {
		endpoints, periods, accounts = append(endpoints, k.endpoint), append(periods, k.period.String()), append(accounts, k.account)
		kin, hooks, types = append(kin, slices.Clone(k.kin[:])), append(hooks, d.hook), append(types, d.typ)
		formats = append(formats, d.format)
		numbers, heads, tails = append(numbers, d.n), append(heads, d.head), append(tails, d.tail)
	}
	b.Queue(writeSumsSQL, endpoints, periods, accounts, kin, hooks, types, formats, numbers, heads, tails)
}
