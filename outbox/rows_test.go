package outbox

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
)

// A table has one list of columns: a row is the same whichever way it is stored, listed,
// unnested or copied.
func TestRows_AreTheSameInsertedAndCopied(t *testing.T) {
	w := newWorld(t)
	conn, err := w.store.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	insert := func(t *testing.T, queue func(*pgx.Batch)) {
		t.Helper()
		b := &pgx.Batch{}
		queue(b)
		if err := conn.SendBatch(t.Context(), b).Close(); err != nil {
			t.Fatal(err)
		}
	}
	stored := func(t *testing.T, table, without string) string {
		t.Helper()
		return strings.Join(all[string](t, w, fmt.Sprintf("SELECT (to_jsonb(r) - '%s'::text[])::text FROM walhook.%s r ORDER BY 1", without, table)), "\n")
	}
	same := func(t *testing.T, inserted, copied string, rows int) {
		t.Helper()
		if strings.Count(inserted, "\n")+1 != rows || inserted != copied {
			t.Errorf("inserted:\n%s\ncopied:\n%s\nwant %d rows that are alike", inserted, copied, rows)
		}
	}
	// No two columns have the same value, so that none stands for another.
	t.Run("events", func(t *testing.T) {
		large := []byte(`{"x":"` + largeText(1, sharedFrom) + `"}`)
		to := &route.Endpoint{ID: 11, Revision: 12}
		events := func() []route.Event {
			at := time.Date(1969, 3, 4, 5, 6, 7, 891_000, time.UTC)
			return []route.Event{
				{ID: 1, To: to, Record: "dids:1\u0101", WebhookID: "evt_1", Schema: "dids", Type: "insert", CommittedAt: at, Format: "json", Body: []byte(`{"a":1}`)},
				{ID: 2, To: to, Record: "dids:2", WebhookID: "evt_2", Schema: "dids", Type: "update", CommittedAt: at, Format: "form", Body: large},
				{ID: 3, To: &route.Endpoint{ID: 13, Revision: math.MaxInt64}, Record: "", WebhookID: "evt_3", Schema: "users", Type: "delete", CommittedAt: at, Body: large},
			}
		}
		insert(t, func(b *pgx.Batch) { insertEvents.queue(b, 3, w.store.eventRow(events(), time.Now())) })
		inserted := stored(t, "event", "{appended_at}")
		w.exec(t, "DELETE FROM walhook.event")
		insert(t, func(b *pgx.Batch) {
			b.Queue(insertEvents.unnested, newRowArrays(3, w.store.eventRow(events(), time.Now()))...)
		})
		same(t, inserted, stored(t, "event", "{appended_at}"), 3)
		w.exec(t, "DELETE FROM walhook.event")
		if err := w.store.copyEvents(t.Context(), conn.Conn(), events(), time.Now()); err != nil {
			t.Fatal(err)
		}
		same(t, inserted, stored(t, "event", "{appended_at}"), 3)
		wantLines(t, all[string](t, w, `SELECT concat_ws(' ', id, endpoint, endpoint_revision, record, webhook_id, schema, type, extract(year FROM committed_at), format,
			octet_length(body), body_of, body_size) FROM walhook.event WHERE appended_at > now() - interval '1 minute' ORDER BY id`),
			"1 11 12 dids:1\u0101 evt_1 dids insert 1969 json 7",
			fmt.Sprintf("2 11 12 dids:2 evt_2 dids update 1969 form %d", len(large)),
			fmt.Sprintf("3 13 9223372036854775807  evt_3 users delete 1969  0 2 %d", len(large)))
	})
	t.Run("attempts", func(t *testing.T) {
		columns := settlementColumns{encoding: w.store.encoding, touched: map[recordRef]struct{}{}}
		at := time.Now().UTC().Truncate(time.Microsecond)
		for i, a := range []Attempt{
			{At: at, Number: 14, Revision: 15, Duration: 16 * time.Millisecond, Status: 217, Outcome: "delivered", Reason: "2xx", Detail: "a\u0101"},
			{At: at.Add(time.Second), Number: math.MaxInt, Revision: math.MaxInt64, Duration: 400 * time.Hour, Outcome: "retry", Reason: "unreachable"},
		} {
			columns.add(&Settlement{Event: Event{ID: int64(18 + i), Endpoint: 20}, Disposition: Delivered, Attempt: &a})
		}
		insert(t, func(b *pgx.Batch) { columns.queue(b, true) })
		inserted := stored(t, "attempt", "{}")
		w.exec(t, "DELETE FROM walhook.attempt")
		insert(t, func(b *pgx.Batch) { b.Queue(insertAttempts.unnested, newRowArrays(2, columns.attemptRow)...) })
		same(t, inserted, stored(t, "attempt", "{}"), 2)
		w.exec(t, "DELETE FROM walhook.attempt")
		if _, err := conn.Conn().PgConn().CopyFrom(t.Context(), newRowCopy(2, columns.attemptRow), copyAttemptsSQL); err != nil {
			t.Fatal(err)
		}
		same(t, inserted, stored(t, "attempt", "{}"), 2)
		wantLines(t, all[string](t, w, `SELECT concat_ws(' ', at = $1, endpoint, event_id, revision, number, extract(epoch FROM duration)::float8, status, outcome, reason, detail)
			FROM walhook.attempt ORDER BY event_id`, at),
			"t 20 18 15 14 0.016 217 delivered 2xx a\u0101",
			"f 20 19 9223372036854775807 2147483647 1440000 0 retry unreachable ")
	})
}

// Owners are listed or unnested, inserted or upserted, with the same result.
func TestRows_OwnersAreTheSameListedAndUnnested(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{1, valuesRows, valuesRows + 1} {
		for name, insert := range map[string]*rowInsert{"inserted": insertOwners, "upserted": upsertOwners} {
			rows := make(ownerRows, n)
			for i := range rows {
				rows[i] = ownerRow{"dids", fmt.Sprintf("%04d\u0101", i), route.OwnerWrite{Ownership: route.Ownership{Account: fmt.Sprint(i), Deleted: i%2 == 0, Unknown: i%3 == 0}}}
			}
			b := &pgx.Batch{}
			insert.queue(b, n, rows.write)
			if b.Len() != 1 {
				t.Fatalf("%d statements for %d rows", b.Len(), n)
			}
			if err := w.store.pool.SendBatch(t.Context(), b).Close(); err != nil {
				t.Fatal(name, n, err)
			}
			var want []string
			for i := range n {
				want = append(want, fmt.Sprintf("dids %04d\u0101 %d %t %t", i, i, i%2 == 0, i%3 == 0))
			}
			wantLines(t, all[string](t, w, `SELECT format('%s %s %s %s %s', schema, key, account,
				CASE WHEN deleted_at > now() - interval '1 minute' THEN 'true' ELSE 'false' END, CASE WHEN unknown THEN 'true' ELSE 'false' END) FROM walhook.owner ORDER BY key`), want...)
			w.exec(t, "DELETE FROM walhook.owner")
		}
	}
}

// There are two statements that make a dead letter; both give every column.
func TestDeadLetters_HaveEveryColumn(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint(t, "7")
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, body)
		VALUES (5, $1, 6, 'dids:7', 'evt_8', 'dids', 'insert', '1999-01-01Z', now(), 'form', 'abcdefghij')`, endpoint)
	const deadSQL = `SELECT concat_ws(' ', endpoint, event_id, record, webhook_id, schema, type, extract(year FROM committed_at), attempts, reason, size, format,
		coalesce(convert_from(body, 'UTF8'), 'NULL')) FROM walhook.dead_letter ORDER BY event_id, attempts`
	insert := func(add func(*pgx.Batch)) {
		t.Helper()
		b := &pgx.Batch{}
		add(b)
		if err := w.store.pool.SendBatch(t.Context(), b).Close(); err != nil {
			t.Fatal(err)
		}
	}
	of := func(reason string) func(*pgx.Batch) {
		var d deaths
		d.add(5, 9, reason)
		return d.queue
	}
	for range 2 { // what is a dead letter stays as it is
		insert(of("5xx"))
		insert(of("4xx"))
	}
	wantLines(t, all[string](t, w, deadSQL), fmt.Sprint(endpoint, " 5 dids:7 evt_8 dids insert 1999 9 5xx 10 form abcdefghij"))
	w.exec(t, "DELETE FROM walhook.dead_letter")
	insert(of(asideUnreadable)) // its body is not looked at
	wantLines(t, all[string](t, w, deadSQL), fmt.Sprint(endpoint, " 5 dids:7 evt_8 dids insert 1999 9 unreadable 0 form "))
	w.exec(t, "DELETE FROM walhook.dead_letter")
	large := &route.Event{ID: 10, To: &route.Endpoint{ID: endpoint}, Record: "faxes:11", WebhookID: "evt_12", Schema: "faxes", Type: "update",
		CommittedAt: time.Date(1998, 1, 1, 0, 0, 0, 0, time.UTC), Size: 1 << 33, Format: "json"}
	for range 2 {
		insert(func(b *pgx.Batch) { queueTooLarge(b, large, w.store.encoding) })
	}
	wantLines(t, all[string](t, w, deadSQL), fmt.Sprint(endpoint, " 10 faxes:11 evt_12 faxes update 1998 0 too_large 8589934592 json NULL"))
	w.exec(t, "DELETE FROM walhook.dead_letter")
	bury := fence{sql: "SELECT 1"}
	if err := w.store.bury(context.WithoutCancel(t.Context()), bury, loopTail, 5, 0, &badItem{asideUnreadable, "damaged"}); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, w, deadSQL), fmt.Sprint(endpoint, " 5 dids:7 evt_8 dids insert 1999 0 unreadable 0 form "))
}
