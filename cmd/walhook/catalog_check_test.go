package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"walhook/internal/pgtest"
	"walhook/schemas/catalog"
)

const voipTables = `
CREATE SCHEMA voip;
CREATE TABLE voip.customer (id uuid PRIMARY KEY, name text, hook_url text, parent uuid REFERENCES voip.customer, plan text, span interval);
CREATE TABLE voip.number (id uuid PRIMARY KEY, customer_id uuid REFERENCES voip.customer, digits text, label text GENERATED ALWAYS AS (upper(digits)) STORED);
CREATE TABLE voip.forward (id int PRIMARY KEY, number_id uuid REFERENCES voip.number, target text);
CREATE TABLE voip.tag (name text NOT NULL UNIQUE, customer_id uuid, n int);
CREATE TABLE voip.log (line text, customer_id uuid);
CREATE TABLE voip.pair (a int, b int, customer_id uuid, PRIMARY KEY (a, b));
CREATE TABLE voip.child (id int PRIMARY KEY, pair_id int);
CREATE UNLOGGED TABLE voip.scratch (id int PRIMARY KEY, customer_id uuid);
CREATE VIEW voip.active AS SELECT * FROM voip.number;
CREATE TABLE voip.event (id int PRIMARY KEY, account_id uuid, hook text);
`

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkCatalog is what catalog check says of a file, without its name, and the exit
// status.
func checkCatalog(t *testing.T, text string, flags ...string) (lines []string, status int) {
	t.Helper()
	path := writeFile(t, "catalog.yaml", text)
	out, err := walhook(t, append([]string{"catalog", "check", path}, flags...)...)
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimPrefix(strings.TrimSuffix(line, "\n"), path+":"))
	}
	return lines, exitStatus(t.Context(), err)
}

func TestCatalogCheck_ComparesTheFileWithTheSource(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, voipTables)
	const account = "account: {table: voip.customer, id: id, url: hook_url}\nschemas:\n"
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", account + "  numbers: {table: voip.number, owner: customer_id, fields: [id, digits]}\n  forwards: {table: voip.forward, owner: {column: number_id, schema: numbers}, fields: [id, target]}", nil},
		{"the account table misspelt", "account: {table: voip.customers, id: id, url: hook_url}\nschemas: {}", []string{
			"1:11: account.table: table voip.customers does not exist in the source; did you mean voip.customer?"}},
		{"in another schema of the database", "account: {table: customer, id: id, url: hook_url}\nschemas: {}", []string{
			"1:11: account.table: table public.customer does not exist in the source; did you mean voip.customer?"}},
		{"no such schema of the database", "account: {table: crm.accounts, id: id, url: hook_url}\nschemas: {}", []string{
			"1:11: account.table: table crm.accounts does not exist in the source; the source has no schema crm with tables; its tables are in voip"}},
		{"the brand's columns", "account: {table: voip.customer, id: id, url: hook_url, brand: {name: name, accent: colour, support: Plan}}\nschemas: {}", []string{
			"1:76: account.brand.accent: table voip.customer has no column colour; it has id, name, hook_url, parent, plan, span",
			"1:92: account.brand.support: table voip.customer has no column Plan; did you mean plan?"}},
		{"a generated column of the brand", "account: {table: voip.number, id: id, url: digits, brand: {name: label}}\nschemas: {}", []string{
			"1:60: warning: account.brand.name: column label of table voip.number is generated, and the server does not send such columns: the portal does not show it; name a column that it is computed from"}},
		{"the account's columns", "account: {table: voip.customer, id: uid, url: hookurl, parent: parent_id, secret: secret}\nschemas: {}", []string{
			"1:33: account.id: table voip.customer has no column uid; did you mean id?",
			"1:42: account.url: table voip.customer has no column hookurl; did you mean hook_url?",
			"1:56: account.parent: table voip.customer has no column parent_id; did you mean parent?",
			"1:75: account.secret: table voip.customer has no column secret; it has id, name, hook_url, parent, plan, span"}},
		{"an id that does not tell", "account: {table: voip.customer, id: span, url: hook_url}\nschemas: {}", []string{
			"1:33: account.id: column span of table voip.customer is of type interval, in which different texts are the same value: walhook cannot know the owner of a row; name another column",
			"1:33: warning: account.id: no primary key or unique index keeps two rows of voip.customer from the same span; name the column that each account has for itself"}},
		{"a view", account + "  a: {table: voip.active, owner: customer_id, fields: [id]}", []string{
			"3:7: schemas.a.table: voip.active is a view, whose rows are not in the WAL; name the tables that it is made from"}},
		{"fields and owner", account + "  a: {table: voip.number, owner: customer, fields: {id: id, n: digit}}\n  b: {table: voip.forward, owner: {column: number, schema: a}, fields: [id, targt]}", []string{
			"3:27: schemas.a.owner: table voip.number has no column customer; did you mean customer_id?",
			"3:61: schemas.a.fields.n: table voip.number has no column digit; did you mean digits?",
			"4:36: schemas.b.owner.column: table voip.forward has no column number; did you mean number_id?",
			"4:77: schemas.b.fields[1]: table voip.forward has no column targt; did you mean target?"}},
		{"keys", account + "  tags: {table: voip.tag, owner: customer_id, fields: [name]}\n  log: {table: voip.log, owner: customer_id, fields: [line]}\n" +
			"  n: {table: voip.number, key: [nr, digits], owner: customer_id, fields: [id]}", []string{
			"3:3: schemas.tags.key: table voip.tag has no primary key, so that nothing tells its records apart; key: [name]",
			"4:3: schemas.log.key: table voip.log has no primary key, so that nothing tells its records apart; name with key the columns that tell its rows apart",
			"5:33: schemas.n.key[0]: table voip.number has no column nr; it has id, customer_id, digits, label"}},
		{"a key that is not unique", account + "  tags: {table: voip.tag, key: [n], owner: customer_id, fields: [name]}", []string{
			"3:27: warning: schemas.tags.key: no primary key or unique index keeps two rows of voip.tag from the same n; name columns that tell every row apart"}},
		{"a parent with a key of two columns", account + "  pairs: {table: voip.pair, owner: customer_id, fields: [a, b]}\n  children: {table: voip.child, owner: {column: pair_id, schema: pairs}, fields: [id]}", []string{
			"4:58: schemas.children.owner.schema: table voip.pair of schema pairs has a primary key of several columns, which one column cannot refer to; give schema pairs a key of one column, or name another parent"}},
		{"an owner that is none", account + "  numbers: {table: voip.number, owner: customer_id, fields: [id]}\n  f: {table: voip.forward, owner: number_id, fields: [id]}\n  c: {table: voip.child, owner: pair_id, fields: [id]}", []string{
			"4:28: warning: schemas.f.owner: column number_id of table voip.forward refers to voip.number, and not to voip.customer, the account table; owner: {column: number_id, schema: numbers}",
			"5:26: warning: schemas.c.owner: column pair_id of table voip.child is integer, and id of voip.customer is uuid: the two are never the same; name another column"}},
		{"unlogged", account + "  a: {table: voip.scratch, owner: customer_id, fields: [id]}", []string{
			"3:7: warning: schemas.a.table: table voip.scratch is unlogged: its changes are not in the WAL, so none is sent"}},
		{"results, events and rules", account + "  numbers: {table: voip.number, owner: customer_id, fields: [id]}\nresults: {table: voip.result}\nevents: {table: voip.event}\nderive:\n" +
			"  - {hook: h, schema: numbers, where: {labl: x}, when: {a: {rises: digts}}, fields: {x: {column: digit}, y: {account: plann}, z: {changed: [labels]}}}", []string{
			"4:11: results.table: table voip.result does not exist in the source; correct the name in the file, or remove what names it",
			"5:10: events.table: table voip.event has no column payload; it has id, account_id, hook",
			"7:32: derive[0].where: table voip.number has no column labl; did you mean label?",
			"7:57: derive[0].when.a: table voip.number has no column digts; did you mean digits?",
			"7:86: derive[0].fields.x: table voip.number has no column digit; did you mean digits?",
			"7:106: derive[0].fields.y: table voip.customer has no column plann; did you mean plan?",
			"7:127: derive[0].fields.z: table voip.number has no column labels; did you mean label?"}},
		{"the file's faults too", "account: {table: voip.customers, id: id, url: hook_url}\nschemas:\n  a: {tabel: voip.number, owner: customr_id, fields: [id]}", []string{
			"1:11: account.table: table voip.customers does not exist in the source; did you mean voip.customer?",
			"3:7: schemas.a.tabel: unknown key tabel; did you mean table?"}},
	} {
		lines, status := checkCatalog(t, test.text, "--source", db.URL)
		faulty := exitOK
		var got []string
		for _, line := range lines {
			if !strings.Contains(line, "catalog.yaml is valid: ") {
				got = append(got, line)
				if !strings.Contains(line, ": warning: ") {
					faulty = exitFault
				}
			}
			if strings.Contains(line, "RENAME") {
				t.Errorf("%s: renames a table of the carrier's: %s", test.name, line)
			}
		}
		if strings.Join(got, "\n") != strings.Join(test.want, "\n") || status != faulty {
			t.Errorf("%s: status %d, got\n%s\nwant\n%s", test.name, status, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

func TestCatalogCheck_ReadsWhatIsGivenAndSaysItInJSON(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"carrier", "platform"} {
		if out, err := walhook(t, "catalog", "check", name); err != nil || !strings.HasPrefix(out, name+" is valid: ") {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	path := writeFile(t, "c.yaml", "account: {table: users, id: id, ulr: url}\n")
	for _, args := range [][]string{{path}, {"--catalog", path}, {"--config", writeFile(t, "w.yaml", "catalog: "+path+"\n")}} {
		out, err := walhook(t, append([]string{"catalog", "check", "--json"}, args...)...)
		var said catalogVerdict
		if jsonErr := json.Unmarshal([]byte(out), &said); jsonErr != nil || exitStatus(t.Context(), err) != exitFault {
			t.Fatalf("%v: %v, %v: %s", args, err, jsonErr, out)
		}
		if said.File != path || said.OK || len(said.Faults) != 1 || len(said.Warnings) != 1 || said.Faults[0].Path != "account.ulr" ||
			said.Faults[0].Line != 1 || said.Faults[0].Column != 33 || said.Faults[0].Fix != "did you mean url?" {
			t.Errorf("%v: %+v", args, said)
		}
	}
	for _, args := range [][]string{{"/does/not/exist"}, {path, path}, {path, "--source", "mysql://x"}} {
		if _, err := walhook(t, append([]string{"catalog", "check"}, args...)...); exitStatus(t.Context(), err) != exitUsage {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// What takes a catalog lists the same faults, each once.
func TestCatalogCheck_OtherCommandsListTheSameFaults(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "catalog.yaml", "account: {table: users, id: id, ulr: url}\nschemas:\n  a b: {tabel: t, owner: o, fields: [id]}\n")
	out, _ := walhook(t, "catalog", "check", path)
	for _, command := range []string{"run", "setup", "doctor", "schemas"} {
		args := []string{command, "--catalog", path}
		if command != "schemas" {
			args = append(args, "--source", "postgres://walhook@127.0.0.1:1/x")
		}
		_, err := walhook(t, args...)
		if exitStatus(t.Context(), err) != exitUsage {
			t.Errorf("%s: %v", command, err)
			continue
		}
		for line := range strings.Lines(out) {
			fault := strings.TrimPrefix(strings.TrimSpace(line), path+":")
			if n := strings.Count(err.Error(), fault); n != 1 {
				t.Errorf("%s says %d times %q: %v", command, n, fault, err)
			}
		}
	}
}

// What never ends, or never begins, is refused at once.
func TestCatalogCheck_ReadsNoMoreThanACatalogMayHave(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/dev/zero", "/dev/null", pipe, t.TempDir()} {
		if text, err := readCatalog(name); len(text) > 0 || name != pipe && err == nil {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
	huge := filepath.Join(t.TempDir(), "huge.yaml")
	if err := os.WriteFile(huge, make([]byte, 3*catalog.MaxBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := readCatalog(huge); err != nil || len(text) != catalog.MaxBytes+1 {
		t.Errorf("read %d bytes: %v", len(text), err)
	}
}
