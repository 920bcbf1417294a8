package main

import (
	"fmt"
	"slices"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// A publication's row filter: PostgreSQL sends a row that moves into it as an insert and one
// that moves out of it as a delete, and nothing of a row that it hides. Whether that happens
// in the stream or in a gap, endpoints are told the same.
func TestGap_TellsOfARowFilterWhatTheStreamTells(t *testing.T) {
	t.Parallel()
	phases := []struct{ changes, told []string }{
		{[]string{
			"UPDATE items SET name = 'hidden' WHERE id = 2", "UPDATE items SET name = 'shown now' WHERE id = 4",
			"INSERT INTO items VALUES (20, 7, 'hidden'), (21, 7, 'shown')", "DELETE FROM items WHERE id = 1",
			"UPDATE items SET name = 'shown at last' WHERE id = 3", "UPDATE items SET hidden = 'x' WHERE id = 5",
			"UPDATE notes SET note = 'of a hidden item'",
		}, []string{"delete items:2", "insert items:21", "insert items:3", "update items:4", "update notes:n5"}},
		{[]string{
			"DELETE FROM items WHERE id IN (2, 5, 21, 3)", "UPDATE items SET name = 'shown' WHERE id IN (20, 7)",
		}, []string{"delete items:21", "delete items:3", "insert items:20", "insert items:7"}},
		{[]string{
			"DELETE FROM items WHERE id IN (7, 20)", "UPDATE items SET name = 'hidden' WHERE id = 4", "INSERT INTO items VALUES (30, 7, 'hidden')",
		}, []string{"delete items:20", "delete items:4", "delete items:7"}},
		{[]string{
			"UPDATE items SET name = 'shown again' WHERE id IN (4, 30)", "DELETE FROM items WHERE id = 6", "DELETE FROM items WHERE id = 9",
		}, []string{"delete items:6", "insert items:30", "insert items:4"}},
	}
	for _, gaps := range []string{"    ", "gggg", "g g ", " g g"} {
		t.Run(fmt.Sprintf("gaps %q", gaps), func(t *testing.T) {
			t.Parallel()
			w := unpreparedGapWorld(t, pgtest.Database(t), `
				INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
				INSERT INTO items SELECT n, 7, CASE n % 2 WHEN 0 THEN 'shown' ELSE 'hidden' END FROM generate_series(1, 9) n;
				INSERT INTO notes VALUES ('n5', 5, 'x');
				ALTER TABLE items REPLICA IDENTITY FULL`)
			if w.text(t, w.conn, "SELECT current_setting('server_version_num')::int >= 150000") != "true" {
				t.Skip("row filters came with PostgreSQL 15")
			}
			w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, notes, tags, codes, files, calls, items WHERE (name <> 'hidden')")
			w.setup(t, source.Refuse)
			before := 0
			for i, phase := range phases {
				if gaps[i] == 'g' {
					w.loseSlot(t)
				}
				w.exec(t, phase.changes...)
				if gaps[i] == 'g' {
					w.setup(t, source.Reconcile)
				} else {
					w.read(t, true)
				}
				var told []string
				events := w.events(t)
				for _, e := range events[before:] {
					told = append(told, e.kind+" "+e.record)
				}
				before = len(events)
				if slices.Sort(told); !slices.Equal(told, phase.told) {
					t.Errorf("phase %d tells %q, want %q", i+1, told, phase.told)
				}
			}
		})
	}
}
