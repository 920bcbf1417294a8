package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"walhook/internal/pgtest"
	"walhook/schemas/catalog"
)

// draftWorld is a database after the structure of a public schema
// (testdata/draft/NAME.sql), whose draft is testdata/draft/NAME.yaml. docs/CATALOG.md
// lists what a person has to change in it.
type draftWorld struct {
	name    string
	account string   // "" is guessed
	never   []string // what must not be among the fields
}

var draftWorlds = []draftWorld{
	{name: "kamailio", never: []string{"password", "ha1", "ha1b", "auth_password", "auth_ha1"}},
	{name: "fusionpbx", never: []string{"password", "voicemail_password", "api_key", "salt", "user_totp_secret", "fax_pin_number", "pin_number", "device_password"}},
	{name: "asterisk", account: "tenants", never: []string{"password", "md5_cred", "secret", "md5secret", "remotesecret", "oauth_secret", "refresh_token"}},
	{name: "a2billing", never: []string{"uipass", "loginkey", "lock_pin", "secret", "md5secret", "cc_number", "cvv", "usedcardnumber", "passwd"}},
	{name: "webshop", never: []string{"password_hash", "card_number", "session_token", "api_key", "date_of_birth"}},
}

// draftOf is the draft of a world, whose account table has got the column that the
// draft asked for.
func draftOf(t *testing.T, w draftWorld, db *pgtest.DB) (path, text string) {
	t.Helper()
	tables, err := os.ReadFile(filepath.Join("testdata", "draft", w.name+".sql"))
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, string(tables))
	path = filepath.Join(t.TempDir(), "catalog.yaml")
	args := []string{"catalog", "draft", "--source", db.URL, "--output", path}
	if w.account != "" {
		args = append(args, "--account", w.account)
	}
	if out, err := walhook(t, args...); err != nil {
		t.Fatalf("%s: %v %s", w.name, err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text = string(content); strings.Contains(text, "ALTER TABLE") {
		unfolded := strings.ReplaceAll(text, "\n  # ", " ")
		statement := unfolded[strings.Index(unfolded, "ALTER TABLE"):]
		statement, _, _ = strings.Cut(statement, "\n")
		db.Exec(t, statement)
	}
	return path, text
}

func TestCatalogDraft_OfFiveSchemasIsRight(t *testing.T) {
	t.Parallel()
	for _, w := range draftWorlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			path, text := draftOf(t, w, db)
			golden := filepath.Join("testdata", "draft", w.name+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(golden); err != nil || string(want) != text {
				t.Errorf("%s differs (%v): go test -run %s -update writes what is there now", golden, err, strings.SplitN(t.Name(), "/", 2)[0])
			}
			c, err := catalog.Parse([]byte(text))
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			for _, s := range c.Schemas {
				for _, f := range s.Fields {
					if slices.Contains(w.never, f.Column) {
						t.Errorf("%s sends %s", s.Name, f.Column)
					}
				}
			}
			if out, err := walhook(t, "catalog", "check", path, "--source", db.URL); err != nil || strings.Contains(out, "warning") {
				t.Errorf("check: %v\n%s", err, out)
			}
			// The column of the URL, if a statement of the draft added it, is new.
			if out, err := walhook(t, "catalog", "draft", "--source", db.URL, "--update", path, "--write"); err != nil {
				t.Errorf("update: %v\n%s", err, out)
			}
			updated, err := os.ReadFile(path)
			if err != nil || !strings.Contains(text, "ADD COLUMN") && string(updated) != text {
				t.Errorf("an update of the same tables (%v):\n%s", err, updated)
			}
			if out, err := walhook(t, "catalog", "draft", "--source", db.URL, "--update", path); err != nil || out != path+" is up to date\n"+string(updated) {
				t.Errorf("a second update: %v\n%s", err, out)
			}
			if out, err := walhook(t, "catalog", "check", path, "--source", db.URL); err != nil || strings.Contains(out, "warning") {
				t.Errorf("check after the update: %v\n%s", err, out)
			}
			args := []string{"catalog", "draft", "--source", db.URL}
			if w.account != "" {
				args = append(args, "--account", w.account)
			}
			first, _ := walhook(t, args...)
			db.Exec(t, "ANALYZE")
			if again, err := walhook(t, args...); err != nil || again != first {
				t.Errorf("a second draft differs: %v", err)
			}
			if _, err := walhook(t, "catalog", "draft", "--source", db.URL, "--output", path); exitStatus(t.Context(), err) != exitUsage && w.account == "" {
				t.Errorf("a file is replaced: %v", err)
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

func TestCatalogDraft_SaysWhatItCannotDo(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, "CREATE TABLE things (id int PRIMARY KEY); CREATE TABLE customer (id int PRIMARY KEY); CREATE TABLE nokey (a int)")
	for _, test := range []struct {
		args []string
		want string
		exit int
	}{
		{[]string{"--source", db.URL, "--account", "customers"}, "did you mean public.customer?", exitFault},
		{[]string{"--source", db.URL, "--account", "nokey"}, "neither a primary key", exitFault},
		{[]string{"--source", db.URL, "--account", `a"`}, "--account", exitUsage},
		{nil, "source is missing", exitUsage},
		{[]string{"--source", db.URL, "--output", "/does/not/exist/c.yaml"}, "--output", exitUsage},
	} {
		_, err := walhook(t, append([]string{"catalog", "draft"}, test.args...)...)
		if err == nil || !strings.Contains(err.Error(), test.want) || exitStatus(t.Context(), err) != test.exit {
			t.Errorf("%v: %v, want %s", test.args, err, test.want)
		}
	}
	empty := pgtest.Database(t)
	if _, err := walhook(t, "catalog", "draft", "--source", empty.URL); err == nil || !strings.Contains(err.Error(), "name it with --account") {
		t.Errorf("an empty database: %v", err)
	}
}
