package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// replaced returns gapCatalog with some of its text replaced: pairs of old and new.
func replaced(t *testing.T, pairs ...string) string {
	t.Helper()
	text := gapCatalog
	for pair := range slices.Chunk(pairs, 2) {
		if !strings.Contains(text, pair[0]) {
			t.Fatalf("the catalog lacks %q", pair[0])
		}
		text = strings.ReplaceAll(text, pair[0], pair[1])
	}
	return text
}

// otherParts has another key, another owner (also of what is owned through it), another
// name, a schema less and one more.
func otherParts(t *testing.T) string {
	return replaced(t,
		"key: [country, number]", "key: [number]",
		"items: {table: public.items, owner: user_id, ", "items: {table: public.items, owner: other_id, ",
		"  files: {table: public.files, ", "  papers: {table: public.files, ",
		"  tags: {table: public.tags, owner: {column: note_id, schema: notes}, fields: [id, note_id, tag]}\n", "",
		"results:", "  more: {table: public.more, owner: user_id, fields: [id, user_id]}\nresults:")
}

// newCatalogWorld has records of all schemas. Account 8 is what other_id names.
func newCatalogWorld(t *testing.T) *gapWorld {
	t.Helper()
	w := newGapWorld(t, pgtest.Database(t), `
		ALTER TABLE items ADD other_id int DEFAULT 8;
		CREATE TABLE more (id int PRIMARY KEY, user_id int);
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8');
		INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 5) n;
		INSERT INTO notes SELECT 'n' || n, n, 'x' FROM generate_series(1, 5) n;
		INSERT INTO tags SELECT n, 'n' || n, 'x' FROM generate_series(1, 5) n;
		INSERT INTO codes SELECT 'c' || n, n, 7, 'x' FROM generate_series(1, 5) n;
		INSERT INTO files SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 7, 'x' FROM generate_series(1, 5) n;`)
	w.read(t, true)
	return w
}

// changeAll makes an insert, an update and a delete of each schema, and returns what the
// former catalog makes of them.
func (w *gapWorld) changeAll(t *testing.T) (told []string) {
	t.Helper()
	w.exec(t,
		"DELETE FROM tags WHERE id = 2", "DELETE FROM notes WHERE id = 'n2'", "DELETE FROM items WHERE id = 2",
		"DELETE FROM codes WHERE number = 2", "DELETE FROM files WHERE id = '00000000-0000-0000-0000-000000000002'",
		"UPDATE items SET name = 'gap' WHERE id = 3", "UPDATE notes SET note = 'gap' WHERE id = 'n3'", "UPDATE tags SET tag = 'gap' WHERE id = 3",
		"UPDATE codes SET note = 'gap' WHERE number = 3", "UPDATE files SET name = 'gap' WHERE id = '00000000-0000-0000-0000-000000000003'",
		"INSERT INTO items VALUES (9, 7, 'gap')", "INSERT INTO notes VALUES ('n9', 9, 'gap')", "INSERT INTO tags VALUES (9, 'n9', 'gap')",
		"INSERT INTO codes VALUES ('c9', 9, 7, 'gap')", "INSERT INTO files VALUES ('00000000-0000-0000-0000-000000000009', 7, 'gap')",
		"INSERT INTO more VALUES (1, 7)")
	return []string{
		`7 delete tags {"id":2}`, `7 delete notes {"id":"n2"}`, `7 delete items {"id":2}`,
		`7 delete codes {"country":"c2  ","number":2.00}`, `7 delete files {"id":"00000000-0000-0000-0000-000000000002"}`,
		`7 update items {"id":3,"user_id":7,"name":"gap"}`, `7 update notes {"id":"n3","item_id":3,"note":"gap"}`, `7 update tags {"id":3,"note_id":"n3","tag":"gap"}`,
		`7 update codes {"country":"c3  ","number":3.00,"note":"gap"}`, `7 update files {"id":"00000000-0000-0000-0000-000000000003","user_id":7,"name":"gap"}`,
		`7 insert items {"id":9,"user_id":7,"name":"gap"}`, `7 insert notes {"id":"n9","item_id":9,"note":"gap"}`, `7 insert tags {"id":9,"note_id":"n9","tag":"gap"}`,
		`7 insert codes {"country":"c9  ","number":9.00,"note":"gap"}`, `7 insert files {"id":"00000000-0000-0000-0000-000000000009","user_id":7,"name":"gap"}`,
	}
}

// without leaves out the lines of some schemas.
func without(lines []string, schemas ...string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(schemas, strings.Fields(line)[2]) })
}

// inNewWords replaces text of lines, only of those of one schema where it says " of" which.
func inNewWords(lines []string, pair [2]string) (list []string) {
	text, schema, of := strings.Cut(pair[0], " of ")
	for _, line := range lines {
		if text != "" && (!of || strings.Fields(line)[2] == schema) {
			line = strings.Replace(line, text, pair[1], 1)
		}
		list = append(list, line)
	}
	return list
}

func (w *gapWorld) note(t *testing.T) string {
	t.Helper()
	return w.text(t, w.box, "SELECT note FROM walhook.gap ORDER BY id DESC LIMIT 1")
}

// inForce says whether the catalog of the world is in force, and none is pending.
func (w *gapWorld) inForce(t *testing.T) bool {
	t.Helper()
	store := w.open(t)
	defer store.Close()
	inForce, err := store.CatalogInForce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return inForce.Same(w.cfg.Catalog) && w.text(t, w.box, "SELECT count(*) FROM walhook.catalog WHERE state = 'pending'") == "0"
}

const (
	onlyStates = "states in between, and logical messages, are missed for good"
	lacksCalls = "; the ledger lacks calls: their deletes are missed, and a new record comes as an update"
)

// What changed in the gap is sent by the catalog that was in force, whatever file is given.
// That one comes after it, as any changed catalog.
func TestGap_AnotherCatalogComesAfterIt(t *testing.T) {
	t.Parallel()
	w := newCatalogWorld(t)
	w.loseSlot(t)
	told := w.changeAll(t)
	w.cfg.Catalog = w.catalog(t, otherParts(t))
	w.setup(t, source.Reconcile)
	wantTold(t, w.told(t), told...)
	if note := w.note(t); note != onlyStates+lacksCalls {
		t.Errorf("the note is %q", note)
	}
	if !w.inForce(t) {
		t.Error("the given catalog is not in force")
	}

	before := len(w.events(t))
	w.exec(t, "UPDATE items SET name = 'after' WHERE id = 3", "UPDATE notes SET note = 'after' WHERE id = 'n3'", "UPDATE codes SET note = 'after' WHERE number = 3",
		"UPDATE files SET name = 'after' WHERE id = '00000000-0000-0000-0000-000000000003'", "UPDATE tags SET tag = 'after' WHERE id = 3", "DELETE FROM more")
	w.read(t, false)
	var after []string
	for _, e := range w.events(t)[before:] {
		after = append(after, e.String()+" "+e.record)
	}
	wantTold(t, after,
		`7 delete items {"id":3} items:3`, `8 insert items {"id":3,"user_id":7,"name":"after"} items:3`,
		`7 delete notes {"id":"n3"} notes:n3`, `8 insert notes {"id":"n3","item_id":3,"note":"after"} notes:n3`,
		`7 update codes {"country":"c3  ","number":3.00,"note":"after"} codes:3`,
		`7 update papers {"id":"00000000-0000-0000-0000-000000000003","user_id":7,"name":"after"} papers:00000000-0000-0000-0000-000000000003`,
		`7 delete more {"id":1,"user_id":7} more:1`)
}

// A catalog that was asked for before the slot was lost is still to come.
func TestGap_ACatalogIsPending(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"the pending one", "the former one", "a third one"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			w := newCatalogWorld(t)
			former := w.cfg.Catalog
			store := w.open(t)
			defer store.Close()
			pending := w.catalog(t, otherParts(t))
			if err := store.AskCatalog(t.Context(), pending); err != nil {
				t.Fatal(err)
			}
			w.loseSlot(t)
			told := w.changeAll(t)
			switch w.cfg.Catalog = pending; file {
			case "the former one":
				w.cfg.Catalog = former
			case "a third one":
				w.cfg.Catalog = w.catalog(t, replaced(t, "  files: {", "  papers: {"))
			}
			w.setup(t, source.Reconcile)
			wantTold(t, w.told(t), told...)
			if note := w.note(t); note != onlyStates+lacksCalls {
				t.Errorf("the note is %q", note)
			}
			if !w.inForce(t) {
				t.Error("the given catalog is not in force")
			}
		})
	}
}

// A setup that is interrupted leaves the former catalog in force; the next one, also
// without --accept-gap, goes on with it.
func TestGap_AnotherCatalogAfterAnInterruption(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]source.Over{"setup --accept-gap": source.Reconcile, "setup": source.Refuse} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCatalogWorld(t)
			w.loseSlot(t)
			told := w.changeAll(t)
			w.cfg.Catalog = w.catalog(t, otherParts(t))
			w.box.Exec(t.Context(), "ALTER TABLE walhook.missed RENAME TO lost")
			if err := w.trySetup(t.Context(), t, source.Reconcile); err == nil {
				t.Fatal("setup was not interrupted")
			}
			w.box.Exec(t.Context(), "ALTER TABLE walhook.lost RENAME TO missed")
			w.setup(t, next)
			wantTold(t, w.told(t), told...)
			if !w.inForce(t) {
				t.Error("the given catalog is not in force")
			}
		})
	}
}

// Where the source has no more what the former catalog says of a schema, the given one
// counts for it, if that has the same key. Otherwise nothing of it can be compared. The gap's
// row names both.
func TestGap_TheFormerCatalogCannotBeUsedAnyMore(t *testing.T) {
	t.Parallel()
	const (
		byFile     = "; compared as the new catalog file has them, since the source has no more what the former one says: "
		notAnyMore = ", since the source has no more what the former catalog says, and the new file has none of the same name and key"
	)
	for name, test := range map[string]struct {
		catalog []string
		change  []string
		byFile  []string
		told    [2]string // by the given catalog, in place of the former one's
		lost    []string
	}{
		"a key's column has another name": {
			catalog: []string{"key: [country, number]", "key: [country, num]", "[country, number, note]", "[country, num, note]"},
			change:  []string{"ALTER TABLE codes RENAME number TO num"}, byFile: []string{"codes"}, told: [2]string{`"number"`, `"num"`},
		},
		"a key's column has another name, and the file's key is shorter": {
			catalog: []string{"key: [country, number]", "key: [country]", "[country, number, note]", "[country, num, note]"},
			change:  []string{"ALTER TABLE codes RENAME number TO num"}, lost: []string{"codes"},
		},
		"a key's column has another name, and the file's key is another column": {
			catalog: []string{"key: [country, number]", "key: [country, user_id]", "[country, number, note]", "[country, num, note]"},
			change:  []string{"ALTER TABLE codes RENAME number TO num"}, lost: []string{"codes"},
		},
		"a field's column has another name": {
			catalog: []string{"[country, number, note]", "[country, number, remark]"},
			change:  []string{"ALTER TABLE codes RENAME note TO remark"}, told: [2]string{`,"note":"gap"} of codes`, `,"remark":"gap"}`},
		},
		"a table has another name, and others are owned through it": {
			catalog: []string{"public.notes", "public.remarks"},
			change:  []string{"ALTER TABLE notes RENAME TO remarks"}, byFile: []string{"notes", "tags"},
		},
		"a table has another name, and the file lacks what is owned through it": {
			catalog: []string{"public.notes", "public.remarks", "  tags: {table: public.tags, owner: {column: note_id, schema: notes}, fields: [id, note_id, tag]}\n", ""},
			change:  []string{"ALTER TABLE notes RENAME TO remarks"}, byFile: []string{"notes", "tags"},
		},
		"a table is published no more": {
			catalog: []string{"  tags: {table: public.tags, owner: {column: note_id, schema: notes}, fields: [id, note_id, tag]}\n", ""},
			change:  []string{"ALTER PUBLICATION walhook DROP TABLE tags"}, lost: []string{"tags"},
		},
		"a table is gone": {
			catalog: []string{"  codes: {table: public.codes, key: [country, number], owner: user_id, fields: [country, number, note]}\n", ""},
			change:  []string{"DROP TABLE codes"}, lost: []string{"codes"},
		},
		"the publication is made again": {
			catalog: []string{"  tags: {table: public.tags, owner: {column: note_id, schema: notes}, fields: [id, note_id, tag]}\n", ""},
			change:  []string{"DROP PUBLICATION walhook"}, lost: []string{"tags"},
		},
		"an owner's column is gone": {
			catalog: []string{"files: {table: public.files, owner: user_id, fields: [id, user_id, name]}", "files: {table: public.files, owner: of, fields: [id, of, name]}"},
			change:  []string{"ALTER TABLE files RENAME user_id TO of"}, byFile: []string{"files"}, told: [2]string{`"user_id":7,"name":"gap"} of files`, `"of":7,"name":"gap"}`},
		},
		"the table of accounts has another name": {
			catalog: []string{"public.users", "public.customers"},
			change:  []string{"ALTER TABLE users RENAME TO customers"}, byFile: []string{"calls", "codes", "files", "items", "notes", "tags", "users"},
		},
		"the column of account ids has another name": {
			catalog: []string{"{table: public.users, id: id,", "{table: public.users, id: number,", "owner: id, fields: [id,", "owner: number, fields: [number,"},
			change:  []string{"ALTER TABLE users RENAME id TO number"}, byFile: []string{"calls", "codes", "files", "items", "notes", "tags", "users"},
		},
		"the column of URLs has another name": {
			catalog: []string{"web_hook_url", "hook_url"},
			change:  []string{"ALTER TABLE users RENAME web_hook_url TO hook_url"},
		},
		"the account table is another one": {
			catalog: []string{"public.users, id: id", "public.users, id: code", "owner: id, fields: [id,", "owner: code, fields: [code,"},
			change:  []string{"ALTER TABLE users DROP CONSTRAINT users_pkey, ADD code text; UPDATE users SET code = id; ALTER TABLE users DROP id, ADD PRIMARY KEY (code)"},
			lost:    []string{"calls", "codes", "files", "items", "notes", "tags", "users"},
		},
		"the table of results is gone": {
			catalog: []string{"results: {table: public.async_results}\n", ""},
			change:  []string{"DROP TABLE async_results"}, lost: nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCatalogWorld(t)
			w.loseSlot(t)
			told := w.changeAll(t)
			w.exec(t, test.change...)
			w.cfg.Catalog = w.catalog(t, replaced(t, test.catalog...))
			w.setup(t, source.Reconcile)
			wantTold(t, w.told(t), without(inNewWords(told, test.told), test.lost...)...)
			want := onlyStates
			if !slices.Contains(test.lost, "calls") {
				want += lacksCalls
			}
			if test.byFile != nil {
				want += byFile + strings.Join(test.byFile, ", ")
			}
			if test.lost != nil {
				want += "; what changed in the gap is missed of " + strings.Join(test.lost, ", ") + notAnyMore
			}
			if note := w.note(t); note != want {
				t.Errorf("the note is %q,\nwant %q", note, want)
			}
			if !w.inForce(t) {
				t.Error("the given catalog is not in force")
			}
			w.exec(t, "UPDATE items SET name = 'after' WHERE id = 3", "UPDATE files SET name = 'after' WHERE id = '00000000-0000-0000-0000-000000000003'")
			w.read(t, false)
			records := slices.Sorted(maps.Keys(w.applied(t)["7"]))
			for _, record := range []string{"items:3", "files:00000000-0000-0000-0000-000000000003"} {
				if !slices.Contains(records, record) {
					t.Errorf("the endpoint lacks %s, it has %s", record, records)
				}
			}
		})
	}
}
