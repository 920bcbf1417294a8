package main

import (
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

func TestGap_TellsEveryKindOfChangeAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8'), (9, 'nine', NULL);
		INSERT INTO items SELECT n, 7 + n % 2, 'x' FROM generate_series(1, 20) n;
		INSERT INTO notes SELECT 'n' || n, n, 'x' FROM generate_series(1, 20) n;
		INSERT INTO tags SELECT n, 'n' || n, 'x' FROM generate_series(1, 20) n;
		INSERT INTO codes SELECT 'c' || n, n + 0.5, 7, 'x' FROM generate_series(1, 5) n;
		INSERT INTO files SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 8, 'x' FROM generate_series(1, 5) n;
		INSERT INTO calls SELECT n, 7, 'x' FROM generate_series(1, 5) n`)
	w.exec(t, "UPDATE items SET name = 'before' WHERE id <= 4", "INSERT INTO items VALUES (30, 7, 'before')", "DELETE FROM items WHERE id = 20")
	w.read(t, false)
	w.loseSlot(t)
	w.exec(t,
		"INSERT INTO items VALUES (40, 7, 'new')",
		"UPDATE items SET name = 'in the gap' WHERE id = 4",
		"UPDATE items SET name = name WHERE id = 3", // says nothing new
		"UPDATE items SET hidden = 'x' WHERE id = 2",
		"DELETE FROM items WHERE id = 30",
		"UPDATE items SET user_id = 8 WHERE id = 6", // a move, whose notes do not move yet
		"UPDATE notes SET note = 'moves with its item' WHERE id = 'n6'",
		"UPDATE items SET user_id = NULL WHERE id = 8",
		"INSERT INTO items VALUES (41, 9, 'of nobody who listens')",
		"DELETE FROM items WHERE id = 10", // its note stays, and is nobody's any more
		"UPDATE notes SET note = 'an orphan' WHERE id = 'n10'",
		"DELETE FROM codes WHERE number = 2.5",
		"UPDATE codes SET note = 'in the gap' WHERE number = 3.5",
		"DELETE FROM files WHERE id = '00000000-0000-0000-0000-000000000002'",
		"UPDATE files SET name = 'in the gap' WHERE id = '00000000-0000-0000-0000-000000000003'",
		"UPDATE calls SET name = 'in the gap' WHERE id = 1",
		"DELETE FROM calls WHERE id = 2",
		"UPDATE users SET name = 'another' WHERE id = 8",
		"SELECT id FROM items FOR KEY SHARE", "VACUUM FULL items", "VACUUM (FREEZE) notes",
	)
	w.setup(t, source.Reconcile)
	told := []string{
		`7 insert items {"id":40,"user_id":7,"name":"new"}`,
		`7 update items {"id":4,"user_id":7,"name":"in the gap"}`,
		`7 delete items {"id":30}`,
		`7 delete items {"id":6}`,
		`8 insert items {"id":6,"user_id":8,"name":"x"}`,
		`7 delete notes {"id":"n6"}`,
		`8 insert notes {"id":"n6","item_id":6,"note":"moves with its item"}`,
		`7 delete items {"id":8}`,
		`7 delete items {"id":10}`,
		`7 update notes {"id":"n10","item_id":10,"note":"an orphan"}`,
		`7 delete codes {"country":"c2  ","number":2.50}`,
		`7 update codes {"country":"c3  ","number":3.50,"note":"in the gap"}`,
		`8 delete files {"id":"00000000-0000-0000-0000-000000000002"}`,
		`8 update files {"id":"00000000-0000-0000-0000-000000000003","user_id":8,"name":"in the gap"}`,
		`7 update calls {"id":1,"user_id":7,"name":"in the gap"}`,
		`8 update users {"id":8,"name":"another","web_hook_url":"https://example.com/8"}`,
	}
	wantTold(t, w.told(t), told...)
	if got := w.gap(t); got != "3 6 7 t" {
		t.Errorf("the gap's row says %s", got)
	}

	// What comes after is as ever, and nothing is told again.
	w.exec(t, "UPDATE notes SET note = 'after' WHERE id IN ('n6', 'n10')", "INSERT INTO items VALUES (42, 8, 'after')")
	w.read(t, false)
	wantTold(t, w.told(t), told...)
}
