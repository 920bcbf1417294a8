package endtoend

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

const killedCatalog = `
account: {table: public.account, id: id, url: url}
schemas:
  items: {table: public.item, owner: account, fields: [id, account, n]}
results: {table: public.async_results}
events: {table: public.events}
`

// killPoints are places in the work after a gap, in their order, each as a trigger of the
// outbox: there the process is killed.
var killPoints = []struct{ name, command, trigger string }{
	{"the snapshot is about to begin", "setup", "BEFORE UPDATE ON walhook.source FOR EACH ROW WHEN (NEW.state = 'snapshot')"},
	{"it compares the rows", "setup", "BEFORE INSERT ON walhook.missed FOR EACH ROW WHEN (NEW.n = 500)"},
	{"it compares the results", "setup", "BEFORE INSERT ON walhook.missed_row FOR EACH ROW WHEN (NEW.type = 'event')"},
	{"the snapshot is almost stored", "setup", "BEFORE INSERT ON walhook.position FOR EACH ROW WHEN (NEW.ordinal = 0)"},
	{"setup appends the first part", "setup", "BEFORE INSERT ON walhook.event FOR EACH ROW WHEN (NEW.webhook_id LIKE 'gap\\_%\\_700')"},
	{"run appends the second part", "run", "BEFORE INSERT ON walhook.event FOR EACH ROW WHEN (NEW.webhook_id LIKE 'gap\\_%\\_1500')"},
	{"run appends the results", "run", "BEFORE INSERT ON walhook.event FOR EACH ROW WHEN (NEW.webhook_id LIKE 'gap\\_%\\_2900')"},
	{"run appends the emitted events", "run", "BEFORE INSERT ON walhook.event FOR EACH ROW WHEN (NEW.webhook_id LIKE 'gap\\_%\\_3450')"},
	{"run ends the reconciliation", "run", "BEFORE UPDATE ON walhook.gap FOR EACH ROW WHEN (NEW.reconciled_at IS NOT NULL)"},
}

// setup --accept-gap and then run are killed at one place after the other. What endpoints
// missed is sent once, in order, before anything newer.
func TestGap_KilledAnywhereEndsTheSame(t *testing.T) {
	t.Parallel()
	source, outbox := pgtest.Database(t), pgtest.Database(t)
	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(catalog, []byte(killedCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	source.Exec(t, `CREATE TABLE account (id bigint PRIMARY KEY, url text);
		CREATE TABLE item (id bigint PRIMARY KEY, account bigint, n bigint);
		CREATE TABLE async_results (id int PRIMARY KEY, user_id bigint, schema text, type text DEFAULT 'update', status text, "verbose" text);
		CREATE TABLE events (id int PRIMARY KEY, account_id bigint, hook text, payload json);
		INSERT INTO account VALUES (7, 'http://127.0.0.1:9/');
		INSERT INTO item SELECT n, 7, 1 FROM generate_series(1, 1200) n`)
	slot := "killed_" + source.Name
	settings := []string{"--source", source.URL, "--outbox", outbox.URL, "--slot", slot, "--catalog", catalog}
	commands := map[string][]string{
		"setup": append([]string{"setup", "--accept-gap"}, settings...),
		"run":   append([]string{"run", "--role", "publisher", "--listen", loopback.Address(t)}, settings...),
	}
	mustRun(t, append([]string{"setup"}, settings...)...)
	outbox.Exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, hook)
		VALUES ('7', 'w', 'http://127.0.0.1:9/', 'active', 'whsec_b2xk', 'channel_create')`)
	conn, box := source.Connect(t), outbox.Connect(t)
	exec := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(conn, fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", slot))
	exec(conn, `UPDATE item SET n = 2 WHERE id <= 1000; DELETE FROM item WHERE id > 1000; INSERT INTO item SELECT n, 7, 2 FROM generate_series(2001, 3000) n;
		INSERT INTO async_results SELECT n, 7, 'sms', 'update', 'ok', 'n' || n FROM generate_series(1, 1200) n;
		INSERT INTO events SELECT n, 7, 'channel_create', format('{"call_id":"c%s"}', n)::json FROM generate_series(1, 300) n`)

	exec(box, `CREATE FUNCTION hold_here() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NEW; END'`)
	for _, point := range killPoints {
		exec(box, "CREATE TRIGGER hold_here "+point.trigger+" EXECUTE FUNCTION hold_here(); SELECT pg_advisory_lock(77)")
		process := startChild(t, commands[point.command]...)
		eventually(t, patience, func() bool {
			var waits bool
			if err := box.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&waits); err != nil {
				t.Fatal(err)
			}
			return waits
		})
		process.kill(t)
		table := strings.Fields(strings.SplitN(point.trigger, " ON ", 2)[1])[0]
		exec(box, "SELECT pg_advisory_unlock(77)") // its session goes on, and may even commit
		exec(box, "DROP TRIGGER hold_here ON "+table)
		t.Logf("killed where %s", point.name)
	}
	exec(conn, "UPDATE item SET n = 3 WHERE id <= 100; INSERT INTO async_results VALUES (2000, 7, 'sms', 'update', 'ok', 'after')")
	process := startChild(t, commands["run"]...)
	eventually(t, patience, func() bool {
		var n int
		if err := box.QueryRow(t.Context(), "SELECT count(*) FROM walhook.event WHERE webhook_id LIKE 'evt%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 101
	})
	process.stop(t)

	rows, err := box.Query(t.Context(), `SELECT webhook_id, convert_from(body, 'UTF8') FROM walhook.event ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	records, kinds, results, calls, newer := map[int64]int64{}, map[string]int{}, 0, 0, false
	for id := int64(1); id <= 1200; id++ {
		records[id] = 1
	}
	var id, body string
	last := 0
	_, err = pgx.ForEachRow(rows, []any{&id, &body}, func() error {
		var event struct {
			Type, Schema, Data, Verbose string
			CallID                      string `json:"call_id"`
		}
		if err := json.Unmarshal([]byte(body), &event); err != nil {
			return err
		}
		var gap, n int
		if _, err := fmt.Sscanf(id, "gap_%d_%d", &gap, &n); err != nil {
			newer = true
		} else if newer || n != last+1 {
			t.Errorf("%s comes after %d, or behind what is newer", id, last)
		} else {
			last = n
		}
		switch {
		case event.Verbose == "after":
		case event.Verbose != "":
			if results++; event.Verbose != fmt.Sprint("n", results) {
				t.Errorf("result %d is %s", results, event.Verbose)
			}
		case event.CallID != "" || event.Data == "":
			calls++
		default:
			var data struct{ ID, N int64 }
			if err := json.Unmarshal([]byte(event.Data), &data); err != nil {
				return err
			}
			if kinds[event.Type]++; event.Type == "delete" {
				delete(records, data.ID)
			} else {
				records[data.ID] = data.N
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]int{"update": 1100, "delete": 200, "insert": 1000}; !maps.Equal(kinds, want) || results != 1200 || calls != 300 || last != 3700 {
		t.Errorf("%v, %d results, %d emitted events, up to %d", kinds, results, calls, last)
	}
	present := map[int64]int64{}
	for id := int64(1); id <= 1000; id++ {
		present[id], present[id+2000] = 2, 2
		if id <= 100 {
			present[id] = 3
		}
	}
	if !maps.Equal(records, present) {
		t.Errorf("whoever applies the events has %d records, the source %d, or they differ", len(records), len(present))
	}
	var row string
	if err := box.QueryRow(t.Context(), "SELECT concat_ws(' ', count(*), min(missed), min(inserts), min(updates), min(deletes), min(results), min(events), bool_and(reconciled_at IS NOT NULL)) FROM walhook.gap").Scan(&row); err != nil {
		t.Fatal(err)
	}
	if row != "1 3700 1000 1000 200 1200 300 t" {
		t.Errorf("the gap's row says %s", row)
	}
}
