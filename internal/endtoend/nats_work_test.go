package endtoend

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// natsWork is a carrier at work, and what walhook has delivered of it.
type natsWork struct {
	conn          *pgx.Conn
	stop, stopped chan struct{}
	fault         error // of the carrier; once stopped is closed
}

func beginWork(t *testing.T, w *operatorWorld) *natsWork {
	t.Helper()
	const records = 40
	writer := w.db.Connect(t)
	work := &natsWork{conn: w.db.Connect(t), stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(work.stopped)
		for n := 0; ; n++ {
			select {
			case <-work.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if _, work.fault = writer.Exec(t.Context(), `INSERT INTO dids (id, user_id, number) VALUES ($1, $2, $3)
				ON CONFLICT (id) DO UPDATE SET number = excluded.number, user_id = excluded.user_id`, n%records, 7+rand.IntN(3), fmt.Sprint(n)); work.fault != nil {
				return
			}
		}
	}()
	return work
}

// end stops the carrier, and waits until all that it wrote is delivered.
func (w *natsWork) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	if <-w.stopped; w.fault != nil {
		t.Fatal(w.fault)
	}
	var rest []string
	var err error
	defer func() {
		if len(rest) > 0 || err != nil {
			t.Logf("%d events are not delivered, %v", len(rest), err)
		}
		for _, id := range rest[:min(len(rest), 10)] {
			tellAttempts(t, w.conn, id)
		}
	}()
	eventually(t, 5*time.Minute, func() bool {
		var rows pgx.Rows
		// A difference of sets: of tables that are not analyzed a join may take minutes.
		if rows, err = w.conn.Query(t.Context(), `SELECT webhook_id FROM walhook.event WHERE id IN (
			SELECT id FROM walhook.event EXCEPT SELECT event_id FROM walhook.attempt WHERE outcome = 'delivered') ORDER BY id`); err == nil {
			rest, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		return err == nil && len(rest) == 0
	})
}

func (w *natsWork) count(t *testing.T, column, value string) (n int) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.attempt WHERE "+column+" = $1", value).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// reasons counts the attempts by reason.
func (w *natsWork) reasons(t *testing.T) map[string]int {
	t.Helper()
	rows, err := w.conn.Query(t.Context(), "SELECT reason, count(*) FROM walhook.attempt GROUP BY reason")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	var reason string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&reason, &n}, func() error {
		all[reason] = n
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// now is the outbox's time.
func (w *natsWork) now(t *testing.T) (at time.Time) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

// acknowledged counts the attempts since then that a stream answered with a new message.
func (w *natsWork) acknowledged(t *testing.T, since time.Time) (n int) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.attempt WHERE reason = 'nats_ack' AND at > $1", since).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// flows waits until a hundred more events are delivered.
func (w *natsWork) flows(t *testing.T) {
	t.Helper()
	before := w.count(t, "outcome", "delivered")
	eventually(t, 3*time.Minute, func() bool { return w.count(t, "outcome", "delivered") >= before+100 })
}

// refuses waits until another attempt has a reason.
func (w *natsWork) refuses(t *testing.T, reason string) {
	t.Helper()
	before := w.count(t, "reason", reason)
	eventually(t, patience, func() bool { return w.count(t, "reason", reason) > before })
}

// compareStream compares what streams held with the event log.
func compareStream(t *testing.T, conn *pgx.Conn, got []natsEvent) {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT webhook_id, record, account, schema, type, body FROM walhook.event ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	type logged struct {
		place   int
		record  string
		subject string
		account string
		body    string
	}
	want := map[string]logged{}
	var id, record, account, schema, typ string
	var body []byte
	if _, err := pgx.ForEachRow(rows, []any{&id, &record, &account, &schema, &typ, &body}, func() error {
		want[id] = logged{len(want), record, "walhook." + account + "." + schema + "." + typ, account, string(body)}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	last, seen := map[string]int{}, map[string]int{}
	for _, e := range got {
		of, known := want[e.id]
		if !known || e.subject != of.subject || e.account != of.account || e.body != of.body {
			t.Errorf("the stream holds %+v, want %+v", e, of)
			continue
		}
		if seen[e.id]++; seen[e.id] > 1 {
			continue
		}
		if before, some := last[of.record]; some && of.place < before {
			t.Errorf("%s arrived after a later event of %s", e.id, of.record)
		}
		last[of.record] = of.place
	}
	lost, twice := 0, 0
	for id := range want {
		switch {
		case seen[id] == 0:
			if lost++; lost <= 10 {
				tellAttempts(t, conn, id)
			}
		case seen[id] > 1:
			twice++
		}
	}
	t.Logf("%d events, %d lost, %d twice", len(want), lost, twice)
	if lost > 0 || twice > 0 || len(want) < 500 {
		t.Errorf("of %d events %d are lost and %d came twice", len(want), lost, twice)
	}
}

// tellAttempts says when walhook attempted an event, and what was answered.
func tellAttempts(t *testing.T, conn *pgx.Conn, id string) {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT format('%s number %s, %s %s %s after %s', to_char(a.at AT TIME ZONE 'UTC', 'HH24:MI:SS.MS'), a.number, a.outcome, a.reason, a.detail, a.duration)
		FROM walhook.attempt a JOIN walhook.event e ON e.id = a.event_id AND e.endpoint = a.endpoint WHERE e.webhook_id = $1 ORDER BY a.at`, id)
	if err != nil {
		t.Fatal(err)
	}
	attempts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	t.Logf("%s, its attempts: %s, %v", id, strings.Join(attempts, "; "), err)
}
