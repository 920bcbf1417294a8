package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	"walhook/outbox/admin"
)

// yesterday makes room for attempts of yesterday.
func (w *world) yesterday(t *testing.T) {
	t.Helper()
	today := one[time.Time](t, w, "SELECT date_trunc('day', now(), 'UTC')").UTC()
	day := today.Add(-24 * time.Hour)
	w.exec(t, fmt.Sprintf("CREATE TABLE walhook.attempt_%s PARTITION OF walhook.attempt FOR VALUES FROM ('%s') TO ('%s')",
		day.Format("20060102"), day.Format(time.RFC3339), today.Format(time.RFC3339)))
}

// Every attempt of the last 24 hours counts once, whichever way it ended and however
// often somebody asks.
func TestCounts_AreExact(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	w.yesterday(t)
	first, other := w.webhook(t, token, "7", ""), w.webhook(t, token, "7", "")
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT greatest(now() - n * interval '1 minute', date_trunc('day', now(), 'UTC') - interval '1 day'), id, n, 1, 1, '1 ms', 200, CASE WHEN n % 10 = 0 THEN 'retry' ELSE 'delivered' END, '2xx', ''
		FROM walhook.endpoint CROSS JOIN generate_series(1, CASE webhook WHEN $1 THEN 2000 ELSE 100 END) n`, first)
	const path = "/v2/accounts/7/webhooks"
	want := func(path string, endpoints string) {
		t.Helper()
		// The window begins with a step, so what is near its beginning may be in or not.
		r := w.want(t, 200, token, "GET", path, "").data(t)
		for r["at_least"] == true { // as a slow machine says: counting continues
			time.Sleep(50 * time.Millisecond)
			r = w.want(t, 200, token, "GET", path, "").data(t)
		}
		from, err := time.Parse(time.RFC3339, r["from"].(string))
		if err != nil || time.Since(from) > 24*time.Hour || time.Since(from) < 24*time.Hour-countStepLength-time.Minute {
			t.Fatalf("from %v: %v", r["from"], err)
		}
		counted := fmt.Sprintf("%v of %v", r["delivered"], r["failed"])
		stored := one[string](t, w, `SELECT count(*) FILTER (WHERE outcome = 'delivered') || ' of ' || count(*) FILTER (WHERE outcome <> 'delivered') FROM walhook.attempt
			WHERE endpoint IN (SELECT id FROM walhook.endpoint WHERE `+endpoints+`) AND at >= '`+from.Format(time.RFC3339)+`'`)
		var inSteps float64
		for _, step := range r["steps"].([]any) {
			inSteps += step.(map[string]any)["delivered"].(float64) + step.(map[string]any)["failed"].(float64)
		}
		if counted != stored || inSteps != r["delivered"].(float64)+r["failed"].(float64) {
			t.Errorf("%s counts %s, and %v in steps; there are %s", path, counted, inSteps, stored)
		}
	}
	for _, rows := range []int64{countRows, 300} {
		w.api.counts = newAttemptCounter(w.admin)
		w.api.counts.rows = rows
		want(path+"/attempts/counts", "true")
		want(path+"/"+first+"/attempts/counts", "webhook = '"+first+"'")
		want(path+"/"+other+"/attempts/counts", "webhook = '"+other+"'")
		w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
			SELECT clock_timestamp(), id, 10000 + $1, 1, 1, '1 ms', 200, 'dead', '2xx', '' FROM walhook.endpoint`, rows)
		want(path+"/attempts/counts", "true") // the newest are counted again
	}
	w.want(t, 404, w.token(t, "8", ""), "GET", "/v2/accounts/8/webhooks/"+first+"/attempts/counts", "")
}

const each = 40 // attempts in every step of countEven

// countEven counts as a table would that has each attempts in every step.
func countEven(_ context.Context, ranges []admin.CountRange, step time.Duration, most int64) (counts []admin.AttemptCount, ended *admin.AttemptCount, err error) {
	for i, r := range ranges {
		for at := r.To.Add(-step); !at.Before(r.From) && most > 0; at = at.Add(-step) {
			n := min(most, each)
			most -= n
			counts = append(counts, admin.AttemptCount{Range: i, Step: at.Unix() / 300, Delivered: n})
		}
	}
	if most == 0 {
		ended = &counts[len(counts)-1]
	}
	return counts, ended, nil
}

// Counting reads a bounded number of rows at a time, says "at least" until it is through,
// and then reads only the newest again.
func TestCounts_GoOnWhereTheyEnded(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 2, 0, 0, time.UTC)
	var asked []admin.CountRange
	c := &attemptCounter{now: func() time.Time { return now }, rows: 1000, until: countFor, known: map[int64]map[int64]stepCount{}}
	c.count = func(ctx context.Context, ranges []admin.CountRange, step time.Duration, most int64) (counts []admin.AttemptCount, ended *admin.AttemptCount, err error) {
		asked = ranges
		now = now.Add(countFor + 1) // one statement a call
		return countEven(ctx, ranges, step, most)
	}
	calls := 0
	for last := int64(0); ; calls++ {
		counted, err := c.of(t.Context(), []int64{5})
		if err != nil || counted.Delivered <= last && calls > 0 && counted.AtLeast {
			t.Fatalf("call %d: %d after %d: %v", calls, counted.Delivered, last, err)
		}
		if last = counted.Delivered; !counted.AtLeast {
			if last != 288*each {
				t.Errorf("%d are counted", last)
			}
			break
		}
	}
	if calls < 5 {
		t.Errorf("%d calls", calls)
	}
	if _, err := c.of(t.Context(), []int64{5}); err != nil || len(asked) != 1 || asked[0].To.Sub(asked[0].From) > countSettled+2*countStepLength {
		t.Errorf("asked for %v again: %v", asked, err)
	}
	now = now.Add(countKept)
	if counted, err := c.of(t.Context(), []int64{5}); err != nil || counted.Delivered < 276*each {
		t.Errorf("%d, while it counts again: %v", counted.Delivered, err)
	}
}

// A step with more attempts than one statement reads keeps the others from nothing.
func TestCounts_AStepMayHaveTooMany(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	w.yesterday(t)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT clock_timestamp(), id, n, 1, 1, '1 ms', 200, 'delivered', '2xx', '' FROM walhook.endpoint CROSS JOIN generate_series(1, 500) n`)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT clock_timestamp() - n * interval '10 minutes', id, 1000 + n, 1, 1, '1 ms', 200, 'retry', '5xx', '' FROM walhook.endpoint CROSS JOIN generate_series(1, 50) n`)
	w.api.counts.rows = 100
	r := w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks/"+id+"/attempts/counts", "").data(t)
	if r["delivered"].(float64) < 100 || r["failed"] != 50.0 || r["at_least"] != true {
		t.Errorf("%v and %v, at least: %v", r["delivered"], r["failed"], r["at_least"])
	}
}

// What a call has no time for is counted after its answer, so that a page that shows the
// counts is quick and the next one has them all.
func TestCounts_ContinueAfterTheAnswer(t *testing.T) {
	c := &attemptCounter{count: countEven, now: time.Now, rows: 1000, until: -1, after: time.Minute, known: map[int64]map[int64]stepCount{}}
	first, err := c.of(t.Context(), []int64{5})
	if err != nil || !first.AtLeast || first.Delivered > 1000 {
		t.Fatalf("%+v, %v; want one statement's", first, err)
	}
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Millisecond) {
		if !c.behind.Load() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
	if all, err := c.of(t.Context(), []int64{5}); err != nil || all.AtLeast || all.Delivered != 288*each {
		t.Errorf("%+v, %v; want all %d", all, err, 288*each)
	}
}
