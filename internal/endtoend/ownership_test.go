package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgtest"
)

// owned is a carrier whose tables a test writes, walhook at work on it, and what
// its accounts get.
type owned struct {
	*patient
	carrier, store *pgx.Conn
	server         *httptest.Server
	mark           string
	marks          int

	mu  sync.Mutex
	got []string // account, type, schema and data
}

const markCatalog = `
  marks: {table: public.marks, owner: user_id, fields: [id]}
`

// newOwned makes tables and a catalog, in which <url> stands for the receiver's
// address. The table of accounts is users.
func newOwned(t *testing.T, tables, catalog string) *owned {
	t.Helper()
	return newOwnedMark(t, "99", tables, catalog)
}

// newOwnedMark is one whose own account, which takes the test's marks, has an
// id of its own.
func newOwnedMark(t *testing.T, mark, tables, catalog string) *owned {
	t.Helper()
	o := &owned{mark: mark}
	o.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line := strings.NewReplacer(`{"type":"`, "", `","schema":"`, " ", `","data":"`, " ", `\"`, `'`, `}"}`, "}").Replace(string(body))
		o.mu.Lock()
		defer o.mu.Unlock()
		o.got = append(o.got, r.URL.Path[1:]+" "+line)
	}))
	t.Cleanup(o.server.Close)
	db := pgtest.Database(t)
	o.patient = &patient{db: db, outbox: pgtest.NewDatabase(t, db.Cluster), catalog: filepath.Join(t.TempDir(), "catalog.yaml")}
	o.settings = map[string]string{"source": db.URL, "outbox": o.outbox.URL, "slot": "slot_" + db.Name, "catalog": o.catalog, "allow-cidr": "127.0.0.0/8", "listen": "off"}
	if err := os.WriteFile(o.catalog, []byte(catalog+markCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	o.carrier = db.Connect(t)
	o.sql(t, strings.ReplaceAll(tables, "<url>", o.server.URL), "CREATE TABLE marks (id int PRIMARY KEY, user_id text)",
		"INSERT INTO users (id, web_hook_url) VALUES ('"+mark+"', '"+o.server.URL+"/mark')")
	return o
}

// sql runs statements on the carrier's database, one by one.
func (o *owned) sql(t *testing.T, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := o.carrier.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func (o *owned) run(t *testing.T) *childProcess {
	t.Helper()
	return startChild(t, append([]string{"run"}, o.flags(t, []string{"run"})...)...)
}

// arrived is what accounts got, sorted, once all that was committed has arrived.
func (o *owned) arrived(t *testing.T) []string {
	t.Helper()
	o.marks++
	o.sql(t, fmt.Sprintf("INSERT INTO marks VALUES (%d, '%s')", o.marks, o.mark))
	if o.store == nil {
		o.store = o.outbox.Connect(t)
	}
	mark := fmt.Sprintf("mark insert marks {'id':%d}", o.marks)
	var lines []string
	eventually(t, 30*time.Second, func() bool {
		o.mu.Lock()
		lines = slices.Clone(o.got)
		o.mu.Unlock()
		if !slices.Contains(lines, mark) {
			return false
		}
		var events int
		if err := o.store.QueryRow(t.Context(), "SELECT count(*) FROM walhook.event").Scan(&events); err != nil {
			t.Fatal(err)
		}
		return len(lines) >= events
	})
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "mark ") })
	slices.Sort(lines)
	return lines
}

// unrouted is what reached nobody and why.
func (o *owned) unrouted(t *testing.T) []string {
	t.Helper()
	rows, err := o.store.Query(t.Context(), "SELECT concat_ws(' ', schema, type, key, reason) FROM walhook.unrouted ORDER BY commit_lsn, ordinal")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func wantExactly(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

const ownedCatalog = `
account: {table: public.users, id: id, url: web_hook_url}
schemas:
  dids: {table: public.dids, owner: user_id, fields: [id, user_id, number]}
  e911: {table: public.e911, owner: {column: did_id, schema: dids}, fields: [id, did_id, note]}
`

const ownedTables = `
CREATE TABLE users (id int PRIMARY KEY, web_hook_url text);
CREATE TABLE dids (id int PRIMARY KEY, user_id int, number text);
CREATE TABLE e911 (id int PRIMARY KEY, did_id int, note text);
INSERT INTO users VALUES (7, '<url>/7'), (8, '<url>/8');
`

// Whatever takes the owner column out of the stream, the old owner gets nothing
// of what may be another's by now.
func TestRun_ARenamedOwnerColumnSendsNothingToAnybody(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"renamed":   {"ALTER TABLE dids RENAME user_id TO account_id", "account_id"},
		"dropped":   {"ALTER TABLE dids ADD account_id int; UPDATE dids SET account_id = user_id; ALTER TABLE dids DROP user_id", "account_id"},
		"generated": {"ALTER TABLE dids RENAME user_id TO account_id; ALTER TABLE dids ADD user_id int GENERATED ALWAYS AS (account_id) STORED; ALTER TABLE dids REPLICA IDENTITY DEFAULT", "account_id"},
		"listed":    {"ALTER TABLE dids REPLICA IDENTITY DEFAULT; ALTER PUBLICATION walhook SET TABLE users, e911, marks, dids (id, number)", "user_id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOwned(t, ownedTables, ownedCatalog)
			if name == "listed" && serverMajorOf(t, o.carrier) < 15 {
				t.Skip("column lists are there since PostgreSQL 15")
			}
			o.setup(t)
			o.run(t)
			o.sql(t, "INSERT INTO dids VALUES (1, 7, '312')", "INSERT INTO e911 VALUES (1, 1, 'x')")
			o.arrived(t)
			o.sql(t, change[0], "UPDATE dids SET "+change[1]+" = 8 WHERE id = 1", "UPDATE dids SET number = 'secret' WHERE id = 1",
				"UPDATE e911 SET note = 'secret' WHERE id = 1", "INSERT INTO e911 VALUES (2, 1, 'secret')", "DELETE FROM e911 WHERE id = 1", "DELETE FROM dids WHERE id = 1")
			for _, line := range o.arrived(t) {
				if strings.Contains(line, "secret") || strings.Contains(line, "delete") {
					t.Errorf("sent: %s", line)
				}
			}
			if lines := o.unrouted(t); len(lines) < 6 {
				t.Errorf("unrouted: %q", lines)
			}
		})
	}
}

func serverMajorOf(t *testing.T, conn *pgx.Conn) (major int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&major); err != nil {
		t.Fatal(err)
	}
	return major
}

// Ids that are the same value to the source are the same account, and the same
// record, whatever their texts.
func TestRun_IDsCompareAsTheSourcesTypesDo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ account, owner, id, refers, late string }{
		"citext":               {"citext", "citext", "Acme", "ACME", "acmE"},
		"citext and text":      {"citext", "text", "Acme", "Acme", "ACME"},
		"char and varchar":     {"char(10)", "varchar(10)", "ab", "ab", "ab  "},
		"varchar and char":     {"varchar(10)", "char(10)", "ab", "ab", "ab"},
		"numeric scales":       {"numeric(10,2)", "numeric", "7", "7.0", "7.000"},
		"numeric and integer":  {"numeric(10,2)", "int", "7", "7", "7"},
		"integer and bigint":   {"int", "bigint", "7", "7", "7"},
		"a domain of citext":   {"name_of_account", "name_of_account", "Acme", "acme", "ACME"},
		"uuid and text":        {"uuid", "text", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"},
		"text that only looks": {"text", "text", "7", "7", "7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mark := "99"
			if test.account == "uuid" {
				mark = "99999999-9999-9999-9999-999999999999"
			}
			o := newOwnedMark(t, mark, fmt.Sprintf(`
				CREATE EXTENSION IF NOT EXISTS citext;
				CREATE DOMAIN name_of_account AS citext;
				CREATE TABLE users (id %[1]s PRIMARY KEY, web_hook_url text);
				CREATE TABLE dids (id %[1]s PRIMARY KEY, user_id %[2]s, number text);
				CREATE TABLE e911 (id int PRIMARY KEY, did_id %[2]s, note text);
				INSERT INTO users VALUES ('%[3]s', '<url>/7');
				INSERT INTO dids VALUES ('%[3]s', '%[4]s', 'before');
			`, test.account, test.owner, test.id, test.refers), ownedCatalog)
			o.setup(t)
			o.run(t)
			o.sql(t, fmt.Sprintf("INSERT INTO e911 VALUES (1, '%s', 'x')", test.refers), fmt.Sprintf("UPDATE dids SET number = 'after', user_id = '%s'", test.late),
				fmt.Sprintf("SELECT pg_logical_emit_message(true, 'walhook', '{\"user_id\":\"%s\",\"schema\":\"sms\",\"type\":\"update\",\"status\":\"ok\"}')", test.late))
			kinds := []string{}
			for _, line := range o.arrived(t) {
				words := strings.Fields(line)
				kinds = append(kinds, strings.Split(strings.Join(words[:min(3, len(words))], " "), `"`)[0])
			}
			wantExactly(t, kinds, "7 insert e911", "7 update dids", "7 update sms")
			wantExactly(t, o.unrouted(t))
		})
	}
}

// An id that is no value of the type that it refers to is nobody's, and said so.
func TestRun_AnIDThatCannotBeComparedIsListed(t *testing.T) {
	t.Parallel()
	o := newOwned(t, `
		CREATE TABLE users (id int PRIMARY KEY, web_hook_url text);
		CREATE TABLE dids (id int PRIMARY KEY, user_id text, number text);
		CREATE TABLE e911 (id int PRIMARY KEY, did_id int, note text);
		INSERT INTO users VALUES (7, '<url>/7');`, ownedCatalog)
	o.setup(t)
	o.run(t)
	o.sql(t, "INSERT INTO dids VALUES (1, ' 07', 'a'), (2, 'acct-7', 'b')", "ALTER TABLE dids ALTER user_id TYPE text USING 'acct-' || user_id", "UPDATE dids SET number = 'c' WHERE id = 1")
	wantExactly(t, o.arrived(t), `7 insert dids {'id':1,'user_id':' 07','number':'a'}`)
	wantExactly(t, o.unrouted(t), "dids insert 2 id_not_comparable", "dids update 1 id_not_comparable")
}

// The owner column becomes another column under its name: whose a record was is
// taken from what was sent, and the old owner is told that it left.
func TestRun_TheOldOwnerLearnsOfARecordWhoseOwnerColumnWasReplaced(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"swapped with another column": "BEGIN; ALTER TABLE dids RENAME user_id TO spare; ALTER TABLE dids RENAME other TO user_id; ALTER TABLE dids RENAME spare TO other; UPDATE dids SET number = '2'; COMMIT",
		"written again by USING":      "ALTER TABLE dids ALTER user_id TYPE int USING 8; UPDATE dids SET number = '2'",
		"retyped with other ids":      "BEGIN; ALTER TABLE dids ALTER user_id TYPE bigint USING 8; UPDATE dids SET number = '2'; COMMIT",
		"dropped and added":           "BEGIN; ALTER TABLE dids DROP user_id; ALTER TABLE dids ADD user_id int DEFAULT 8; UPDATE dids SET number = '2'; COMMIT",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOwned(t, strings.Replace(ownedTables, "number text", "number text, other int DEFAULT 8", 1), ownedCatalog)
			o.setup(t)
			o.run(t)
			o.sql(t, "INSERT INTO dids VALUES (1, 7, '1')")
			o.arrived(t)
			o.sql(t, change, "UPDATE dids SET number = '3'", "DELETE FROM dids")
			wantExactly(t, o.arrived(t), "7 delete dids {'id':1}", "7 insert dids {'id':1,'user_id':7,'number':'1'}",
				"8 delete dids {'id':1,'user_id':8,'number':'3'}", "8 insert dids {'id':1,'user_id':8,'number':'2'}", "8 update dids {'id':1,'user_id':8,'number':'3'}")
		})
	}
}

// What happens to a table while it has another name is listed.
func TestRun_ListsTheChangesOfATableThatHasAnotherNameForAWhile(t *testing.T) {
	t.Parallel()
	o := newOwned(t, ownedTables, ownedCatalog)
	o.setup(t)
	o.run(t)
	o.sql(t, "INSERT INTO dids VALUES (1, 7, '1')")
	o.arrived(t)
	o.sql(t, "ALTER TABLE dids RENAME TO numbers", "UPDATE numbers SET number = '2'", "ALTER TABLE numbers RENAME TO dids", "UPDATE dids SET number = '3'")
	wantExactly(t, o.arrived(t), "7 insert dids {'id':1,'user_id':7,'number':'1'}", "7 update dids {'id':1,'user_id':7,'number':'3'}")
	wantExactly(t, o.unrouted(t), "numbers update  table_unknown")
}

// Whose a record is by then is not known, nor whose its children are: what is
// another account's by now must not go to the one before.
func TestRun_ForgetsWhoseTheRecordsOfARenamedTableAre(t *testing.T) {
	t.Parallel()
	o := newOwned(t, ownedTables, ownedCatalog)
	o.setup(t)
	o.run(t)
	o.sql(t, "INSERT INTO dids VALUES (1, 7, '1'), (2, 7, '2')", "INSERT INTO e911 VALUES (1, 1, 'a'), (2, 2, 'b')")
	o.arrived(t)
	o.sql(t, "ALTER TABLE dids RENAME TO numbers", "UPDATE numbers SET user_id = 8 WHERE id = 1",
		"UPDATE e911 SET note = 'a secret of 8' WHERE id = 1", "UPDATE e911 SET note = 'c' WHERE id = 2",
		"ALTER TABLE numbers RENAME TO dids", "UPDATE dids SET number = '3' WHERE id = 1")
	wantExactly(t, o.arrived(t), "7 delete dids {'id':1}", "7 insert dids {'id':1,'user_id':7,'number':'1'}", "7 insert dids {'id':2,'user_id':7,'number':'2'}",
		"7 insert e911 {'id':1,'did_id':1,'note':'a'}", "7 insert e911 {'id':2,'did_id':2,'note':'b'}",
		"7 update e911 {'id':2,'did_id':2,'note':'c'}", "8 insert dids {'id':1,'user_id':8,'number':'3'}")
	wantExactly(t, o.unrouted(t), "numbers update  table_unknown", "e911 update 1 owner_unknown")
}
