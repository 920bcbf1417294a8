package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"walhook/internal/pgtest"
)

// Migrate makes a database an outbox.
type Migrate func(ctx context.Context, url string) error

// World is an outbox that one test has to itself.
type World struct {
	DB   *pgtest.DB
	Conn *pgx.Conn // the test's own
	Reg  *prometheus.Registry
	Logs *observer.ObservedLogs
}

// New is an empty outbox. Its database has served other tests before: to create and
// drop one takes longer than most tests.
func New(t *testing.T, migrate Migrate) *World {
	t.Helper()
	t.Parallel()
	return NewOf(t, migrate, func() bool { return true })
}

// NewOf is New for a test that has called Parallel, or must not, and that may leave its
// database so that no other one can use it: reusable is asked at its end.
func NewOf(t *testing.T, migrate Migrate, reusable func() bool) *World {
	t.Helper()
	w := &World{DB: databases.take(t, migrate)}
	t.Cleanup(func() {
		if !t.Failed() && reusable() {
			databases.giveBack(t, w.DB)
		}
	})
	w.Conn = w.DB.Connect(t)
	return w
}

// NewAlone is an outbox in a database that no other test has seen or will see: for
// those that change its tables.
func NewAlone(t *testing.T, migrate Migrate) *World {
	t.Helper()
	t.Parallel()
	w := &World{DB: pgtest.Database(t)}
	if err := migrate(t.Context(), w.DB.URL); err != nil {
		t.Fatal(err)
	}
	w.Conn = w.DB.Connect(t)
	return w
}

// Log is the log of a store that is about to be opened, which Logs and Reg are of
// from then on.
func (w *World) Log() *zap.Logger {
	var core zapcore.Core
	core, w.Logs = observer.New(zap.DebugLevel)
	w.Reg = prometheus.NewRegistry()
	return zap.New(core)
}

// databases are the empty outboxes that no test has at the moment.
var databases databasePool

type databasePool struct {
	mu   sync.Mutex
	free []*pgtest.DB
	made int
}

func (p *databasePool) take(t *testing.T, migrate Migrate) *pgtest.DB {
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
	if err := migrate(t.Context(), db.URL); err != nil {
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
	INSERT INTO walhook.timeline (system_id, number) SELECT c.system_identifier::text, walhook.timeline_now() FROM pg_control_system() c;
	UPDATE walhook.webhooks_version SET version = 0, stamped = 0, forgotten = 0;
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

// Exec runs a statement.
func (w *World) Exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.Conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// One reads one value.
func One[T any](t *testing.T, w *World, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := w.Conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// All reads one column.
func All[T any](t *testing.T, w *World, sql string, args ...any) []T {
	t.Helper()
	rows, _ := w.Conn.Query(t.Context(), sql, args...) // rows have its error
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}

// Count counts the rows of a table.
func (w *World) Count(t *testing.T, table string) int {
	t.Helper()
	return One[int](t, w, "SELECT count(*) FROM walhook."+table)
}

// EndpointOf is the id of an account's endpoint, its own first.
func (w *World) EndpointOf(t *testing.T, account string) int64 {
	t.Helper()
	return One[int64](t, w, "SELECT id FROM walhook.endpoint WHERE account = $1 ORDER BY webhook <> 'account', id", account)
}

// WantLines compares what there is with what is wanted, a line each.
func WantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Rest is lines without the first n.
func Rest(lines []string, n int) []string { return lines[min(n, len(lines)):] }

// Eventually polls: what it waits for happens in other sessions of the server.
func Eventually(t *testing.T, what string, done func() bool) {
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

// Blocked waits until a session of the database waits for a lock in a
// statement that holds text.
func (w *World) Blocked(t *testing.T, text string) {
	t.Helper()
	Eventually(t, "a session waits in "+text, func() bool {
		return One[bool](t, w, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
			AND wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid())`, text)
	})
}

// YesterdaySQL makes the partitions of yesterday, as an outbox has them that was there
// then: what a test says was minutes ago may have been yesterday.
const YesterdaySQL = `
	DO $$
	DECLARE today date := (now() AT TIME ZONE 'UTC')::date; name text;
	BEGIN
		FOREACH name IN ARRAY ARRAY['position', 'attempt', 'dead_letter', 'unrouted'] LOOP
			EXECUTE format('CREATE TABLE IF NOT EXISTS walhook.%I PARTITION OF walhook.%I FOR VALUES FROM (%L) TO (%L)',
				name || '_' || to_char(today - 1, 'YYYYMMDD'), name, today - 1 || ' 00:00+00', today || ' 00:00+00');
		END LOOP;
	END $$`

// BusyAndQuiet fills an outbox that no other test uses with a number of events: three are
// of the endpoint 1; the endpoint 3 has half of the earlier ones and no later ones; all
// others are of the endpoint 2. Their lanes stand at the beginning.
func (w *World) BusyAndQuiet(t *testing.T, events int) {
	t.Helper()
	w.Exec(t, "ALTER TABLE walhook.event_000000 SET (autovacuum_enabled = false)") // VACUUM makes other plans cheaper
	w.Exec(t, `
		INSERT INTO walhook.endpoint (account, url, state, secret)
		SELECT 'account ' || n, 'https://example.com/', 'active', 'whsec_eA==' FROM generate_series(1, 3) n`)
	w.Exec(t, `
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, CASE WHEN n IN (5, 6, $1) THEN 1 WHEN n % 2 = 0 AND n < $1 / 2 THEN 3 ELSE 2 END, 1, 'dids:' || n % 5000, 'evt_' || n, 'dids', 'insert', now(), now(), 'x'
		FROM generate_series(1, $1::bigint) n`, events)
	w.Exec(t, `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) SELECT n, 1, true, 0, false, 0, '' FROM generate_series(1, 3) n`)
	w.Exec(t, `UPDATE walhook.shard SET tail = $1`, events)
	w.Exec(t, "ANALYZE")
}

// Endpoint makes an active endpoint and says its id.
func (w *World) Endpoint(t *testing.T, account string) int64 {
	t.Helper()
	return One[int64](t, w, `INSERT INTO walhook.endpoint (account, url, state, secret)
		VALUES ($1, 'https://example.com/' || $1, 'active', 'whsec_eA==') RETURNING id`, account)
}

// EndpointID makes an active endpoint with an id of the test's choice.
func (w *World) EndpointID(t *testing.T, id int64) int64 {
	t.Helper()
	w.Exec(t, `INSERT INTO walhook.endpoint (id, account, url, state, secret)
		VALUES ($1::bigint, 'account ' || $1::bigint::text, 'https://example.com/', 'active', 'whsec_eA==')`, id)
	return id
}

// Bodies puts events with ids from first to last into the log.
func (w *World) Bodies(t *testing.T, first, last, endpoint int64, record string, size int) {
	t.Helper()
	w.Exec(t, `
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, $3, 1, $4, 'evt_' || n, 'dids', 'insert', now(), now(), convert_to(repeat('x', $5), 'UTF8')
		FROM generate_series($1::bigint, $2::bigint) n`, first, last, endpoint, record, size)
}

// Begin opens a transaction on a connection of its own; it is rolled back when
// the test ends, unless it has ended before.
func (w *World) Begin(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := w.DB.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// ExecTx runs a statement in a transaction.
func ExecTx(t *testing.T, tx pgx.Tx, sql string, args ...any) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Commit ends a transaction.
func Commit(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}
