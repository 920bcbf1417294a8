package outbox

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"walhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// world is an outbox that one test has to itself.
type world struct {
	db    *pgtest.DB
	conn  *pgx.Conn // the test's own
	store *Store
	reg   *prometheus.Registry
	logs  *observer.ObservedLogs
}

// newWorld is an empty outbox. Its database has served other tests before: to
// create and drop one takes longer than most tests.
func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	t.Parallel()
	w := &world{db: databases.take(t)}
	t.Cleanup(func() {
		if !t.Failed() {
			databases.giveBack(t, w.db)
		}
	})
	w.conn = w.db.Connect(t)
	w.open(t, change...)
	return w
}

// newWorldAlone is an outbox in a database that no other test has seen or will
// see: for those that change its tables.
func newWorldAlone(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	t.Parallel()
	w := &world{db: pgtest.Database(t)}
	if err := Migrate(t.Context(), w.db.URL); err != nil {
		t.Fatal(err)
	}
	w.conn = w.db.Connect(t)
	w.open(t, change...)
	return w
}

// databases are the empty outboxes that no test has at the moment.
var databases databasePool

type databasePool struct {
	mu   sync.Mutex
	free []*pgtest.DB
	made int
}

func (p *databasePool) take(t *testing.T) *pgtest.DB {
	t.Helper()
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		db := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return db
	}
	p.made++
	db := &pgtest.DB{Name: fmt.Sprintf("outbox_%d", p.made)}
	p.mu.Unlock()
	db.Cluster = pgtest.Cluster(t)
	var err error
	if db.URL, err = db.Cluster.CreateDatabase(t.Context(), db.Name); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	return db
}

// emptySQL makes the outbox as it was after its migration.
const emptySQL = `
	DO $$
	DECLARE t regclass;
	BEGIN
		FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'walhook'::regnamespace
			AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN ('schema_version', 'shard', 'epoch', 'webhooks_version')
		LOOP EXECUTE 'DELETE FROM ' || t; END LOOP;
	END $$;
	UPDATE walhook.shard SET sender = NULL, tail = 0;
	UPDATE walhook.epoch SET epoch = 0, publisher = '';
	UPDATE walhook.webhooks_version SET version = 0;
	ALTER SEQUENCE walhook.endpoint_id_seq RESTART;
	ALTER SEQUENCE walhook.position_id_seq RESTART`

func (p *databasePool) giveBack(t *testing.T, db *pgtest.DB) {
	conn, err := pgx.Connect(context.Background(), db.URL)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(context.Background(), emptySQL).ReadAll(); err != nil {
		t.Errorf("empty the outbox after the test: %v", err)
		return
	}
	p.mu.Lock()
	p.free = append(p.free, db)
	p.mu.Unlock()
}

// open gives the world a store, in place of the one that it has.
func (w *world) open(t *testing.T, change ...func(*Config)) {
	t.Helper()
	cfg := Config{URL: w.db.URL}
	for _, f := range change {
		f(&cfg)
	}
	var core zapcore.Core
	core, w.logs = observer.New(zap.DebugLevel)
	w.reg = prometheus.NewRegistry()
	store, err := Open(t.Context(), cfg, zap.New(core), w.reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.store = store
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// one reads one value.
func one[T any](t *testing.T, w *world, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := w.conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// all reads one column.
func all[T any](t *testing.T, w *world, sql string, args ...any) []T {
	t.Helper()
	values, err := collect[T](w.conn.Query(t.Context(), sql, args...))
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}

func (w *world) count(t *testing.T, table string) int {
	t.Helper()
	return one[int](t, w, "SELECT count(*) FROM walhook."+table)
}

// wantLines compares what there is with what is wanted, a line each.
func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// rest is lines without the first n.
func rest(lines []string, n int) []string { return lines[min(n, len(lines)):] }

// skipped reads walhook_changes_skipped_total, without the zeros.
func (w *world) skipped(t *testing.T) map[string]int {
	t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, family := range families {
		if family.GetName() == "walhook_changes_skipped_total" {
			for _, m := range family.GetMetric() {
				if n := int(m.GetCounter().GetValue()); n > 0 {
					got[label(m, "reason")] = n
				}
			}
		}
	}
	return got
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func (w *world) wantSkipped(t *testing.T, want map[string]int) {
	t.Helper()
	if got := w.skipped(t); !maps.Equal(got, want) {
		t.Errorf("skipped %v, want %v", got, want)
	}
}

// eventually polls: what it waits for happens in other sessions of the server.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

// blocked waits until a session of the database waits for a lock in a
// statement that holds text.
func (w *world) blocked(t *testing.T, text string) {
	t.Helper()
	eventually(t, "a session waits in "+text, func() bool {
		return one[bool](t, w, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
			AND wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid())`, text)
	})
}

// endpoint makes an active endpoint and says its id.
func (w *world) endpoint(t *testing.T, account string) int64 {
	t.Helper()
	return one[int64](t, w, `INSERT INTO walhook.endpoint (account, url, state, secret)
		VALUES ($1, 'https://example.com/' || $1, 'active', 'whsec_eA==') RETURNING id`, account)
}

// endpointID makes an active endpoint with an id of the test's choice.
func (w *world) endpointID(t *testing.T, id int64) int64 {
	t.Helper()
	w.exec(t, `INSERT INTO walhook.endpoint (id, account, url, state, secret)
		VALUES ($1::bigint, 'account ' || $1::bigint::text, 'https://example.com/', 'active', 'whsec_eA==')`, id)
	return id
}

// event puts an event into the log.
func (w *world) event(t *testing.T, id, endpoint int64, record string) Event {
	t.Helper()
	w.bodies(t, id, id, endpoint, record, 8)
	return Event{ID: id, Endpoint: endpoint, Revision: 1, Record: record}
}

// bodies puts events with ids from first to last into the log.
func (w *world) bodies(t *testing.T, first, last, endpoint int64, record string, size int) {
	t.Helper()
	w.exec(t, `
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, $3, 1, $4, 'evt_' || n, 'dids', 'insert', now(), now(), convert_to(repeat('x', $5), 'UTF8')
		FROM generate_series($1::bigint, $2::bigint) n`, first, last, endpoint, record, size)
}

// join is a session that holds every shard that is free for it.
func (w *world) join(t *testing.T) (*Session, Handover) {
	t.Helper()
	s, err := w.store.Join(t.Context(), "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	gained, _, err := s.Rebalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, gained
}

// expire ends a lease by the clock of the database.
func (w *world) expire(t *testing.T, s *Session) {
	t.Helper()
	w.exec(t, "UPDATE walhook.sender SET lease_until = clock_timestamp() - interval '1 ms' WHERE id = $1", s.id)
}

func (w *world) settle(t *testing.T, s *Session, batch ...Settlement) []RecordState {
	t.Helper()
	states, err := s.Settle(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	return states
}

// begin opens a transaction on a connection of its own; it is rolled back when
// the test ends, unless it has ended before.
func (w *world) begin(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := w.db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

func execTx(t *testing.T, tx pgx.Tx, sql string, args ...any) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func commit(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The fates of an event, as a sender puts them.

func delivered(e Event) Settlement {
	return Settlement{Event: e, Disposition: Delivered, Attempt: attempt(e, "delivered", "2xx")}
}

func retried(e Event, in time.Duration) Settlement {
	return Settlement{Event: e, Disposition: Retry, Attempt: attempt(e, "retry", "5xx"), RetryAt: time.Now().Add(in)}
}

func dead(e Event) Settlement {
	return Settlement{Event: e, Disposition: Dead, Attempt: attempt(e, "dead", "5xx")}
}

func parked(e Event) Settlement { return Settlement{Event: e, Disposition: Parked} }

func fromRetry(s Settlement) Settlement {
	s.FromRetry = true
	return s
}

func attempt(e Event, outcome, reason string) *Attempt {
	return &Attempt{At: time.Now(), Number: e.Attempts + 1, Revision: e.Revision, Duration: 5 * time.Millisecond,
		Status: 500, Outcome: outcome, Reason: reason, Detail: "detail"}
}

func ids(events []Event) []int64 {
	var list []int64
	for _, e := range events {
		list = append(list, e.ID)
	}
	return list
}

func wantIDs(t *testing.T, got []Event, want ...int64) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Errorf("events %v, want %v", ids(got), want)
	}
}

func (r RecordState) String() string {
	return fmt.Sprintf("%d %s blocked=%t", r.Endpoint, r.Record, r.Blocked)
}

// counter reads a metric without labels.
func counter(t *testing.T, w *world, name string) float64 {
	t.Helper()
	metric := map[string]prometheus.Metric{
		"walhook_dead_letters_total":    w.store.metrics.deadLetters,
		"walhook_outbox_backlog":        w.store.metrics.backlog,
		"walhook_outbox_oldest_seconds": w.store.metrics.oldest,
	}[name]
	var m dto.Metric
	if err := metric.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}
