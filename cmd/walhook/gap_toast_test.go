package main

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// A row with a value that is stored out of line and that changed before the gap: its last
// event says the same, so nothing is sent again. Where the old row lacks such a value, the
// last event lacks it too, and nobody knows whether it changed in the gap.
func TestGap_LeavesOutRowsWithLargeValues(t *testing.T) {
	t.Parallel()
	const large = "(SELECT string_agg(md5((n * 7919)::text), '') FROM generate_series(1, 400) n)"
	for name, test := range map[string]struct {
		identity string
		want     []string
	}{
		"full": {"FULL", []string{"7 update items 4"}},
		"key":  {"DEFAULT", []string{"7 update items 1", "7 update items 4", "7 update items 9", "8 update items 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newGapWorld(t, pgtest.Database(t), `
				INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8');
				ALTER TABLE items ALTER name SET STORAGE EXTERNAL;
				INSERT INTO items SELECT n, 7, `+large+` FROM generate_series(1, 5) n`)
			w.exec(t, "ALTER TABLE items REPLICA IDENTITY "+test.identity)
			w.exec(t, "INSERT INTO items VALUES (9, 7, "+large+")", "UPDATE items SET hidden = 'x' WHERE id IN (1, 4, 9)", "UPDATE items SET user_id = 8 WHERE id = 2",
				"UPDATE items SET name = name || 'more' WHERE id = 3")
			w.read(t, false)
			w.loseSlot(t)
			w.exec(t, "UPDATE items SET hidden = 'y' WHERE id IN (1, 3)", "UPDATE items SET name = name || 'in the gap' WHERE id = 4")
			w.setup(t, source.Reconcile)
			var told []string
			for _, e := range w.events(t) {
				if strings.HasPrefix(e.id, "gap_") {
					told = append(told, fmt.Sprintf("%s %s items %s", e.account, e.kind, strings.TrimPrefix(e.record, "items:")))
				}
			}
			wantTold(t, told, test.want...)
		})
	}
}
