package main

import (
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// A key of type text may be empty, also that of a parent record. It is a key like any other.
func TestGap_AKeyMayBeEmpty(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
		INSERT INTO items VALUES (1, 7, 'x')`)
	w.exec(t, "INSERT INTO notes VALUES ('', 1, 'live')", "INSERT INTO notes VALUES ('n', 1, 'live')",
		"INSERT INTO tags VALUES (1, '', 'live')", "INSERT INTO tags VALUES (2, 'n', 'live')", "INSERT INTO tags VALUES (3, NULL, 'nobody')")
	w.read(t, true)
	var live []string
	for _, e := range w.events(t) {
		live = append(live, e.String()+" "+e.record)
	}
	wantTold(t, live,
		`7 insert notes {"id":"","item_id":1,"note":"live"} notes:`, `7 insert notes {"id":"n","item_id":1,"note":"live"} notes:n`,
		`7 insert tags {"id":1,"note_id":"","tag":"live"} tags:1`, `7 insert tags {"id":2,"note_id":"n","tag":"live"} tags:2`)

	w.exec(t, "INSERT INTO tags VALUES (4, '', 'of a parent of before')")
	w.read(t, false) // it has read nothing yet
	if last := w.events(t); last[len(last)-1].record != "tags:4" {
		t.Errorf("the last event is %s", last[len(last)-1])
	}
	w.exec(t, "DELETE FROM tags WHERE id = 4")
	w.read(t, false)

	seen := 0
	told := func() []string {
		all := w.told(t)
		defer func() { seen = len(all) }()
		return all[seen:]
	}
	w.loseSlot(t)
	w.setup(t, source.Reconcile)
	wantTold(t, told())

	w.loseSlot(t)
	w.exec(t, "UPDATE notes SET note = 'gap'", "UPDATE tags SET tag = 'gap'")
	w.setup(t, source.Reconcile)
	wantTold(t, told(),
		`7 update notes {"id":"","item_id":1,"note":"gap"}`, `7 update notes {"id":"n","item_id":1,"note":"gap"}`,
		`7 update tags {"id":1,"note_id":"","tag":"gap"}`, `7 update tags {"id":2,"note_id":"n","tag":"gap"}`)

	w.loseSlot(t)
	w.exec(t, "DELETE FROM notes", "UPDATE tags SET tag = 'orphan'")
	w.setup(t, source.Reconcile)
	wantTold(t, told(), `7 delete notes {"id":""}`, `7 delete notes {"id":"n"}`,
		`7 update tags {"id":1,"note_id":"","tag":"orphan"}`, `7 update tags {"id":2,"note_id":"n","tag":"orphan"}`)

	w.loseSlot(t)
	w.exec(t, "DELETE FROM tags")
	w.setup(t, source.Reconcile)
	wantTold(t, told(), `7 delete tags {"id":1}`, `7 delete tags {"id":2}`)
}
