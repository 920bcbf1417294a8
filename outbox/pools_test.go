package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgtest"
)

func TestOpen_APasswordRotatedInThePassfileCountsForTheNextConnection(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	role := "rotated_" + db.Name
	db.Exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'one'")

	passfile := filepath.Join(t.TempDir(), "pgpass")
	write := func(password string) {
		if err := os.WriteFile(passfile, []byte("*:*:*:"+role+":"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	address, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.User(role)
	query := address.Query()
	query.Set("passfile", passfile)
	address.RawQuery = query.Encode()

	store, err := Open(t.Context(), Config{URL: address.String()}, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		for _, pool := range store.pools.all() {
			if err := pool.Ping(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}

	db.Exec(t, "ALTER ROLE "+role+" PASSWORD 'two'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+role+"'")
	for _, pool := range store.pools.all() {
		pool.Reset()
	}
	if err := ask(); err == nil {
		t.Fatal("the old password still connects: the test proves nothing")
	}
	write("two")
	if err := ask(); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// What the outbox's absence looks like on a connection that was open is the same
// to a caller as a connection that cannot be made: try again later.
func TestIsBusy_KnowsAnOutboxThatIsAway(t *testing.T) {
	t.Parallel()
	code := func(code string) error { return fmt.Errorf("look: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		name string
		err  error
		busy bool
	}{
		{"cut off inside an answer", fmt.Errorf("look: %w", io.ErrUnexpectedEOF), true},
		{"reset", fmt.Errorf("look: %w", &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}), true},
		{"not in time", context.DeadlineExceeded, true},
		{"shut down", code("57P01"), true},
		{"a standby", code("25006"), true},
		{"a deadlock", code("40P01"), true},
		{"a lock", code("55P03"), true},
		{"no connection left", code("53300"), true},
		{"a code that is none", code(""), false},
		{"a value", code("22P02"), false},
		{"a damaged row", code("XX001"), false},
		{"a mistake of ours", errors.New("x"), false},
	} {
		if got := IsBusy(c.err); got != c.busy {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
