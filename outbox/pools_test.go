package outbox

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

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
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
