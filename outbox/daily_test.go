package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"walhook/outbox/route"
	"walhook/schemas"
)

// days is a feed whose clocks, the source's and the outbox's, are the test's.
type days struct {
	*feed
	now time.Time
}

func newDays(t *testing.T, now string) *days {
	t.Helper()
	d := &days{feed: newBilling(t)}
	d.at(t, now)
	d.wind()
	return d
}

// wind gives the publisher the test's clock.
func (d *days) wind() {
	d.publisher.clock = func(context.Context) (time.Time, error) { return d.now, nil }
}

func (d *days) restart(t *testing.T) {
	t.Helper()
	d.publisher = newPublisherOf(t, d.world, d.catalog)
	d.wind()
	d.takeOver(t)
}

// at sets the clock.
func (d *days) at(t *testing.T, now string) {
	t.Helper()
	var err error
	if d.now, err = time.Parse(time.RFC3339, now); err != nil {
		t.Fatal(err)
	}
}

// commit appends one transaction, committed now.
func (d *days) commit(t *testing.T, changes ...schemas.Change) {
	t.Helper()
	d.append(t, d.committed(changes...))
}

func (d *days) committed(changes ...schemas.Change) schemas.Batch {
	changes = d.tx(changes...)
	for i := range changes {
		changes[i].CommittedAt = d.now
	}
	return batch(changes)
}

// tick is what a publisher does once a second, all of the log until now being
// stored.
func (d *days) tick(t *testing.T) {
	t.Helper()
	d.publisher.ObserveSourceTime(d.publisher.watermark.flush, d.now.Add(daySettles))
	d.send(t)
}

func (d *days) send(t *testing.T) {
	t.Helper()
	p, ctx := d.publisher, t.Context()
	if err := errors.Join(p.endReachedDays(ctx), p.sendDays(ctx), p.emptyInbox(ctx)); err != nil {
		t.Fatal(err)
	}
}

// bodies lists what was sent since it was last asked for, a line each: webhook,
// webhook-id up to its hash, record and body.
func (d *days) bodies(t *testing.T) []string {
	t.Helper()
	lines := all[string](t, d.world, `
		SELECT format('%s %s %s %s', p.webhook, regexp_replace(e.webhook_id, '[0-9a-f]{24}$', ''), e.record, convert_from(e.body, 'UTF8'))
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
	d.forget(t)
	return lines
}

const (
	daily  = "delivery = 'daily'"
	inNY   = "daily_zone = 'America/New_York'"
	anHour = time.Hour
)

func TestDaily_CountsOncePerDayByAccountActionAndType(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'billing'", daily, inNY, "daily_at = '06:00'", follows)
	d.commit(t, payers.Insert(7, "n", nil, nil, "S-7", "p"), payers.Insert(8, "n", nil, 7, "S-8", "q"))
	d.commit(t, dids.Insert(1, 7, "1"), dids.Insert(2, 7, "2"), dids.Insert(3, 8, "3"), faxes.Insert(1, 1, "20"), faxes.Insert(2, 2, "3"))
	d.tick(t)
	wantLines(t, d.bodies(t))
	d.now = d.now.Add(6 * anHour)
	d.commit(t, dids.Delete(2, 7, "2"), payers.Update(payer(8, 7, "S-8", "q"), payer(8, 7, "S-9", "q")), dids.Insert(4, 8, "4"))
	d.at(t, "2024-06-11T10:00:00Z") // 06:00 in New York
	d.tick(t)
	wantLines(t, d.bodies(t),
		`a day_20240611_1_ day/7 {"account":"7","pages":23,"sku":"S-7"}`,
		`a day_20240611_1_ day/7 {"account":7,"what":"added","count":2,"sku":"S-7","plan":"p"}`,
		`a day_20240611_1_ day/7 {"account":7,"what":"removed","count":1,"sku":"S-7","plan":"p"}`,
		`a day_20240611_1_ day/8 {"account":8,"what":"added","count":2,"sku":"S-9","plan":"q"}`)
	d.tick(t)
	d.restart(t)
	d.tick(t)
	d.at(t, "2024-06-12T10:00:00Z") // nothing happened
	d.tick(t)
	wantLines(t, d.bodies(t))
	if kept := d.count(t, "daily_count"); kept != 0 {
		t.Errorf("%d counts are kept", kept)
	}
	wantLines(t, all[string](t, d.world, `SELECT format('%s %s %s %s', endpoint, day, late, sent_at IS NOT NULL) FROM walhook.daily_run ORDER BY day`),
		"1 2024-06-11 f t", "1 2024-06-12 f t")
}

// What has no count of its own is counted by hook, object and action.
func TestDaily_EveryHookCanBeDeliveredOnceADay(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "records", daily)
	d.feed.webhook(t, "7", "object", "hook = 'object'", daily)
	d.feed.webhook(t, "7", "list", "hook = 'number_list'", daily)
	d.feed.webhook(t, "7", "now")
	d.commit(t, dids.Insert(1, 7, "1"), dids.Insert(2, 7, "2"), dids.Delete(1, 7, "1"))
	d.at(t, "2024-06-11T00:00:00Z")
	d.tick(t)
	wantLines(t, rest(d.bodies(t), 3), // those of now
		`records day_20240611_1_ day/7 {"account_id":"7","hook":"records","object":"dids","action":"delete","count":1}`,
		`records day_20240611_1_ day/7 {"account_id":"7","hook":"records","object":"dids","action":"insert","count":2}`,
		`object day_20240611_2_ day/7 {"account_id":"7","hook":"object","object":"dids","action":"doc_created","count":2}`,
		`object day_20240611_2_ day/7 {"account_id":"7","hook":"object","object":"dids","action":"doc_deleted","count":1}`,
		`list day_20240611_3_ day/7 {"account_id":"7","hook":"number_list","object":"dids","action":"x","count":3}`)
}

// The log says when a day ends, however late it is read.
func TestDaily_MissedDaysAreToldApartAndMarked(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily, inNY)
	d.commit(t, dids.Insert(1, 7, "1"))
	// The publisher is away; what is committed meanwhile it reads afterwards.
	var missed []schemas.Batch
	for _, at := range []string{"2024-06-11T03:59:59Z", "2024-06-11T04:00:00Z", "2024-06-12T05:00:00Z", "2024-06-14T03:00:00Z", "2024-06-14T04:00:00.5Z"} {
		d.at(t, at)
		missed = append(missed, d.committed(dids.Insert(len(missed)+2, 7, "x"), dids.Insert(len(missed)+20, 7, "x")))
	}
	d.at(t, "2024-06-14T12:00:00Z")
	d.restart(t)
	d.send(t)
	wantLines(t, d.bodies(t)) // not before it is read what belongs to them
	var all []schemas.Change
	for _, b := range missed {
		all = append(all, b.Changes...)
	}
	d.append(t, batch(all))
	d.send(t)
	const late = `,"late":true,"period_start":"2024-06-%s:00-04:00","period_end":"2024-06-%s:00-04:00"}`
	wantLines(t, d.bodies(t),
		`a day_20240611_1_ day/7 {"account":7,"what":"added","count":3,"sku":null,"plan":"none"`+fmt.Sprintf(late, "10T08:00", "11T00:00"),
		`a day_20240612_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"`+fmt.Sprintf(late, "11T00:00", "12T00:00"),
		`a day_20240613_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"`+fmt.Sprintf(late, "12T00:00", "13T00:00"),
		`a day_20240614_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"`+fmt.Sprintf(late, "13T00:00", "14T00:00"))
	d.at(t, "2024-06-15T04:00:00Z")
	d.tick(t)
	wantLines(t, d.bodies(t), `a day_20240615_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"}`)
	d.wantPeriods(t)
}

// wantPeriods checks that the days of each webhook follow each other, in time
// and in the log.
func (d *days) wantPeriods(t *testing.T) {
	t.Helper()
	wantLines(t, all[string](t, d.world, `
		SELECT format('%s %s: from %s to %s after %s', endpoint, day, began_at, ended_at, before) FROM (
			SELECT *, lag(ended_at) OVER w AS before, lag((commit_lsn, ordinal)) OVER w AS place FROM walhook.daily_run
			WINDOW w AS (PARTITION BY endpoint ORDER BY day)) AS r
		WHERE began_at <> before OR (commit_lsn, ordinal) < place`))
}

func TestDaily_ADayEndsAtAPositionAndNotByTheClock(t *testing.T) {
	d := newDays(t, "2024-06-10T23:59:58Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
	d.commit(t, dids.Insert(1, 7, "1"))
	waiting := d.committed(dids.Insert(2, 7, "2"))
	d.at(t, "2024-06-11T00:10:00Z")
	d.publisher.ObserveSourceTime(0x9000, d.now) // the log goes on beyond what is stored
	d.send(t)
	wantLines(t, d.bodies(t))
	d.append(t, waiting)
	d.send(t)
	wantLines(t, d.bodies(t))
	d.append(t, schemas.Batch{Position: waiting.Position, Flush: 0x9000})
	d.send(t)
	wantLines(t, d.bodies(t), `a day_20240611_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"}`)
	wantLines(t, all[string](t, d.world, "SELECT format('%s#%s', commit_lsn, ordinal) FROM walhook.daily_run"), waiting.Position.String())
}

func TestDaily_ATimeStampFromTheFutureEndsNothing(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
	d.commit(t, payers.Insert(7, "n", nil, nil, nil, nil))
	b := d.committed(dids.Insert(1, 7, "1"))
	b.Changes[0].CommittedAt = d.now.AddDate(70, 0, 0)
	d.append(t, b)
	d.publisher.ObserveSourceTime(b.Flush, d.now.AddDate(70, 0, 0))
	d.send(t)
	if runs := d.count(t, "daily_run"); runs != 0 {
		t.Errorf("%d days ended", runs)
	}
}

// A second publisher takes over; what the first has in hand is refused.
func TestDaily_OfTwoPublishersOneEndsTheDay(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
	d.commit(t, dids.Insert(1, 7, "1"))
	first := d.publisher
	d.restart(t)
	d.at(t, "2024-06-11T00:00:00Z")
	first.ObserveSourceTime(first.watermark.flush, d.now.Add(time.Minute))
	if err := first.endReachedDays(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("the first publisher: %v, want it fenced", err)
	}
	if err := errors.Join(first.sendDays(t.Context()), first.emptyInbox(t.Context())); err != nil {
		t.Error(err)
	}
	if runs := d.count(t, "daily_run"); runs != 0 {
		t.Error("a publisher that is none any more ended a day")
	}
	d.now = d.now.Add(time.Second)
	d.commit(t, dids.Insert(2, 7, "2")) // ends the day, and nobody has sent it yet
	first.live = true                   // it has not noticed
	if err := first.sendDays(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("the first publisher sends: %v, want it fenced", err)
	}
	d.tick(t)
	wantLines(t, d.bodies(t), `a day_20240611_1_ day/7 {"account":7,"what":"added","count":1,"sku":null,"plan":"none"}`)
}

// A day that ended before a crash is sent after it, and not twice.
func TestDaily_ACrashBetweenEndAndSendingLosesNothing(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
	d.commit(t, dids.Insert(1, 7, "1"))
	d.at(t, "2024-06-11T00:00:01Z")
	d.commit(t, dids.Insert(2, 7, "2")) // ends the day
	d.restart(t)
	d.commit(t, dids.Insert(3, 7, "3"))
	d.tick(t)
	wantLines(t, d.bodies(t), `a day_20240611_1_ day/7 {"account":7,"what":"added","count":1,"sku":null,"plan":"none"}`)
	d.at(t, "2024-06-12T00:00:01Z")
	d.tick(t)
	wantLines(t, d.bodies(t), `a day_20240612_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"}`)
}

// An outbox that is away is told of without a day and an endpoint that nobody has.
func TestDaily_AnOutboxThatIsAwayIsNoDayInTrouble(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.takeOver(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.publisher.sendDay(ctx); err == nil || !strings.HasPrefix(err.Error(), "look for a day that ended: ") {
		t.Errorf("the log says: %v", err)
	}
}

// An append that fails counts nothing and ends nothing, and is repeated whole.
func TestDaily_AFailedAppendIsRepeatedWhole(t *testing.T) {
	d := &days{feed: newFeedOf(t, newWorldAlone(t), billingCatalog)}
	d.at(t, "2024-06-10T12:00:00Z")
	d.wind()
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
	d.commit(t, dids.Insert(1, 7, "1"))
	d.at(t, "2024-06-11T00:00:01Z")
	b := d.committed(dids.Insert(2, 7, "2"))
	d.exec(t, "ALTER TABLE walhook.daily_run ADD CONSTRAINT broken CHECK (endpoint = 0)")
	if err := d.publisher.Append(t.Context(), b); err == nil {
		t.Fatal("appended")
	}
	d.exec(t, "ALTER TABLE walhook.daily_run DROP CONSTRAINT broken")
	d.takeOver(t)
	d.append(t, b)
	d.send(t)
	d.at(t, "2024-06-12T00:00:01Z")
	d.tick(t)
	wantLines(t, d.bodies(t),
		`a day_20240611_1_ day/7 {"account":7,"what":"added","count":1,"sku":null,"plan":"none"}`,
		`a day_20240612_1_ day/7 {"account":7,"what":"added","count":1,"sku":null,"plan":"none"}`)
}

func TestDaily_WhatBecomesOfADayWhoseWebhookChanges(t *testing.T) {
	one := `{"account":7,"what":"added","count":1,"sku":null,"plan":"none"}`
	for name, test := range map[string]struct {
		set   string
		at    string // of the next look
		want  []string
		after []string // what a change an hour later yields, and the end of that day
	}{
		"to real time: what was counted is sent, and the rest at once": {
			set: "delivery = 'realtime'", at: "2024-06-10T13:00:00Z",
			want:  []string{"a day_20240611_1_ day/7 " + one},
			after: []string{"a evt_0000000000001200_1c derived/dids:2 " + one},
		},
		"another zone: the day goes on to its end there": {
			set: "daily_zone = 'Pacific/Honolulu'", at: "2024-06-11T00:00:00Z",
			after: []string{`a day_20240611_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"}`},
		},
		"another time of day: the day goes on to that": {
			set: "daily_at = '01:00'", at: "2024-06-10T23:30:00Z",
			after: []string{`a day_20240611_1_ day/7 {"account":7,"what":"added","count":2,"sku":null,"plan":"none"}`},
		},
		"disabled: it is held with the other events": {
			set: "state = 'disabled', disabled_by = 'walhook', reason = 'only fails'", at: "2024-06-11T00:00:00Z",
			want:  []string{"a day_20240611_1_ day/7 " + one},
			after: []string{"a day_20240612_1_ day/7 " + one},
		},
		"deleted: nothing is sent": {
			set: "deleted_at = now(), state = 'cleared', url = NULL, reason = 'deleted'", at: "2024-06-11T00:00:00Z",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDays(t, "2024-06-10T12:00:00Z")
			d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
			d.commit(t, dids.Insert(1, 7, "1"))
			d.exec(t, "UPDATE walhook.endpoint SET "+test.set)
			d.touch(t)
			d.at(t, test.at)
			d.tick(t)
			wantLines(t, d.bodies(t), test.want...)
			d.now = d.now.Add(anHour)
			d.commit(t, dids.Insert(2, 7, "2"))
			d.now = d.now.Add(25 * anHour)
			d.tick(t)
			got := d.bodies(t)
			for i := range got {
				got[i], _, _ = strings.Cut(got[i], `,"late"`)
				if !strings.HasSuffix(got[i], "}") {
					got[i] += "}"
				}
			}
			wantLines(t, got, test.after...)
			if kept := d.count(t, "daily_count"); kept != 0 {
				t.Errorf("%d counts are kept", kept)
			}
			if name[:7] == "deleted" && d.skipped(t)[route.SkipNoEndpoint] == 0 {
				t.Error("what was not sent is not counted")
			}
			d.wantPeriods(t)
		})
	}
}

// The date of a day is used once, whatever the settings do in between.
func TestDaily_BackAndForthOnOneDayEndsItOnce(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
	for i := range 6 {
		d.commit(t, dids.Insert(i, 7, "1"))
		d.exec(t, "UPDATE walhook.endpoint SET delivery = CASE delivery WHEN 'daily' THEN 'realtime' ELSE 'daily' END")
		d.touch(t)
		d.tick(t)
		d.now = d.now.Add(anHour)
	}
	d.at(t, "2024-06-13T00:00:00Z")
	d.tick(t)
	days := all[string](t, d.world, "SELECT to_char(day, 'MM-DD') FROM walhook.daily_run ORDER BY day")
	if len(days) < 3 {
		t.Errorf("days %v", days)
	}
	total := 0
	for _, line := range d.bodies(t) {
		n := 0
		_, rest, _ := strings.Cut(line, `"count":`)
		fmt.Sscan(rest, &n)
		total += n
	}
	if total != 6 {
		t.Errorf("%d occurrences were told, want 6", total)
	}
}

func TestDaily_ManyCountsGoOutInChunks(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "1", "a", "hook = 'number'", daily, follows)
	var changes []schemas.Change
	const accounts = dayChunk + 500
	for id := 2; id < accounts+2; id++ {
		changes = append(changes, payers.Insert(id, "n", nil, 1, nil, nil), dids.Insert(id, id, "1"))
	}
	d.commit(t, changes...)
	d.at(t, "2024-06-11T00:00:00Z")
	d.tick(t)
	if sent := d.count(t, "event"); sent != accounts {
		t.Errorf("%d bodies were sent, want %d", sent, accounts)
	}
	if ids := one[int](t, d.world, "SELECT count(DISTINCT webhook_id)::int FROM walhook.event"); ids != accounts {
		t.Errorf("%d ids for %d bodies", ids, accounts)
	}
	if kept := d.count(t, "daily_count") + d.count(t, "inbox"); kept != 0 {
		t.Errorf("%d rows are kept", kept)
	}
}

// A zone that this machine does not know is no reason to stop.
func TestDaily_AnUnknownZoneCountsAsUTC(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily, "daily_zone = 'Europe/Atlantis'")
	d.commit(t, dids.Insert(1, 7, "1"))
	d.at(t, "2024-06-11T00:00:00Z")
	d.tick(t)
	wantLines(t, d.bodies(t), `a day_20240611_1_ day/7 {"account":7,"what":"added","count":1,"sku":null,"plan":"none"}`)
	if d.logs.FilterMessageSnippet("days of a webhook end at midnight UTC").Len() == 0 {
		t.Error("its changes reach nobody")
	}
}

func TestDaily_RunsGoWithRetentionAndCountsDoNot(t *testing.T) {
	d := newDays(t, "2024-06-10T12:00:00Z")
	d.feed.webhook(t, "7", "a", "hook = 'number'", daily)
	d.commit(t, dids.Insert(1, 7, "1"))
	d.at(t, "2024-06-11T00:00:00Z")
	d.tick(t)
	d.commit(t, dids.Insert(2, 7, "2"))
	d.exec(t, "UPDATE walhook.daily_run SET sent_at = now() - interval '8 days'")
	if err := d.store.maintainOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runs := d.count(t, "daily_run"); runs != 0 {
		t.Errorf("%d runs are kept", runs)
	}
	if open := d.count(t, "daily_count"); open != 1 {
		t.Errorf("%d counts of the open day, want 1", open)
	}
	d.bodies(t)
	d.restart(t)
	d.tick(t)
	wantLines(t, d.bodies(t))
	if runs := d.count(t, "daily_run"); runs != 0 {
		t.Error("the day ended again")
	}
}
