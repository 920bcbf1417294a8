package main

import (
	"slices"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// adopt puts a catalog in force.
func (w *gapWorld) adopt(t *testing.T, text string) {
	t.Helper()
	w.cfg.Catalog = w.catalog(t, text)
	store := w.open(t)
	defer store.Close()
	asked, err := prepare(t.Context(), w.cfg, store, w.outbox.URL, source.Refuse, w.log)
	if err == nil && asked {
		err = adopt(t.Context(), w.cfg, store, w.log)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Where a changed catalog gives a schema's records other owners, the former owner of each is
// told with the record's next change, and the new one gets it as an insert.
func TestCatalogOwner_AMoveIsToldWithTheNextChange(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		ALTER TABLE items ADD holder int;
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8');
		INSERT INTO items SELECT n, 7, 'x', NULL, 8 FROM generate_series(1, 6) n;
		INSERT INTO items VALUES (7, 7, 'x', NULL, 7);
		INSERT INTO notes VALUES ('n1', 1, 'x'), ('n2', 1, 'x')`)
	read := func(after int) (lines []string) {
		w.read(t, false)
		for _, e := range w.events(t)[after:] {
			lines = append(lines, e.String())
		}
		return lines
	}
	held := strings.Replace(gapCatalog, "{table: public.items, owner: user_id", "{table: public.items, owner: holder", 1)
	w.adopt(t, held)
	wantTold(t, read(0))

	w.exec(t, "UPDATE items SET name = 'y' WHERE id = 1", "UPDATE notes SET note = 'y' WHERE id = 'n1'", "UPDATE items SET name = 'z' WHERE id = 1",
		"DELETE FROM items WHERE id = 2", "UPDATE items SET id = 30 WHERE id = 3", "UPDATE items SET holder = 7 WHERE id = 4", "UPDATE items SET name = 'y' WHERE id = 7")
	changes := []string{
		`7 delete items {"id":1}`, `8 insert items {"id":1,"user_id":7,"name":"y"}`, `8 update items {"id":1,"user_id":7,"name":"z"}`,
		`7 delete notes {"id":"n1"}`, `8 insert notes {"id":"n1","item_id":1,"note":"y"}`,
		`7 delete items {"id":2}`, `8 delete items {"id":2,"user_id":7,"name":"x"}`,
		`7 delete items {"id":3}`, `8 delete items {"id":3,"user_id":7,"name":"x"}`, `8 insert items {"id":30,"user_id":7,"name":"x"}`,
		`8 delete items {"id":4,"user_id":7,"name":"x"}`, `7 insert items {"id":4,"user_id":7,"name":"x"}`,
		`7 update items {"id":7,"user_id":7,"name":"y"}`,
	}
	wantTold(t, read(0), slices.Clone(changes)...)

	// After a gap all of them are told.
	told := len(changes)
	w.loseSlot(t)
	w.exec(t, "UPDATE items SET name = 'y' WHERE id = 5")
	w.setup(t, source.Reconcile)
	wantTold(t, read(told), `7 delete items {"id":5}`, `8 insert items {"id":5,"user_id":7,"name":"y"}`, `7 delete items {"id":6}`, `8 insert items {"id":6,"user_id":7,"name":"x"}`)

	// And back, and there again: who was told last counts.
	told += 4
	w.adopt(t, gapCatalog)
	w.adopt(t, held)
	w.exec(t, "UPDATE items SET name = 'again' WHERE id = 1")
	wantTold(t, read(told), `8 update items {"id":1,"user_id":7,"name":"again"}`)
	w.adopt(t, gapCatalog)
	w.exec(t, "UPDATE items SET name = 'back' WHERE id = 1", "UPDATE notes SET note = 'back' WHERE id = 'n2'")
	wantTold(t, read(told+1), `8 delete items {"id":1}`, `7 insert items {"id":1,"user_id":7,"name":"back"}`, `7 update notes {"id":"n2","item_id":1,"note":"back"}`)
}
