package main

import (
	"slices"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// Tables and columns get other names in the gap, and the given catalog follows them: all that
// changed is told, also moves, and nothing that did not change.
func TestGap_FollowsWhatWasRenamedInIt(t *testing.T) {
	t.Parallel()
	w := newCatalogWorld(t)
	w.loseSlot(t)
	told := w.changeAll(t)
	w.exec(t, "UPDATE items SET user_id = 8 WHERE id = 4", "UPDATE notes SET note = 'gap' WHERE id = 'n4'", "UPDATE users SET name = 'gap' WHERE id = 7", "UPDATE codes SET user_id = 8 WHERE number = 4",
		"ALTER TABLE items RENAME user_id TO acct", "ALTER TABLE items RENAME TO wares", "ALTER TABLE notes RENAME item_id TO ware", "ALTER TABLE notes RENAME id TO code",
		"ALTER TABLE codes RENAME number TO num", "ALTER TABLE files RENAME TO papers", "ALTER TABLE files_0 RENAME TO papers_0", "ALTER TABLE users RENAME web_hook_url TO hook_url", "ALTER TABLE users RENAME reseller_id TO above")
	w.cfg.Catalog = w.catalog(t, replaced(t,
		"web_hook_url", "hook_url", "reseller_id", "above",
		"{table: public.items, owner: user_id, fields: [id, user_id, name]}", "{table: public.wares, owner: acct, fields: {id: id, user_id: acct, name: name}}",
		"{column: item_id, schema: items}, fields: [id, item_id, note]}", "{column: ware, schema: items}, fields: {id: code, item_id: ware, note: note}}",
		"key: [country, number]", "key: [country, num]", "[country, number, note]", "{country: country, number: num, note: note}",
		"public.files", "public.papers"))
	w.setup(t, source.Reconcile)
	told = append(told,
		`7 delete items {"id":4}`, `8 insert items {"id":4,"user_id":8,"name":"x"}`,
		`7 delete notes {"id":"n4"}`, `8 insert notes {"id":"n4","item_id":4,"note":"gap"}`,
		`7 delete codes {"country":"c4  ","number":4.00}`, `8 insert codes {"country":"c4  ","number":4.00,"note":"x"}`,
		`7 update users {"id":7,"name":"gap","hook_url":"https://example.com/7"}`)
	wantTold(t, w.told(t), told...)
	if !w.inForce(t) {
		t.Error("the given catalog is not in force")
	}

	// What moved belongs to the new account from then on.
	before := len(w.events(t))
	w.exec(t, "UPDATE wares SET name = 'after' WHERE id = 4", "UPDATE notes SET note = 'after' WHERE code IN ('n4', 'n5')", "UPDATE codes SET note = 'after' WHERE num = 4", "DELETE FROM papers")
	w.read(t, false)
	var after []string
	for _, e := range w.events(t)[before:] {
		if e.schema != "files" {
			after = append(after, e.String())
		}
	}
	wantTold(t, after, `8 update items {"id":4,"user_id":8,"name":"after"}`, `8 update notes {"id":"n4","item_id":4,"note":"after"}`,
		`7 update notes {"id":"n5","item_id":5,"note":"after"}`, `8 update codes {"country":"c4  ","number":4.00,"note":"after"}`)
}

// The column of parent accounts has another name: webhooks above get what changed in the gap.
func TestGap_FollowsTheColumnOfParents(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (8, 'eight', NULL, NULL), (7, 'seven', NULL, 8);
		INSERT INTO items VALUES (1, 7, 'x')`)
	if _, err := w.box.Exec(t.Context(), `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, hook, include_subaccounts, schemas)
		VALUES ('8', 'hook', 'https://example.com/hook', 'active', 'whsec_b2xk', 'records', true, '{items}')`); err != nil {
		t.Fatal(err)
	}
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, "UPDATE items SET name = 'gap' WHERE id = 1", "INSERT INTO users VALUES (9, 'nine', NULL, 8)", "INSERT INTO items VALUES (2, 9, 'gap')", "ALTER TABLE users RENAME reseller_id TO above")
	w.cfg.Catalog = w.catalog(t, replaced(t, "reseller_id", "above"))
	w.setup(t, source.Reconcile)
	var told []string
	for _, line := range w.told(t) {
		if strings.Contains(line, " items ") {
			told = append(told, line)
		}
	}
	wantTold(t, told, `8/hook update items {"id":1,"user_id":7,"name":"gap"}`, `8/hook insert items {"id":2,"user_id":9,"name":"gap"}`)
}

// A schema's table under a new name is the same table, by its OID, or another one, whose rows
// say by their age nothing of the gap.
func TestGap_ANewNameOfATableOrAnotherTable(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change string
		told   []string
	}{
		"the same table":                      {"ALTER TABLE items RENAME TO wares", nil},
		"another one":                         {"ALTER TABLE other RENAME TO wares", []string{"delete items:3", "insert items:4", "update items:1", "update items:2"}},
		"another one, the former is gone":     {"DROP TABLE items; ALTER TABLE other RENAME TO wares", []string{"delete items:3", "insert items:4", "update items:1", "update items:2"}},
		"another one, by the name of a third": {"DROP TABLE items", []string{"delete items:3", "insert items:4", "update items:1", "update items:2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newGapWorld(t, pgtest.Database(t), `
				INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
				INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 3) n;
				CREATE TABLE other (LIKE items INCLUDING ALL);
				INSERT INTO other VALUES (1, 7, 'other'), (2, 7, 'x'), (4, 7, 'other')`)
			w.read(t, true)
			w.loseSlot(t)
			w.exec(t, test.change)
			table := "public.wares"
			if name == "another one, by the name of a third" {
				table = "public.other"
			}
			if name == "another one" { // the former table stays, so it counts until the file does
				w.exec(t, "ALTER TABLE items RENAME TO former")
			}
			w.cfg.Catalog = w.catalog(t, replaced(t, "public.items", table))
			w.setup(t, source.Reconcile)
			var told []string
			for _, e := range w.events(t) {
				told = append(told, e.kind+" "+e.record)
			}
			slices.Sort(told)
			if !slices.Equal(told, test.told) {
				t.Errorf("told\n%q, want\n%q", told, test.told)
			}
		})
	}
}

// A file that names a column of accounts that is gone is refused before a slot is made.
func TestGap_RefusesAFileThatNamesAccountsWrongly(t *testing.T) {
	t.Parallel()
	w := newCatalogWorld(t)
	w.loseSlot(t)
	w.exec(t, "ALTER TABLE users RENAME web_hook_url TO hook_url")
	err := w.trySetup(t.Context(), t, source.Reconcile)
	if err == nil || !strings.Contains(err.Error(), "has no column web_hook_url, which the catalog names") || !strings.Contains(err.Error(), "catalog check") {
		t.Fatalf("setup says %v", err)
	}
	if slots := w.text(t, w.conn, "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot); slots != "0" {
		t.Errorf("%s slots are left", slots)
	}
	w.cfg.Catalog = w.catalog(t, replaced(t, "web_hook_url", "hook_url"))
	w.setup(t, source.Reconcile)
}
