package endtoend

import (
	"crypto/sha256"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/carrier/carriertest"
	"walhook/internal/pgtest"
)

func accountName(index int) string { return strconv.FormatInt(carrier.AccountID(index), 10) }

// world is a seeded carrier with an outbox, set up and not yet published.
type world struct {
	db   *pgtest.DB
	conn *pgx.Conn
	slot string
}

const worldAccounts = 12

func newWorld(t *testing.T, db *pgtest.DB, urlFor func(int) string) *world {
	t.Helper()
	w := &world{db: db, conn: db.Connect(t), slot: "walhook_" + db.Name}
	if err := carrier.Create(t.Context(), w.conn); err != nil {
		t.Fatal(err)
	}
	if err := carrier.Seed(t.Context(), w.conn, worldAccounts, 1, urlFor); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "setup", "--source", db.URL, "--slot", w.slot)
	return w
}

// publish runs a publisher until the returned function is called.
func (w *world) publish(t *testing.T) (stop func()) {
	t.Helper()
	process := startChild(t, "run", "--role", "publisher", "--source", w.db.URL, "--slot", w.slot, "--listen", "off")
	return func() { process.stop(t) }
}

func TestPublisher_StoresWhatTheLedgerExpects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t), func(int) string { return "http://127.0.0.1:9/hook" })
	stop := w.publish(t)
	activity, err := carrier.NewActivity(t.Context(), w.db.URL, carrier.Options{Accounts: worldAccounts, Seed: 7,
		URLFor: func(int) string { return "http://127.0.0.1:9/hook" }, ClearURLs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer activity.Close()
	carriertest.RunUntil(t, activity, 0, carriertest.Committed(1000))
	w.settled(t)
	stop()
	compareLog(t, w.conn)
}

// settled waits until a marker that is committed now has been stored.
func (w *world) settled(t *testing.T) {
	t.Helper()
	var lsn string
	if err := w.conn.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	w.db.Exec(t, "SELECT pg_logical_emit_message(true, 'marker', '')")
	const sql = "SELECT EXISTS (SELECT FROM walhook.position WHERE flush_lsn > $1::text::pg_lsn)"
	eventually(t, 30*time.Second, func() bool {
		var there bool
		if err := w.conn.QueryRow(t.Context(), sql, lsn).Scan(&there); err != nil {
			t.Fatal(err)
		}
		return there
	})
}

// compareLog compares the events of the log with the ledger that the source's
// own triggers kept: per account and record the same bodies in the same order.
func compareLog(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	expected, err := carrier.Read(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	type record struct{ account, record string }
	want := map[record][]carrier.Expected{}
	for _, e := range expected {
		name := e.Schema + ":" + e.Record
		if e.Record == "" {
			name = "result/" + e.Schema
		}
		want[record{e.Account, name}] = append(want[record{e.Account, name}], e)
	}
	rows, err := conn.Query(t.Context(), `
		SELECT p.account, e.record, e.webhook_id, e.body FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
	if err != nil {
		t.Fatal(err)
	}
	var r record
	var id string
	var body []byte
	events, ids := 0, map[string]bool{}
	var wrong []int64
	_, err = pgx.ForEachRow(rows, []any{&r.account, &r.record, &id, &body}, func() error {
		events++
		if ids[id] {
			t.Errorf("webhook-id %s twice", id)
		}
		ids[id] = true
		if len(want[r]) == 0 {
			t.Errorf("unexpected event %s for account %s: %s", id, r.account, body)
			return nil
		}
		if next := want[r][0]; next.Body != sha256.Sum256(body) {
			wrong = append(wrong, next.Seq)
			t.Errorf("event %s for account %s: got %s", id, r.account, body)
		}
		want[r] = want[r][1:]
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range wrong[:min(len(wrong), 5)] {
		body, err := carrier.Body(t.Context(), conn, seq)
		t.Errorf("expected %d: %s (%v)", seq, body, err)
	}
	for r, missing := range want {
		if len(missing) > 0 {
			t.Errorf("account %s, record %s: %d events are missing", r.account, r.record, len(missing))
		}
	}
	t.Logf("%d events", events)
	if events < 100 {
		t.Errorf("only %d events: the activity did not run", events)
	}
}
