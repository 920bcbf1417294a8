package pgsession_test

import (
	"context"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/internal/pgsession"
	"walhook/internal/pgtest"
	"walhook/internal/pooler"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// through is the URL of a database behind a pooler.
func through(t *testing.T, o pooler.Options) string {
	t.Helper()
	db := pgtest.Database(t)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = pooler.Start(t, db.URL, o)
	return u.String()
}

// However many connections are opened at once, one second connection finds out the
// pooler's mode for all that share a guard.
func TestGuard_OneLookIsEnoughForAllConnectionsToADatabase(t *testing.T) {
	t.Parallel()
	var clients atomic.Int64
	behind := through(t, pooler.Options{Clients: &clients})
	guard := &pgsession.Guard{}
	const pools, each = 3, 4
	var opened sync.WaitGroup
	for range pools {
		cfg, err := pgxpool.ParseConfig(behind)
		if err != nil {
			t.Fatal(err)
		}
		cfg.MaxConns = each
		pool, err := pgsession.NewPool(t.Context(), cfg, guard)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		for range each {
			opened.Go(func() {
				conn, err := pool.Acquire(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(conn.Release)
			})
		}
	}
	opened.Wait()
	cfg, err := pgx.ParseConfig(behind)
	if err != nil {
		t.Fatal(err)
	}
	listening, err := pgsession.ConnectListener(t.Context(), cfg, guard)
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close(context.Background())
	if got, want := clients.Load(), int64(pools*each+2); got != want {
		t.Errorf("%d connections, want %d: those that were asked for, and one for the look", got, want)
	}
}

// A pool does not wait without end for the first answer of a connection: another one may
// get an answer.
func TestPool_ConnectsAgainAfterAnAnswerThatNeverCame(t *testing.T) {
	t.Parallel()
	var clients atomic.Int64
	address := through(t, pooler.Options{Sessions: 1, Waits: true, Clients: &clients})
	cfg, err := pgxpool.ParseConfig(address + "&connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	taken, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close(context.Background())
	cfg.MaxConns = 1
	pool, err := pgsession.NewPool(t.Context(), cfg, &pgsession.Guard{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for deadline := time.Now().Add(90 * time.Second); clients.Load() < 3; { // taken, and two of the pool
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := pool.Ping(ctx); err == nil {
			t.Error("it got an answer")
		}
		cancel()
		if time.Now().After(deadline) {
			t.Fatal("the pool still waits for the first answer of its first connection")
		}
	}
}

// A pooler that lends sessions per transaction is found out whichever idle session it
// lends, also if another client has the one that would tell for a moment.
func TestConnect_RefusesAPoolerThatLendsSessionsWhicheverItLends(t *testing.T) {
	t.Parallel()
	const others = 2 // transactions, before those of the look
	last := func(_, idle int) int { return idle - 1 }
	for _, c := range []struct {
		name string
		pick func(n, idle int) int
	}{
		{"the one that came back last", last},
		{"the one that has been idle longest", func(int, int) int { return 0 }},
		{"the one that came back last, which another client has once", func(n, idle int) int {
			if n == others+1 { // the first question was others+0
				return 0
			}
			return last(n, idle)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			behind := through(t, pooler.Options{Transaction: true, Pick: c.pick})
			var idle []*pgx.Conn
			for range others { // at once, so the pooler has as many sessions
				conn, err := pgx.Connect(t.Context(), behind)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(context.Background())
				if _, err := conn.PgConn().Exec(t.Context(), "BEGIN").ReadAll(); err != nil {
					t.Fatal(err)
				}
				idle = append(idle, conn)
			}
			for _, conn := range idle {
				if _, err := conn.PgConn().Exec(t.Context(), "ROLLBACK").ReadAll(); err != nil {
					t.Fatal(err)
				}
			}
			conn, err := pgsession.Connect(t.Context(), behind)
			if err == nil {
				conn.Close(context.Background())
			}
			if !pgsession.IsPooler(err) {
				t.Errorf("connected: %v", err)
			}
		})
	}
}
