package outbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"walhook/outbox/route"
	"walhook/schemas"
)

// TestDaily_EveryOccurrenceOf400DaysIsInExactlyOneDay goes through both
// daylight-saving edges in three zones, at times of day that clocks skip and
// repeat, with restarts, a second publisher and days that nobody was there for.
func TestDaily_EveryOccurrenceOf400DaysIsInExactlyOneDay(t *testing.T) {
	for _, seed := range []uint64{1} {
		y := newYear(t, seed)
		for range 400 {
			y.day()
		}
		y.finish()
	}
}

// year is a feed with a daily webhook in each of three zones, and what each has
// to be told.
type year struct {
	*days
	t        *testing.T
	random   *rand.Rand
	zones    map[string]route.Calendar   // by webhook
	want     map[string]map[string]int64 // by webhook: count by date and what happened
	got      map[string]map[string]int64
	late     map[string]int // by webhook: how many bodies said so
	unread   []schemas.Change
	number   int
	restarts int
	fenced   int
	missed   int
}

func newYear(t *testing.T, seed uint64) *year {
	y := &year{days: newDays(t, "2024-01-01T12:00:00Z"), t: t, random: rand.New(rand.NewPCG(seed, 1)),
		zones: map[string]route.Calendar{}, want: map[string]map[string]int64{}, got: map[string]map[string]int64{}, late: map[string]int{}}
	for webhook, c := range map[string]struct{ at, zone string }{
		"ny":  {"02:30:00", "America/New_York"},    // skipped in March
		"lhi": {"01:45:00", "Australia/Lord_Howe"}, // twice in April, by half an hour
		"ktm": {"00:00:00", "Asia/Kathmandu"},
	} {
		y.zones[webhook] = mustCalendar(t, c.at, c.zone)
		y.want[webhook], y.got[webhook] = map[string]int64{}, map[string]int64{}
		y.feed.webhook(t, "7", webhook, "hook = 'number'", daily, fmt.Sprintf("daily_at = '%s', daily_zone = '%s'", c.at, c.zone))
	}
	y.commit(t, payers.Insert(7, "n", nil, nil, nil, nil))
	return y
}

// day is one day, more or less, of things that happen.
func (y *year) day() {
	switch dice := y.random.IntN(100); {
	case dice < 6: // nobody is there for some days
		for range 1 + y.random.IntN(4) {
			y.missed++
			y.pass(24 * time.Hour)
			y.happens()
		}
		y.restart(y.t)
		y.restarts++
		y.send(y.t) // before what was missed is read
	case dice < 12: // another publisher takes over in the middle
		first := y.publisher
		y.pass(6 * time.Hour)
		y.happens()
		y.read()
		y.restart(y.t)
		if y.random.IntN(2) == 0 { // the first has not noticed
			y.pass(14 * time.Hour)
			y.happens()
			y.refused(first)
		}
	}
	for passed := time.Duration(0); passed < 24*time.Hour; {
		step := time.Duration(1+y.random.IntN(16*60)) * time.Minute
		passed += step
		y.pass(step)
		y.happens()
		if y.random.IntN(3) > 0 {
			y.read()
		}
		if y.random.IntN(3) > 0 {
			y.look()
		}
	}
	y.read()
	y.look()
	y.collect()
}

// pass lets time go by, to a moment with seconds.
func (y *year) pass(d time.Duration) {
	y.now = y.now.Add(d + time.Duration(y.random.IntN(60))*time.Second)
}

// happens commits some occurrences at the source, which count for the day that
// is open in each zone.
func (y *year) happens() {
	for range y.random.IntN(4) {
		y.number++
		change, what := dids.Insert(y.number, 7, "x"), "added"
		if y.random.IntN(3) == 0 {
			change, what = dids.Delete(y.number, 7, "x"), "removed"
		}
		y.unread = append(y.unread, y.committed(change).Changes...)
		for webhook, c := range y.zones {
			day := c.Ended(y.now)
			for !c.End(day).After(y.now) {
				day++
			}
			y.want[webhook][day.String()+" "+what]++
		}
		y.now = y.now.Add(time.Duration(y.random.IntN(3000)) * time.Millisecond)
	}
}

// read appends what was committed, in one batch or several.
func (y *year) read() {
	for len(y.unread) > 0 {
		n := 1 + y.random.IntN(len(y.unread))
		y.append(y.t, batch(y.unread[:n]))
		y.unread = y.unread[n:]
		if y.random.IntN(4) == 0 {
			y.send(y.t)
		}
	}
}

// look is a tick; the source's log is where it is, read or not.
func (y *year) look() {
	y.publisher.ObserveSourceTime(y.commitLSN, y.now.Add(daySettles))
	y.send(y.t)
}

// refused is what a publisher does that is none any more.
func (y *year) refused(p *Publisher) {
	y.fenced++
	p.ObserveSourceTime(0, y.now.Add(time.Hour))
	ctx := y.t.Context()
	if err := errors.Join(p.endReachedDays(ctx), p.sendDays(ctx), p.emptyInbox(ctx)); err != nil && !errors.Is(err, ErrFenced) {
		y.t.Fatal(err)
	}
	if len(y.unread) > 0 {
		if err := p.Append(ctx, batch(y.unread)); !errors.Is(err, ErrFenced) {
			y.t.Fatalf("another publisher appended: %v", err)
		}
	}
}

// collect takes up what was sent.
func (y *year) collect() {
	rows, err := y.conn.Query(y.t.Context(), `
		SELECT p.webhook, substring(e.webhook_id FROM '^day_([0-9]{8})_'), convert_from(e.body, 'UTF8')::json ->> 'what',
			(convert_from(e.body, 'UTF8')::json ->> 'count')::bigint, convert_from(e.body, 'UTF8') LIKE '%"late":true%'
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint`)
	if err != nil {
		y.t.Fatal(err)
	}
	for rows.Next() {
		var webhook, day, what string
		var n int64
		var late bool
		if err := rows.Scan(&webhook, &day, &what, &n, &late); err != nil {
			y.t.Fatal(err)
		}
		key := fmt.Sprintf("%s-%s-%s %s", day[:4], day[4:6], day[6:], what)
		if y.got[webhook][key] != 0 {
			y.t.Errorf("%s: %s is sent twice", webhook, key)
		}
		y.got[webhook][key] += n
		if late {
			y.late[webhook]++
		}
	}
	if err := rows.Err(); err != nil {
		y.t.Fatal(err)
	}
	y.forget(y.t)
}

// finish lets the last day end, and compares.
func (y *year) finish() {
	y.pass(30 * time.Hour)
	y.read()
	y.look()
	y.collect()
	for webhook := range y.zones {
		total := int64(0)
		for key, want := range y.want[webhook] {
			if got := y.got[webhook][key]; got != want {
				y.t.Errorf("%s: %s is %d, want %d", webhook, key, got, want)
			}
			total += want
		}
		if len(y.got[webhook]) != len(y.want[webhook]) {
			y.t.Errorf("%s: %d bodies, want %d", webhook, len(y.got[webhook]), len(y.want[webhook]))
		}
		if total != int64(y.number) || y.number < 1000 || y.late[webhook] == 0 {
			y.t.Errorf("%s: %d of %d occurrences are wanted, %d bodies were late", webhook, total, y.number, y.late[webhook])
		}
	}
	if y.restarts < 10 || y.fenced < 5 || y.missed < 20 {
		y.t.Errorf("%d restarts, %d second publishers, %d missed days: too few to tell anything", y.restarts, y.fenced, y.missed)
	}
	y.wantPeriods(y.t)
	wantLines(y.t, all[string](y.t, y.world, `
		SELECT format('%s: %s days of %s', p.webhook, count(*), max(r.day) - min(r.day) + 1) FROM walhook.daily_run r
		JOIN walhook.endpoint p ON p.id = r.endpoint GROUP BY p.webhook HAVING count(*) <> max(r.day) - min(r.day) + 1 OR count(*) < 400`))
}

func mustCalendar(t *testing.T, at, zone string) route.Calendar {
	t.Helper()
	clock, err := time.Parse(time.TimeOnly, at)
	if err != nil {
		t.Fatal(err)
	}
	c, err := route.NewCalendar(clock.Sub(clock.Truncate(24*time.Hour)), zone)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
