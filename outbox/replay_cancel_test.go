package outbox

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A replay that is cancelled sends nothing more, and the publisher forgets it.
func TestReplay_EndsWhereItIsCancelled(t *testing.T) {
	f, endpoint := told(t)
	r := f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0), Rate: 2})
	if _, err := f.publisher.replayStep(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if len(f.publisher.replayOrders) != 1 {
		t.Fatalf("orders %v", f.publisher.replayOrders)
	}
	letters := f.count(t, "dead_letter")
	f.exec(t, "UPDATE walhook.request SET done_at = now(), reason = 'cancelled', next_at = now()")
	f.work(t)
	if len(f.publisher.replayOrders) != 0 {
		t.Errorf("the publisher keeps %v", f.publisher.replayOrders)
	}
	if _, err := f.publisher.replayStep(t.Context(), r.ID); err != nil { // it was chosen before
		t.Fatal(err)
	}
	if got := len(f.copies(t)); got != 2 || f.request(t, r.ID).Sent != 2 {
		t.Errorf("%d copies, request %+v; want what was sent before", got, f.request(t, r.ID))
	}
	if n := f.count(t, "dead_letter"); n != letters {
		t.Errorf("%d dead letters, want %d: what was not sent stays as it was", n, letters)
	}
	// Another one sends what is left.
	f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0)})
	f.work(t)
	if got := len(f.copies(t)); got != 4 {
		t.Errorf("%d copies after another replay", got)
	}
}

// A replay since a time does not look at what was appended long before it, and sends what was
// committed in time, also where the clocks of source and outbox differ.
func TestReplay_BeginsWhereItsTimeBegins(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	endpoint := one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7'")
	since := time.Now().Add(-24 * time.Hour)
	const fill = `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, $1, 1, 'dids:' || n, format('evt_%s_1', lpad(to_hex(n), 16, '0')), 'dids', 'update', $4, $5, '{}' FROM generate_series($2::bigint, $3::bigint) n`
	old := since.Add(-72 * time.Hour)
	f.exec(t, fill, endpoint, 101, 700, old, old)
	f.exec(t, fill, endpoint, 701, 702, since.Add(time.Minute), since.Add(-50*time.Minute)) // the outbox's clock is behind
	f.exec(t, fill, endpoint, 703, 704, since.Add(-time.Minute), since.Add(time.Minute))    // before the time
	f.exec(t, fill, endpoint, 705, 710, since.Add(time.Hour), since.Add(time.Hour))
	f.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now(), endpoint, id, 1, 1, '1 ms', 200, 'delivered', '2xx', '' FROM walhook.event`)
	f.exec(t, "UPDATE walhook.position SET next_event_id = 5000")
	f.takeOver(t)
	r := f.ask(t, request{Endpoint: endpoint, Since: since})
	order, err := f.publisher.replayOrderOf(t.Context(), r.ID)
	if err != nil || order.walk != 700 || len(order.left) != 0 {
		t.Errorf("walks from %d behind %v, %v; want 700", order.walk, order.left, err)
	}
	f.work(t)
	var want []string
	for _, n := range []int{701, 702, 705, 706, 707, 708, 709, 710} {
		want = append(want, fmt.Sprintf("evt_%016x_1", n))
	}
	if got := all[string](t, f.world, "SELECT webhook_id FROM walhook.event WHERE id >= 5000 ORDER BY id"); !slices.Equal(got, want) {
		t.Errorf("sent again: %v, want %v", got, want)
	}
	// One whose time is before the log begins walks from its beginning.
	r = f.ask(t, request{Endpoint: endpoint, Since: old.Add(-time.Hour)})
	if order, err := f.publisher.replayOrderOf(t.Context(), r.ID); err != nil || order.walk > 100 {
		t.Errorf("walks from %d, %v", order.walk, err)
	}
}
