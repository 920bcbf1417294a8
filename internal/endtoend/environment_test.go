package endtoend

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// Where another tool publishes every table of the database, walhook's own can be
// written all the same, and what it writes is no change of the carrier's.
func TestSetup_WorksBesideAnotherToolsPublicationOfAllTables(t *testing.T) {
	t.Parallel()
	var status, delivered atomic.Int64
	status.Store(http.StatusInternalServerError)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status.Load() == http.StatusOK {
			delivered.Add(1)
		}
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	db := pgtest.Database(t)
	slot, listen := "all_"+db.Name, loopback.Address(t)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (7, 'n', '`+server.URL+`')`)
	db.Exec(t, `CREATE PUBLICATION another_tool FOR ALL TABLES`)
	mustRun(t, "setup", "--source", db.URL, "--slot", slot)
	conn := db.Connect(t)
	rows, err := conn.Query(t.Context(), `SELECT oid::regclass::text, (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1)
		FROM pg_class c WHERE relnamespace = 'walhook'::regnamespace AND relkind = 'r'`)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]string{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		tables[table] = column
	}
	for table, column := range tables {
		for _, sql := range []string{"DELETE FROM %[1]s WHERE false", "UPDATE %[1]s SET %[2]q = %[2]q WHERE false"} {
			if _, err := conn.Exec(t.Context(), fmt.Sprintf(sql, table, column)); err != nil && !strings.Contains(err.Error(), "GENERATED ALWAYS") && !strings.Contains(err.Error(), "can only be updated to DEFAULT") {
				t.Errorf("%s: %v", table, err)
			}
		}
	}
	p := startChild(t, "run", "--source", db.URL, "--slot", slot, "--listen", listen, "--allow-cidr", "127.0.0.0/8", "--retry-schedule", "100ms")
	awaitReady(t, listen)
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`)
	dead := func() (n int) {
		_ = conn.QueryRow(t.Context(), `SELECT count(*) FROM walhook.dead_letter`).Scan(&n)
		return n
	}
	eventually(t, 20*time.Second, func() bool { return dead() == 1 })
	status.Store(http.StatusOK)
	mustRun(t, "endpoints", "enable", "7", "--outbox", db.URL)
	mustRun(t, "replay", "--account", "7", "--since", "1h", "--outbox", db.URL)
	eventually(t, 20*time.Second, func() bool { return delivered.Load() >= 1 && dead() == 0 })
	resp, err := http.Get("http://" + listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if metrics, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(metrics), `walhook_changes_skipped_total{reason="not_in_catalog"} 0`) {
		t.Errorf("changes of walhook's own are counted as not in the catalog, %v", err)
	}
	p.stop(t)
}

// A publication of all tables and an outbox in the same database would go round
// in circles: setup says so before it has made anything. With an outbox elsewhere
// it works.
func TestSetup_APublicationOfAllTablesNeedsAnOutboxElsewhere(t *testing.T) {
	t.Parallel()
	var delivered atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { delivered.Add(1) }))
	t.Cleanup(server.Close)
	db, outbox := pgtest.Database(t), pgtest.Database(t)
	slot, listen := "every_"+db.Name, loopback.Address(t)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (7, 'n', '`+server.URL+`')`)
	db.Exec(t, `CREATE PUBLICATION walhook FOR ALL TABLES`)
	want := []string{"is FOR ALL TABLES, and the outbox is in the same database", "--outbox", "DROP PUBLICATION walhook"}
	wantFault(t, exitFault, want, "setup", "--source", db.URL, "--slot", slot)
	wantFault(t, exitFault, want, "run", "--setup", "--source", db.URL, "--slot", slot, "--listen", "off")
	var there bool
	if err := db.Connect(t).QueryRow(t.Context(), `SELECT to_regclass('walhook.epoch') IS NOT NULL`).Scan(&there); err != nil || there {
		t.Errorf("setup made an outbox that it refuses: %t, %v", there, err)
	}
	mustRun(t, "setup", "--source", db.URL, "--outbox", outbox.URL, "--slot", slot)
	p := startChild(t, "run", "--source", db.URL, "--outbox", outbox.URL, "--slot", slot, "--listen", listen, "--allow-cidr", "127.0.0.0/8")
	awaitReady(t, listen)
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`)
	eventually(t, 20*time.Second, func() bool { return delivered.Load() == 1 })
	p.stop(t)
}

// A database that was renamed is the same one: nothing was lost, reading goes on
// and teardown still undoes what setup did. Another database is another one.
func TestRun_ContinuesAfterTheDatabaseWasRenamed(t *testing.T) {
	t.Parallel()
	var delivered atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { delivered.Add(1) }))
	t.Cleanup(server.Close)
	db, outbox, other := pgtest.Database(t), pgtest.Database(t), pgtest.Database(t)
	slot, listen := "renamed_"+db.Name, loopback.Address(t)
	for _, one := range []*pgtest.DB{db, other} {
		one.Exec(t, carrier.Tables)
	}
	db.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (7, 'n', '`+server.URL+`')`)
	mustRun(t, "setup", "--source", db.URL, "--outbox", outbox.URL, "--slot", slot)
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`)
	wantFault(t, exitFault, []string{"belongs to database " + db.Name}, "run", "--role", "publisher", "--source", other.URL, "--outbox", outbox.URL, "--slot", slot, "--listen", "off")

	old, name := db.Name, db.Name+"_renamed"
	outbox.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`+old+`'`)
	eventually(t, 10*time.Second, func() bool {
		_, err := outbox.Connect(t).Exec(t.Context(), `ALTER DATABASE `+old+` RENAME TO `+name)
		return err == nil
	})
	db.URL, db.Name = strings.Replace(db.URL, "/"+old, "/"+name, 1), name
	settings := []string{"--source", db.URL, "--outbox", outbox.URL, "--slot", slot}
	out, _ := childCommand(t, append([]string{"doctor", "--json"}, settings...)...).Output()
	for _, id := range []string{"source.setup", "source.slot", "source.position", "source.published"} {
		if status, evidence := findingOf(t, out, id); status != "ok" {
			t.Errorf("doctor: %s is %s: %s", id, status, evidence)
		}
	}
	p := startChild(t, append([]string{"run", "--listen", listen, "--allow-cidr", "127.0.0.0/8"}, settings...)...)
	awaitReady(t, listen)
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (2, 7, '2')`)
	eventually(t, 20*time.Second, func() bool { return delivered.Load() == 2 })
	p.stop(t)
	mustRun(t, append([]string{"setup"}, settings...)...)
	mustRun(t, append([]string{"teardown"}, settings...)...)
	var full int
	if err := db.Connect(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relreplident = 'f' AND relnamespace = 'public'::regnamespace`).Scan(&full); err != nil || full > 0 {
		t.Errorf("teardown left %d tables as setup made them, %v", full, err)
	}
}

// plainCatalog is a catalog of two tables, whose owner is in the named column.
func plainCatalog(t *testing.T, owner string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(file, []byte("account: {table: customers, id: id, url: url, secret: secret}\n"+
		"schemas: {items: {table: items, owner: "+owner+", fields: [id, name]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What fills up a char(n) is no part of the URL, whichever way the URL comes; of
// every other type each character counts, and what makes a URL unusable is shown.
func TestRun_TakesURLColumnsOfEveryType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, create, typ string
		suffix            string // of the URL
		usable            bool
	}{
		{"char", "", "char(255)", "", true},
		{"a domain over char", "CREATE DOMAIN web_hook AS char(200)", "web_hook", "", true},
		{"a domain over text", "CREATE DOMAIN web_hook AS text CHECK (value LIKE 'http%')", "web_hook", "", true},
		{"varchar that ends with a blank", "", "varchar(255)", " ", false},
		{"text that ends with a new line", "", "text", "\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var first, second, secrets atomic.Int64
			secret := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 24))
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/1":
					first.Add(1)
				case "/2":
					second.Add(1)
				}
				if r.Header.Get("webhook-signature") != "" {
					secrets.Add(1)
				}
			}))
			t.Cleanup(server.Close)
			db := pgtest.Database(t)
			slot, listen, catalog := "types_"+db.Name, loopback.Address(t), plainCatalog(t, "customer")
			if c.create != "" {
				db.Exec(t, c.create)
			}
			db.Exec(t, `CREATE TABLE customers (id int PRIMARY KEY, url `+c.typ+`, secret char(80)); CREATE TABLE items (id int PRIMARY KEY, customer int, name text)`)
			insert := func(id int) {
				db.Exec(t, fmt.Sprintf(`INSERT INTO customers VALUES (%d, E'%s/%d%s', '%s')`, id, server.URL, id, strings.ReplaceAll(c.suffix, "\n", `\n`), secret))
			}
			insert(1)
			settings := []string{"--source", db.URL, "--slot", slot, "--catalog", catalog}
			mustRun(t, append([]string{"setup"}, settings...)...)
			p := startChild(t, append([]string{"run", "--listen", listen, "--allow-cidr", "127.0.0.0/8"}, settings...)...)
			awaitReady(t, listen)
			insert(2)
			db.Exec(t, `INSERT INTO items VALUES (1, 1, 'x'), (2, 2, 'y')`)
			if c.usable {
				eventually(t, 20*time.Second, func() bool { return first.Load() == 1 && second.Load() == 1 && secrets.Load() == 2 })
				db.Exec(t, `UPDATE customers SET url = NULL WHERE id = 1`)
			}
			eventually(t, 20*time.Second, func() bool {
				out := mustRun(t, "endpoints", "--json", "--outbox", db.URL)
				if c.usable {
					return strings.Contains(out, `"cleared"`)
				}
				return strings.Count(out, `"state": "unusable"`)+strings.Count(out, `"state":"unusable"`) == 2 && strings.Contains(out, "the URL ")
			})
			p.stop(t)
		})
	}
}

// A column that the table has and the stream has not is never answered with a
// change of the table: doctor says why it does not come and what does.
func TestDoctor_AGeneratedOwnerColumnKeepsItsName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, owner, generated string
		kind                   string // STORED or VIRTUAL
		want                   string // in the steps
	}{
		{"from one column", "customer", "customer_id", "STORED", "owner: customer_id,"},
		{"from a document", "customer", "(meta->>'owner')::int", "STORED", "stored and sent (it is computed from meta)"},
		{"from two", "customer", "customer_id + other", "STORED", "stored and sent (it is computed from customer_id, other)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			if db.Cluster.Binaries().Major >= 18 {
				t.Skip("PostgreSQL 18 sends stored generated columns")
			}
			slot := "generated_" + db.Name
			db.Exec(t, `CREATE TABLE customers (id int PRIMARY KEY, url text, secret text);
				CREATE TABLE items (id int PRIMARY KEY, name text, customer_id int, other int, meta jsonb, customer int GENERATED ALWAYS AS (`+c.generated+`) `+c.kind+`)`)
			settings := []string{"--source", db.URL, "--slot", slot, "--catalog", plainCatalog(t, c.owner)}
			mustRun(t, append([]string{"setup"}, settings...)...)
			out, _ := childCommand(t, append([]string{"doctor", "--json"}, settings...)...).Output()
			status, evidence := findingOf(t, out, "source.columns")
			if status != "failed" || !strings.Contains(evidence, `does not send column "customer", which is generated: servers before PostgreSQL 18 do not`) {
				t.Errorf("%s: %s", status, evidence)
			}
			if text := string(out); strings.Contains(text, "RENAME COLUMN") || strings.Contains(text, "ADD COLUMN") || !strings.Contains(text, c.want) {
				t.Errorf("doctor's advice lacks %q or changes the table:\n%s", c.want, text)
			}
		})
	}
}
