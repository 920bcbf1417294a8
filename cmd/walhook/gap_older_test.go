package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// A publisher of an older release, which does not know what was missed, publishes between
// the snapshot and its append. Then that comes behind newer events, and no record goes back.
func TestGap_AnOlderWalhookPublishesBeforeItIsAppended(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', 'https://example.com/8');
		INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 6) n`)
	w.exec(t, "UPDATE items SET name = 'before'")
	w.read(t, true)
	w.loseSlot(t)
	w.exec(t, "UPDATE items SET name = 'in the gap' WHERE id IN (1, 2)", "DELETE FROM items WHERE id IN (3, 5)", "UPDATE items SET user_id = 8 WHERE id = 4",
		"INSERT INTO items VALUES (50, 7, 'in the gap')", `INSERT INTO async_results VALUES (1, 7, 'sms', 'update', 'ok', 'in the gap')`)
	box := func(statements ...string) {
		t.Helper()
		for _, sql := range statements {
			if _, err := w.box.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	box(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no more''; END';
		CREATE TRIGGER refuse BEFORE INSERT ON walhook.event FOR EACH ROW WHEN (NEW.webhook_id LIKE 'gap%') EXECUTE FUNCTION refuse()`)
	log := w.log
	w.log = zap.NewNop()
	if err := w.trySetup(t.Context(), t, source.Reconcile); err == nil {
		t.Fatal("setup was not interrupted")
	}
	w.log = log
	box("DROP TRIGGER refuse ON walhook.event",
		// The older publisher.
		"CREATE TABLE aside AS SELECT * FROM walhook.missed; CREATE TABLE aside_row AS SELECT * FROM walhook.missed_row; DELETE FROM walhook.missed; DELETE FROM walhook.missed_row",
		"ALTER TABLE walhook.gap RENAME missed TO aside; ALTER TABLE walhook.gap ADD missed bigint")
	w.exec(t, "UPDATE items SET name = 'newer' WHERE id IN (1, 4)", "INSERT INTO items VALUES (3, 7, 'newer')", "DELETE FROM items WHERE id = 50",
		`INSERT INTO async_results VALUES (2, 7, 'sms', 'update', 'ok', 'newer')`)
	w.read(t, false)
	box("INSERT INTO walhook.missed SELECT * FROM aside; INSERT INTO walhook.missed_row SELECT * FROM aside_row",
		"ALTER TABLE walhook.gap DROP missed; ALTER TABLE walhook.gap RENAME aside TO missed")
	w.read(t, false)

	var told []string
	for _, line := range w.told(t) {
		if !strings.Contains(line, " sms ") {
			told = append(told, line)
		}
	}
	wantTold(t, told, `7 update items {"id":2,"user_id":7,"name":"in the gap"}`, `7 delete items {"id":4}`, `7 delete items {"id":5}`)
	applied := w.applied(t)
	delete(applied["7"], "")
	items := map[string]string{}
	for record, data := range applied["7"] {
		if strings.HasPrefix(record, "items:") {
			items[record] = data
		}
	}
	if want := w.rows(t); !maps.Equal(items, want) {
		t.Errorf("account 7 has %v, the source %v", items, want)
	}
	if got := w.text(t, w.box, "SELECT string_agg(left(webhook_id, 4), ' ' ORDER BY id) FROM walhook.event WHERE schema = 'sms'"); got != "evt_ gap_" {
		t.Errorf("results: %s", got)
	}
	if got := w.text(t, w.box, "SELECT note FROM walhook.gap ORDER BY id DESC LIMIT 1"); strings.Count(got, "an older walhook published before") != 1 {
		t.Errorf("the gap's row says %s", got)
	}
	if got := w.gap(t); got != "0 1 2 t" {
		t.Errorf("the gap's row says %s", got)
	}
}
