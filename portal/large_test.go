package portal

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var largeEvents = flag.Int("events", 0, "how many events the large webhook of TestPages_AnswerForManyEventsAsForFew has; 0 skips it")

// fillSQL gives a webhook $1 the events from $2 to $3, each with an attempt, and dead
// letters of some.
const fillSQL = `
	WITH e AS (
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, $1, 1, 'dids:' || n % 1000, 'evt_' || lpad(to_hex(n), 16, '0') || '_1', 'dids', 'update', now() - ($3 - n) * interval '10 ms', now() - ($3 - n) * interval '10 ms',
			convert_to('{"type":"update","schema":"dids","data":"{\"id\":' || n % 1000 || ',\"number\":\"' || n || '\",\"notes\":\"' || repeat('x', 100) || '\"}"}', 'UTF8')
		FROM generate_series($2::bigint, $3::bigint) n RETURNING id),
	a AS (
		INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT date_trunc('day', now(), 'UTC') + (now() - date_trunc('day', now(), 'UTC')) * (id::float8 / greatest($4::bigint, id)), $1, id, 1, 1, '1 ms', CASE WHEN id % 10 = 0 THEN 500 ELSE 200 END,
			CASE WHEN id % 10 = 0 THEN 'dead' ELSE 'delivered' END, CASE WHEN id % 10 = 0 THEN '5xx' ELSE '2xx' END, '' FROM e)
	INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
	SELECT $1, id, 'dids:' || id % 1000, 'evt_' || lpad(to_hex(id), 16, '0') || '_1', 'dids', 'update', now(), 1, '5xx', 2, '{}' FROM e WHERE id % 100 = 0`

// Each page of a webhook with millions of events is as quick as of one with fifty, and the
// other way round. It prints the times; package api tests that every statement stays on its index.
func TestPages_AnswerForManyEventsAsForFew(t *testing.T) {
	if *largeEvents == 0 {
		t.Skip("SKIP: it takes minutes; -events 5000000 runs it")
	}
	w := newWorld(t)
	small, large := w.hook(t, "7"), w.hook(t, "8")
	most := int64(*largeEvents)
	w.exec(t, fillSQL, small.Endpoint, most+1, most+50, most)
	for first := int64(1); first <= most; first += 250_000 {
		w.exec(t, fillSQL, large.Endpoint, first, min(first+249_999, most), most)
	}
	w.exec(t, "ANALYZE")
	event := func(n int64) string { return fmt.Sprintf("evt_%016x_1", n) }
	pages := []string{"a/{account}", "a/{account}/webhooks/{webhook}", "a/{account}/webhooks/{webhook}/events", "a/{account}/webhooks/{webhook}/events?state=delivered",
		"a/{account}/webhooks/{webhook}/events?state=dead", "a/{account}/webhooks/{webhook}/events?state=retry", "a/{account}/webhooks/{webhook}/events?record=dids:1",
		"a/{account}/webhooks/{webhook}/events?since=2020-01-01T00:00", "a/{account}/webhooks/{webhook}/events/{event}", "a/{account}/dead"}
	few, many := w.session(t, "7"), w.session(t, "8")
	measure := func(b *browser, path string) time.Duration {
		var took []time.Duration
		for range 9 {
			began := time.Now()
			b.get(t, path).want(t, http.StatusOK)
			took = append(took, time.Since(began))
			time.Sleep(20 * time.Millisecond)
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	for _, page := range pages {
		of := func(account, webhook string, n int64) string {
			return strings.NewReplacer("{account}", account, "{webhook}", webhook, "{event}", event(n)).Replace(page)
		}
		a, b := measure(few, of("7", small.ID, most+25)), measure(many, of("8", large.ID, most/2))
		t.Logf("%-60s 50 events %7.1f ms, %d events %7.1f ms", page, float64(a.Microseconds())/1000, most, float64(b.Microseconds())/1000)
		if b > 10*a+200*time.Millisecond || a > 10*b+200*time.Millisecond { // another order, not a busy machine
			t.Errorf("%s takes %s for %d events and %s for 50", page, b, most, a)
		}
	}
}
