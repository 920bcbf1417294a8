package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"walhook/internal/pgtest"
)

const formerShop = `
account: {table: public.account, id: id, url: url}
schemas:
  items: {table: public.item, owner: account, fields: [id, account, n]}
  notes: {table: public.note, owner: account, fields: [id]}
`

const changedShop = `
account: {table: public.account, id: id, url: url}
schemas:
  items: {table: public.item, owner: account, fields: [id, n, note]}
  parts: {table: public.part, owner: {column: item, schema: items}, fields: [id, item, n]}
`

func catalogFiles(t *testing.T) (former, changed string) {
	t.Helper()
	former, changed = filepath.Join(t.TempDir(), "former.yaml"), filepath.Join(t.TempDir(), "changed.yaml")
	for name, text := range map[string]string{former: formerShop, changed: changedShop} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return former, changed
}

func TestCatalogDiff_SaysWhatAChangedFileMeans(t *testing.T) {
	t.Parallel()
	former, changed := catalogFiles(t)
	db := pgtest.Database(t)
	db.Exec(t, `CREATE TABLE account (id int PRIMARY KEY, url text); CREATE TABLE item (id int PRIMARY KEY, account int, n int, note text);
		CREATE TABLE part (id int PRIMARY KEY, item int, n int); CREATE TABLE note (id int PRIMARY KEY, account int);
		INSERT INTO part VALUES (1), (2), (3)`)
	db.Exec(t, "ANALYZE part")
	out, err := walhook(t, "catalog", "diff", changed, "--from", former, "--source", db.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"~ schema items changes: gains field note; loses field account\n",
		"+ schema parts begins: of table public.part, owned through column item by a record of items; fields id, item, n\n",
		"- schema notes ends: changes of table public.note are no longer sent under this name\n",
		"keys and owners of parts, from table public.part: about 3 rows\n",
		"ALTER TABLE public.part REPLICA IDENTITY FULL;\n",
		"CREATE PUBLICATION walhook FOR TABLE public.account, public.item, public.part",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from\n%s", want, out)
		}
	}
	out, err = walhook(t, "catalog", "diff", changed, "--from", former, "--json")
	var d catalogDifference
	if err != nil || json.Unmarshal([]byte(out), &d) != nil {
		t.Fatalf("%v: %s", err, out)
	}
	reads := func(schema string) bool {
		return slices.ContainsFunc(d.Reads, func(r catalogRead) bool { return r.Schema == schema && r.Rows == nil })
	}
	if d.Same || len(d.Changes) != 3 || !reads("parts") || d.Statements != nil {
		t.Errorf("%+v", d)
	}
}

func TestCatalogDiff_NamesWhatTheSourceDoesNotHave(t *testing.T) {
	t.Parallel()
	former, changed := catalogFiles(t)
	db := pgtest.Database(t)
	db.Exec(t, `CREATE TABLE account (id int PRIMARY KEY, url text); CREATE TABLE item (id int PRIMARY KEY, account int, n int);
		CREATE TABLE part (id int PRIMARY KEY, item int, n int); ALTER TABLE part REPLICA IDENTITY FULL; ALTER TABLE item REPLICA IDENTITY FULL;
		CREATE PUBLICATION walhook FOR TABLE account, item, part`)
	args := []string{"catalog", "diff", changed, "--from", former, "--source", db.URL}
	out, err := walhook(t, args...)
	if err != nil || !strings.Contains(out, "table public.item has no column note") || strings.Contains(out, "has all that") {
		t.Errorf("%v\n%s", err, out)
	}
	var d catalogDifference
	if out, err = walhook(t, append(args, "--json")...); err != nil || json.Unmarshal([]byte(out), &d) != nil || len(d.Lacks) != 1 || !strings.HasPrefix(d.Lacks[0].Path, "schemas.items.fields") {
		t.Errorf("%v: %s", err, out)
	}
	db.Exec(t, "ALTER TABLE item ADD COLUMN note text")
	if out, err = walhook(t, args...); err != nil || strings.Contains(out, "does not have") {
		t.Errorf("with the column: %v\n%s", err, out)
	}
}

func TestCatalogDiff_ComparesWithTheCatalogInForce(t *testing.T) {
	t.Parallel()
	former, changed := catalogFiles(t)
	db := pgtest.Database(t)
	db.Exec(t, `CREATE TABLE account (id int PRIMARY KEY, url text); CREATE TABLE item (id int PRIMARY KEY, account int, n int, note text);
		CREATE TABLE part (id int PRIMARY KEY, item int, n int); CREATE TABLE note (id int PRIMARY KEY, account int)`)
	settings := []string{"--source", db.URL, "--slot", "diff_" + db.Name}
	if _, err := walhook(t, "catalog", "diff", changed, "--source", db.URL); err == nil || !strings.Contains(err.Error(), "setup") {
		t.Errorf("before setup: %v", err)
	}
	for _, file := range []string{former, changed} {
		if out, err := walhook(t, append([]string{"setup", "--catalog", file}, settings...)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err := walhook(t, "catalog", "diff", file, "--source", db.URL)
		if err != nil || !strings.Contains(out, "nothing changes") {
			t.Errorf("%v\n%s", err, out)
		}
	}
	out, err := walhook(t, "catalog", "diff", former, "--source", db.URL)
	if err != nil || !strings.Contains(out, "+ schema notes begins") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A file that comes while walhook is stopped by a gap is not put in force without one, and
// what the source has no more as the catalog in force says is not told by that.
func TestCatalogDiff_SaysWhatBecomesOfAGap(t *testing.T) {
	t.Parallel()
	former, _ := catalogFiles(t)
	renamed := filepath.Join(t.TempDir(), "renamed.yaml")
	if err := os.WriteFile(renamed, []byte("account: {table: public.account, id: id, url: url}\nschemas: {items: {table: public.ware, owner: account, fields: [id, account, n]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db := pgtest.Database(t)
	db.Exec(t, `CREATE TABLE account (id int PRIMARY KEY, url text); CREATE TABLE item (id int PRIMARY KEY, account int, n int, note text);
		CREATE TABLE note (id int PRIMARY KEY, account int)`)
	slot := "diff_gap_" + db.Name
	if out, err := walhook(t, "setup", "--catalog", former, "--source", db.URL, "--slot", slot); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	db.Exec(t, "ALTER TABLE item RENAME TO ware")
	db.Exec(t, "DROP TABLE note")
	out, err := walhook(t, "catalog", "diff", renamed, "--source", db.URL)
	if err != nil || !strings.Contains(out, "in force, without a gap") || strings.Contains(out, "stopped") {
		t.Errorf("before it: %v\n%s", err, out)
	}
	db.Exec(t, "SELECT pg_drop_replication_slot('"+slot+"')")
	out, err = walhook(t, "catalog", "diff", renamed, "--source", db.URL)
	if err != nil || strings.Contains(out, "without a gap") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"no more what that says: items.", "have them any more: notes.", "--accept-gap' puts the file in force, after that."} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from\n%s", want, out)
		}
	}
	if out, err := walhook(t, "setup", "--accept-gap", "--catalog", renamed, "--source", db.URL, "--slot", slot); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	note := ""
	if err := db.Connect(t).QueryRow(t.Context(), "SELECT note FROM walhook.gap").Scan(&note); err != nil || !strings.Contains(note, "former one says: items; what changed in the gap is missed of notes,") {
		t.Errorf("%v: the note is %q", err, note)
	}
}
