package main

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// A catalog that gains the tables of results and events sends what they get from then on,
// also in a gap; one that loses them sends nothing more. In a gap the former one counts.
func TestGapRows_FollowTheCatalog(t *testing.T) {
	t.Parallel()
	without := strings.ReplaceAll(strings.ReplaceAll(gapCatalog, "results: {table: public.async_results}\n", ""), "events: {table: public.events}\n", "")
	w := unpreparedGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
		INSERT INTO async_results VALUES (1, 7, 'sms', 'update', 'ok', 'before the catalog names the table')`)
	with := w.cfg.Catalog
	w.cfg.Catalog = w.catalog(t, without)
	w.setup(t, source.Refuse)
	w.webhook(t, "7", "channel_create")
	w.read(t, true)

	w.loseSlot(t)
	w.exec(t, fmt.Sprintf(aResult, 2, 7, "in a gap that begins without the table"))
	w.cfg.Catalog = with
	w.setup(t, source.Reconcile)
	wantLines(t, w.toldRows(t))

	w.exec(t, fmt.Sprintf(aResult, 3, 7, "by the stream"))
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, fmt.Sprintf(aResult, 4, 7, "in a gap"), fmt.Sprintf(anEvent, 7, "in a gap"), "UPDATE async_results SET seen = true WHERE id < 3")
	w.setup(t, source.Reconcile)
	told := []string{"evt 7 by the stream", "gap_2_1 7 in a gap", "gap_2_2 7 in a gap"}
	wantLines(t, w.toldRows(t), told...)

	w.loseSlot(t)
	w.exec(t, fmt.Sprintf(aResult, 5, 7, "in a gap that ends without the table"))
	w.cfg.Catalog = w.catalog(t, without)
	w.setup(t, source.Reconcile)
	w.exec(t, fmt.Sprintf(aResult, 6, 7, "not named"))
	w.read(t, false)
	wantLines(t, w.toldRows(t), append(told, "gap_3_1 7 in a gap that ends without the table")...)
}

// A table of results that is truncated in a gap: its former rows were sent, and those that
// it has now are new. A row whose key one of the former rows had counts as that one.
func TestGapRows_OfATruncatedTable(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), "INSERT INTO users VALUES (7, 'seven', 'https://example.com/7')")
	w.exec(t, fmt.Sprintf(aResult, 1, 7, "before"), fmt.Sprintf(aResult, 2, 7, "before"))
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, fmt.Sprintf(aResult, 3, 7, "gone"), "TRUNCATE async_results", fmt.Sprintf(aResult, 4, 7, "in the gap"), fmt.Sprintf(aResult, 2, 7, "with a key that was there"))
	w.setup(t, source.Reconcile)
	told := []string{"evt 7 before", "evt 7 before", "gap_1_1 7 in the gap"}
	wantLines(t, w.toldRows(t), told...)

	// In the stream, and before a gap, keys may come again.
	w.exec(t, "TRUNCATE async_results", fmt.Sprintf(aResult, 1, 7, "by the stream"))
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, fmt.Sprintf(aResult, 2, 7, "in the next gap"))
	w.setup(t, source.Reconcile)
	wantLines(t, w.toldRows(t), append(told, "evt 7 by the stream", "gap_2_1 7 in the next gap")...)
}

// A record whose key is deleted and inserted again in a gap is one record: of the same
// account it was updated, of another one it moved.
func TestGap_TellsOfAKeyThatIsUsedAgain(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8');
		INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 4) n;
		INSERT INTO notes SELECT 'n' || n, n, 'x' FROM generate_series(1, 4) n`)
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, "DELETE FROM items WHERE id IN (1, 2, 3)", "INSERT INTO items VALUES (1, 8, 'again'), (2, 7, 'again'), (3, NULL, 'again')",
		"TRUNCATE notes", "INSERT INTO notes VALUES ('n4', 4, 'again'), ('n1', 1, 'again')")
	w.setup(t, source.Reconcile)
	wantTold(t, w.told(t),
		`7 delete items {"id":1}`, `8 insert items {"id":1,"user_id":8,"name":"again"}`, `7 update items {"id":2,"user_id":7,"name":"again"}`, `7 delete items {"id":3}`,
		`7 update notes {"id":"n4","item_id":4,"note":"again"}`, `7 delete notes {"id":"n2"}`, `7 delete notes {"id":"n3"}`,
		`7 delete notes {"id":"n1"}`, `8 insert notes {"id":"n1","item_id":1,"note":"again"}`)
}
