package endtoend

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// TestGoingBack_RestoresABackupOfTheOutbox goes back across a migration as
// docs/OPERATIONS.md says ("Going back"): what was committed since the backup is a gap
// with both ends, and nothing is read before somebody accepts it.
func TestGoingBack_RestoresABackupOfTheOutbox(t *testing.T) {
	t.Parallel()
	tools := findPSQL(t)
	for _, c := range []struct {
		name  string
		apart bool // the outbox has a database of its own
	}{{"in a database of its own", true}, {"in the source", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster := pgtest.NewCluster(t, pgcluster.Options{Major: 15, NoSync: true})
			db := pgtest.NewDatabase(t, cluster)
			outbox := db
			if c.apart {
				outbox = pgtest.NewDatabase(t, cluster)
			}
			bodies := make(chan string, 100)
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				bodies <- string(body)
			}))
			t.Cleanup(server.Close)
			db.Exec(t, fmt.Sprintf(`
CREATE TABLE customer (id int PRIMARY KEY, webhook_url text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customer, state text);
INSERT INTO customer VALUES (7, '%s')`, server.URL))
			file := filepath.Join(t.TempDir(), "catalog.yaml")
			mustRun(t, "catalog", "draft", "--source", db.URL, "--output", file)
			settings := []string{"--source", db.URL, "--outbox", outbox.URL, "--slot", "back_" + db.Name, "--catalog", file}
			setup := append([]string{"setup"}, settings...)
			run := append([]string{"run", "--listen", "off", "--allow-cidr", "127.0.0.0/8"}, settings...)
			order := func(id int) {
				t.Helper()
				db.Exec(t, fmt.Sprintf("INSERT INTO orders VALUES (%d, 7, 'new')", id))
			}
			arrives := func(id int) {
				t.Helper()
				want := fmt.Sprintf(`{"type":"insert","schema":"orders","data":"{\"id\":%d,\"customer_id\":7,\"state\":\"new\"}"}`, id)
				for deadline := time.After(patience); ; {
					select {
					case body := <-bodies:
						if body == want {
							return
						}
					case <-deadline:
						t.Fatalf("order %d does not arrive", id)
					}
				}
			}
			tool := func(name string, args ...string) {
				t.Helper()
				if out, err := exec.CommandContext(t.Context(), filepath.Join(tools, name), args...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", name, err, out)
				}
			}

			mustRun(t, setup...)
			before := startChild(t, run...)
			order(1)
			arrives(1)
			before.stop(t)
			dump := filepath.Join(t.TempDir(), "walhook.dump")
			tool("pg_dump", "--format=custom", "--schema=walhook", "--file="+dump, outbox.URL)

			position := func() (lsn string) {
				t.Helper()
				if err := db.Connect(t).QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
					t.Fatal(err)
				}
				return lsn
			}

			// The newer version migrates, reads and sends.
			first := position()
			newer := startChild(t, run...)
			order(2)
			arrives(2)
			order(3)
			arrives(3)
			newer.stop(t)
			outbox.Exec(t, "UPDATE walhook.schema_version SET version = version + 1")

			for _, command := range [][]string{run, setup, append(setup, "--accept-gap")} {
				_, err := walhook(t, command...)
				if exitCodeOf(err) != exitFault || !strings.Contains(err.Error(), "the outbox is newer than this walhook") || !strings.Contains(err.Error(), "'walhook setup --accept-gap' of this version") {
					t.Errorf("%s on the newer outbox: %v", command[0], err)
				}
			}

			outbox.Exec(t, "DROP SCHEMA walhook CASCADE")
			tool("pg_restore", "--exit-on-error", "--single-transaction", "--dbname="+outbox.URL, dump)
			order(4) // while nobody reads
			last := position()

			for _, command := range [][]string{run, setup} {
				_, err := walhook(t, command...)
				if exitCodeOf(err) != exitGap || !strings.Contains(err.Error(), "--accept-gap") {
					t.Fatalf("%s on the restored outbox: %v", command[0], err)
				}
			}
			var status struct {
				Gaps []struct {
					From, Reason string
				}
			}
			out, err := walhook(t, "status", "--json", "--source", db.URL, "--outbox", outbox.URL)
			if jsonErr := json.Unmarshal([]byte(out), &status); err != nil || jsonErr != nil || len(status.Gaps) != 1 || status.Gaps[0].Reason == "" {
				t.Fatalf("status: %v\n%s", err, out)
			}
			mustRun(t, append(setup, "--accept-gap")...)
			var gap string
			var whole bool
			if err := outbox.Connect(t).QueryRow(t.Context(), `SELECT from_lsn || ' to ' || to_lsn || ' accepted at ' || accepted_at,
				from_lsn <= $1::pg_lsn AND to_lsn >= $2::pg_lsn AND accepted_at IS NOT NULL FROM walhook.gap`, first, last).Scan(&gap, &whole); err != nil {
				t.Fatal(err)
			}
			if !whole {
				t.Errorf("the gap is from %s, and the changes are from %s to %s", gap, first, last)
			}
			again := startChild(t, run...)
			arrives(4) // of the comparison with the snapshot
			order(5)
			arrives(5)
			again.stop(t)
		})
	}
}
