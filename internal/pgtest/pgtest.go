package pgtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgcluster"
	"walhook/internal/pgsession"
)

// shared is the server of this test binary, and its databases' numbers.
var shared struct {
	mu      sync.Mutex
	cluster *pgcluster.Cluster // nil until the first test asks
	err     error              // why there is none
	next    atomic.Int64
}

// templates are what the clusters of this test binary are copies of, by the major
// version that was asked for.
var templates struct {
	mu   sync.Mutex
	made map[int]*pgcluster.Template // by need
}

// majorEnv selects the major version of PostgreSQL for tests that do not select one. The
// nightly run uses every supported version.
const majorEnv = "TEST_PG_MAJOR"

// Main runs the tests and stops the server they shared.
func Main(m *testing.M) int {
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster != nil {
		if err := shared.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the tests' PostgreSQL:", err)
			code = max(code, 1)
		}
		shared.cluster = nil
	}
	templates.mu.Lock()
	defer templates.mu.Unlock()
	for _, template := range templates.made {
		if err := template.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, "remove the template of the tests' PostgreSQL:", err)
			code = max(code, 1)
		}
	}
	templates.made = nil
	return code
}

// Cluster returns the server that the tests of this binary share. A test must not stop or
// kill it.
func Cluster(tb testing.TB) *pgcluster.Cluster {
	tb.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = start(context.Background(), pgcluster.Options{NoSync: true})
	}
	if shared.err != nil {
		tb.Fatalf("start PostgreSQL for the tests: %v", shared.err)
	}
	return shared.cluster
}

// NewCluster starts a server for one test, and stops it when the test ends.
func NewCluster(tb testing.TB, o pgcluster.Options) *pgcluster.Cluster {
	tb.Helper()
	cluster, err := start(tb.Context(), o)
	if err != nil {
		tb.Fatalf("start PostgreSQL for the test: %v", err)
	}
	tb.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			tb.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return cluster
}

// start starts a cluster from the template of its version.
func start(ctx context.Context, o pgcluster.Options) (*pgcluster.Cluster, error) {
	o = options(o)
	var err error
	if o.Template, err = templateOf(ctx, o); err != nil {
		return nil, err
	}
	return pgcluster.Start(ctx, o)
}

func templateOf(ctx context.Context, o pgcluster.Options) (*pgcluster.Template, error) {
	templates.mu.Lock()
	defer templates.mu.Unlock()
	if made := templates.made[o.Major]; made != nil {
		return made, nil
	}
	made, err := pgcluster.NewTemplate(context.WithoutCancel(ctx), o)
	if err != nil {
		return nil, err
	}
	if templates.made == nil {
		templates.made = map[int]*pgcluster.Template{}
	}
	templates.made[o.Major] = made
	return made, nil
}

// options adds settings for many concurrent tests; the test's own settings override them.
func options(o pgcluster.Options) pgcluster.Options {
	settings := map[string]string{
		"max_replication_slots": "100",
		"max_wal_senders":       "100",
		"max_connections":       "300",
	}
	maps.Copy(settings, o.Settings)
	o.Settings = settings
	if major, err := strconv.Atoi(os.Getenv(majorEnv)); err == nil && o.Major == 0 {
		o.Major = major
	}
	if o.TempDir == "" && o.NoSync && os.Getenv("TMPDIR") == "" {
		o.TempDir = memoryDir()
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 3 * time.Minute // a busy machine starts many at a time
	}
	if o.Progress == nil {
		o.Progress = func(message string) { fmt.Fprintln(os.Stderr, message) }
	}
	return o
}

// DB is a database that one test has to itself.
type DB struct {
	Cluster *pgcluster.Cluster
	Name    string
	URL     string
}

// Database creates an empty database on the shared server. When the test ends, it is
// dropped with its slots, and open sessions are ended.
func Database(tb testing.TB) *DB {
	tb.Helper()
	return NewDatabase(tb, Cluster(tb))
}

// NewDatabase makes an empty database on a cluster.
func NewDatabase(tb testing.TB, cluster *pgcluster.Cluster) *DB {
	tb.Helper()
	name := fmt.Sprintf("test_%d", shared.next.Add(1))
	url, err := cluster.CreateDatabase(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	db := &DB{Cluster: cluster, Name: name, URL: url}
	tb.Cleanup(func() {
		if cluster.PID() == 0 {
			return // the test has stopped the server
		}
		if err := db.drop(); err != nil {
			tb.Logf("drop database %s: %v", name, err)
		}
	})
	return db
}

// Connect opens a connection to the database as psql would, and closes it when the test
// ends.
func (db *DB) Connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), db.URL)
	if err != nil {
		tb.Fatalf("connect to %s: %v", db.Name, err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs statements as psql would, and fails the test when they fail.
func (db *DB) Exec(tb testing.TB, sql string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), db.URL)
	if err != nil {
		tb.Fatalf("connect to %s: %v", db.Name, err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(tb.Context(), sql).ReadAll(); err != nil {
		tb.Fatalf("execute in %s: %v", db.Name, err)
	}
}

const endWalsendersSQL = `
SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
WHERE database = $1 AND active_pid IS NOT NULL`

const dropSlotsSQL = `
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
WHERE database = $1 AND NOT active`

const countSlotsSQL = `SELECT count(*) FROM pg_replication_slots WHERE database = $1`

// drop drops the slots of the database, which would block it, and then the database.
func (db *DB) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgsession.Connect(ctx, db.Cluster.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for left := 1; left > 0; {
		if err := conn.QueryRow(ctx, countSlotsSQL, db.Name).Scan(&left); err != nil {
			return err
		}
		for _, sql := range []string{endWalsendersSQL, dropSlotsSQL} {
			if _, err := conn.Exec(ctx, sql, db.Name); err != nil && ctx.Err() != nil {
				return err // otherwise another session took a slot meanwhile: try again
			}
		}
	}
	_, err = conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{db.Name}.Sanitize()+" WITH (FORCE)")
	return err
}
