package pooler

import (
	"context"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// slowConn is a connection whose writes return late, as they do on a busy machine.
type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	time.Sleep(50 * time.Millisecond)
	return n, err
}

func dialSlow(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return slowConn{conn}, err
}

// After a slow write pgconn reads from the server in the background. What it reads reaches
// the client all the same.
func TestPooler_AClientGetsEveryAnswerAfterASlowWrite(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	for _, c := range []struct {
		name        string
		options     Options
		replication bool
	}{
		{"session", Options{}, false},
		{"session that is not reset", Options{Unreset: true}, false},
		{"transaction", Options{Transaction: true}, false},
		{"replication", Options{Replication: Pass}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.options.dial = dialSlow
			u, err := url.Parse(db.URL)
			if err != nil {
				t.Fatal(err)
			}
			u.Host = Start(t, db.URL, c.options)
			config, err := pgconn.ParseConfig(u.String())
			if err != nil {
				t.Fatal(err)
			}
			if c.replication {
				config.RuntimeParams["replication"] = "database"
			}
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			for range 2 { // the second client may get the session of the first one
				conn, err := pgconn.ConnectConfig(ctx, config)
				if err != nil {
					t.Fatal(err)
				}
				for _, size := range []int{1, 1 << 20} {
					want := strings.Repeat("x", size)
					results, err := conn.Exec(ctx, "SELECT 'x' UNION ALL SELECT '"+want+"'").ReadAll()
					if err != nil {
						t.Fatal(err)
					}
					if rows := results[0].Rows; string(rows[len(rows)-1][0]) != want {
						t.Errorf("the last of %d rows is not the one of %d bytes", len(rows), size)
					}
				}
				if err := conn.Close(ctx); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
