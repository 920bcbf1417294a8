package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walhook/internal/pgtest"
)

// TestCatalogDraft_UpdateKeepsWhatPeopleChanged goes through a year of a catalog file:
// drafted, changed by hand, and brought up to date with a database that has changed.
func TestCatalogDraft_UpdateKeepsWhatPeopleChanged(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, `
CREATE TABLE customer (id uuid PRIMARY KEY, name text, webhook_url text);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id uuid NOT NULL REFERENCES customer, total numeric, internal_note text, card_number text);
CREATE TABLE order_line (id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders, item text);
CREATE TABLE visit (id bigint PRIMARY KEY, customer_id uuid NOT NULL REFERENCES customer, page text)`)
	path := filepath.Join(t.TempDir(), "catalog.yaml")
	draft := func(args ...string) string {
		t.Helper()
		out, err := walhook(t, append([]string{"catalog", "draft", "--source", db.URL}, args...)...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	read := func() string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	draft("--output", path)
	if out := draft("--update", path, "--write"); read()+path+" is up to date\n" != read()+out {
		t.Errorf("of the same tables: %s", out)
	}
	text := read()
	for _, edit := range [][2]string{
		{"  order_line:", "  # one article of an order\n  line:"},
		{", internal_note", ""},
		{"    fields: [id, customer_id, total]", "    fields: {id: id, sum: total}"},
		{"  visit:\n    table: public.visit\n    owner: customer_id\n    fields: [id, customer_id, page]\n", ""},
		{"\n# What the draft", "derive:\n  - hook: paid # to billing\n    schema: orders\n    when: {paid: {rises: total}}\n    fields: {id: {column: id}}\n\n# What the draft"},
	} {
		if !strings.Contains(text, edit[0]) {
			t.Fatalf("no %q in\n%s", edit[0], text)
		}
		text = strings.Replace(text, edit[0], edit[1], 1)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if out := draft("--update", path); !strings.HasPrefix(strings.TrimPrefix(out, path+" is up to date\n"), text) {
		t.Errorf("a person's changes alone:\n%s", out)
	}
	db.Exec(t, `
ALTER TABLE orders ADD COLUMN state text, ADD COLUMN api_token text;
ALTER TABLE order_line DROP COLUMN item, ADD COLUMN product text;
CREATE TABLE invoice (id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders, number text)`)
	printed := draft("--update", path)
	if read() != text {
		t.Fatal("without --write the file has changed")
	}
	said := draft("--update", path, "--write")
	got := read()
	if printed != said+got {
		t.Errorf("--write wrote another file than was printed:\n%s\nand\n%s%s", printed, said, got)
	}
	for _, want := range []string{
		"  # one article of an order\n  line:\n",
		"    # New, and left out, since they look secret: api_token\n    # New: state\n    fields: {id: id, sum: total, state: state}\n",
		"    # Left out, since table public.order_line has no such column: item\n    # New: product\n    fields: [id, order_id, product]\n",
		"  # New: table public.invoice.\n  invoice:\n    table: public.invoice\n    owner: {column: order_id, schema: orders}\n    fields: [id, order_id, number]\nderive:\n  - hook: paid # to billing\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks\n%s", want)
		}
	}
	for _, never := range []string{"  visit:", "[internal_note", " internal_note: internal_note"} {
		if strings.Contains(got, never) {
			t.Errorf("has %s", never)
		}
	}
	for _, note := range []string{": schema invoice is new\n", ": schema line: item is left out: table public.order_line has no such column\n", ": schema orders: column api_token is new, and left out\n"} {
		if !strings.Contains(said, path+note) {
			t.Errorf("does not say %s, but %s", note, said)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != fs.FileMode(0o640) {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if out, err := walhook(t, "catalog", "check", path, "--source", db.URL); err != nil || strings.Contains(out, "warning") {
		t.Errorf("check: %v\n%s", err, out)
	}
	if out := draft("--update", path, "--write"); out != path+" is up to date\n" || read() != got {
		t.Errorf("again: %s", out)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestWriteCatalog_KeepsEachByteInAFile: what somebody redirects is their file.
func TestWriteCatalog_KeepsEachByteInAFile(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"CRLF": "a: 1\r\n# b\r\n", "CR alone, a bell and a mark of order": "\ufeffa: 1 # x\ry\a\n"} {
		file, err := os.CreateTemp(t.TempDir(), "out")
		if err != nil {
			t.Fatal(err)
		}
		if err := writeCatalog(newTerminal(file), []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file.Name()); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestCatalogDraft_UpdateRefusesWhatItWouldSpoil(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, "CREATE TABLE customer (id int PRIMARY KEY, webhook_url text)")
	dir := t.TempDir()
	faulty := filepath.Join(dir, "faulty.yaml")
	if err := os.WriteFile(faulty, []byte("account: {tabel: customer}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"--write", "--write is for --update"},
		{"--update " + faulty + " --write --output x", "use one of them"},
		{"--update " + faulty + " --account customer", "--account is for a new draft"},
		{"--update " + faulty + " --write", "did you mean table?"},
		{"--update " + filepath.Join(dir, "none.yaml"), "no such file"},
	} {
		_, err := walhook(t, append([]string{"catalog", "draft", "--source", db.URL}, strings.Fields(test.args)...)...)
		if err == nil || !strings.Contains(err.Error(), test.want) || exitStatus(t.Context(), err) != exitUsage {
			t.Errorf("%s: %v, want %s", test.args, err, test.want)
		}
	}
	if text, err := os.ReadFile(faulty); err != nil || string(text) != "account: {tabel: customer}\n" {
		t.Errorf("the file has changed: %s", text)
	}
	if err := replaceFile(faulty, []byte("something else"), []byte("new")); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("a file that somebody else changed: %v", err)
	}
}
