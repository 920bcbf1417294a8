package doctor

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgsession"
	"walhook/internal/pgtest"
)

// A database that does not exist: of a source, one of nearly that name is proposed, and
// nothing is created.
func TestConnectSteps_ProposeADatabaseThatExists(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	for _, test := range []struct {
		where, name string
		kind        Kind
		text, note  string
	}{
		{"source", db.Name + "x", Address, "dbname=" + db.Name, db.Name},
		{"source", "quite_another", Address, "dbname=NAME", db.Name},
		{"outbox", db.Name + "x", SQL, "CREATE DATABASE " + db.Name + "x OWNER", "did you mean " + db.Name},
		{"outbox", "quite_another", SQL, "CREATE DATABASE quite_another OWNER", "or correct --outbox"},
	} {
		cfg, err := pgx.ParseConfig(strings.Replace(db.URL, "/"+db.Name, "/"+test.name, 1))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pgsession.ConnectConfig(t.Context(), cfg)
		if err == nil {
			t.Fatalf("%s exists", test.name)
		}
		steps := ConnectSteps(t.Context(), cfg, test.where, err)
		if len(steps) != 1 || steps[0].Kind != test.kind || !strings.HasPrefix(steps[0].Text, test.text) || !strings.Contains(steps[0].Note, test.note) {
			t.Errorf("%s %s: %+v", test.where, test.name, steps)
		}
	}
}

// A server without TLS answers, so the fix is about TLS.
func TestConnectSteps_OfAServerWithoutTLS(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(conn, make([]byte, 8)) // the SSLRequest
			_, _ = conn.Write([]byte("N"))
			_ = conn.Close()
		}
	}()
	cfg, err := pgx.ParseConfig("postgres://walhook@" + listener.Addr().String() + "/carrier?sslmode=require")
	if err != nil {
		t.Fatal(err)
	}
	_, err = pgsession.ConnectConfig(t.Context(), cfg)
	steps := ConnectSteps(t.Context(), cfg, "source", err)
	if len(steps) != 1 || !strings.Contains(steps[0].Text, "ssl = 'on'") || !strings.Contains(steps[0].Note, "sslmode=disable in the URL of --source") {
		t.Errorf("%v: %+v", err, steps)
	}
}

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
