package main

import (
	"slices"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// Rows that were written before the gap, into a table that was none of the catalog's, and
// that came to its place in the gap: they changed as far as receivers know.
func TestGap_TellsWhatCameWithAnotherTable(t *testing.T) {
	t.Parallel()
	const rows = `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8');
		INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 6) n;
		INSERT INTO notes SELECT 'n' || n, n, 'x' FROM generate_series(1, 3) n;
		CREATE TABLE other (LIKE items INCLUDING ALL);
		INSERT INTO other VALUES (1, 7, 'other'), (2, 7, 'x'), (3, 8, 'other'), (4, 7, 'other'), (7, 7, 'other');`
	// Of 2 there is no event yet, so that it says nothing new is not known.
	swapped := []string{"delete items:5", "delete items:6", "insert items:3 of 8", "insert items:7", "delete items:3", "update items:1", "update items:2", "update items:4"}
	for _, test := range []struct {
		name    string
		before  string // the gap
		gap     []string
		renamed []string
	}{
		{"by its name", "", []string{"ALTER TABLE items RENAME TO former; ALTER TABLE other RENAME TO items"}, swapped},
		{"by its name, and back to the first", "ALTER TABLE items RENAME TO former; ALTER TABLE other RENAME TO items; ALTER TABLE items REPLICA IDENTITY FULL; ALTER PUBLICATION walhook DROP TABLE former; ALTER PUBLICATION walhook ADD TABLE items; UPDATE items SET name = 'other' WHERE id = 1; UPDATE former SET name = 'meanwhile' WHERE id = 4",
			[]string{"ALTER TABLE items RENAME TO other; ALTER TABLE former RENAME TO items"}, nil},
		{"by its name, with its rows renewed", "", []string{"ALTER TABLE items RENAME TO former; ALTER TABLE other RENAME TO items", "VACUUM (FREEZE) items"}, swapped},
		{"without another one", "", []string{"ALTER TABLE items RENAME TO former; ALTER TABLE former RENAME TO items", "ALTER TABLE items ADD more int", "CREATE INDEX ON items (name)"}, []string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newGapWorld(t, pgtest.Database(t), rows)
			if test.before != "" {
				w.exec(t, test.before)
				w.setup(t, source.Reconcile) // it is a gap of its own
			}
			w.read(t, true)
			before := len(w.events(t))
			w.loseSlot(t)
			w.exec(t, test.gap...)
			w.setup(t, source.Reconcile)
			told := []string{}
			for _, e := range w.events(t)[before:] {
				line := e.kind + " " + e.record
				if e.account != "7" {
					line += " of " + e.account
				}
				told = append(told, line)
			}
			if test.renamed == nil {
				if !slices.Contains(told, "update items:4") || !slices.Contains(told, "update items:1") {
					t.Errorf("told %q, which lacks what changed meanwhile", told)
				}
				return
			}
			slices.Sort(told)
			slices.Sort(test.renamed)
			if !slices.Equal(told, test.renamed) {
				t.Errorf("told\n%q, want\n%q", told, test.renamed)
			}
		})
	}
}

// A partition that was attached in the gap, with rows that are older.
func TestGap_TellsWhatCameWithAnAttachedPartition(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
		INSERT INTO files SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 7, 'x' FROM generate_series(1, 9) n;
		CREATE TABLE other (LIKE files INCLUDING ALL);
		INSERT INTO other SELECT id, 7, 'other' FROM files_0`)
	in := w.text(t, w.conn, "SELECT count(*) FROM other")
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, "ALTER TABLE files DETACH PARTITION files_0", "ALTER TABLE files ATTACH PARTITION other FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
	w.setup(t, source.Reconcile)
	told := w.text(t, w.box, "SELECT count(*) || ' of ' || count(*) FILTER (WHERE type = 'update' AND convert_from(body, 'UTF8') LIKE '%other%') FROM walhook.event")
	if want := in + " of " + in; in == "0" || told != want {
		t.Errorf("told %s, want %s", told, want)
	}
}
