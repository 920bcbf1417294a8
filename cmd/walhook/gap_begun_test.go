package main

import (
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

// An account whose own row is new in the gap gets all of it as inserts, and so do the
// webhooks above it; one that was there and got its URL in the gap begins there.
func TestGap_AnAccountThatBeganGetsItsRecordsAsInserts(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (1, 'above', NULL, NULL), (7, 'seven', 'https://example.com/7', NULL), (9, 'without', NULL, NULL);
		INSERT INTO items VALUES (1, 7, 'x'), (2, 9, 'x'), (20, 12, 'of nobody yet'), (21, 12, 'goes');
		INSERT INTO calls VALUES (1, 12, 'of nobody yet'), (2, 7, 'x')`)
	if _, err := w.box.Exec(t.Context(), `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, hook, include_subaccounts, schemas)
		VALUES ('1', 'w', 'https://example.com/w', 'active', 'whsec_b2xk', 'records', true, '{items,calls}')`); err != nil {
		t.Fatal(err)
	}
	w.read(t, false)
	w.loseSlot(t)
	w.exec(t,
		"INSERT INTO users VALUES (12, 'begins', 'https://example.com/12', 1), (13, 'begins without', NULL, 1)",
		"UPDATE users SET web_hook_url = 'https://example.com/9' WHERE id = 9",
		"INSERT INTO items VALUES (30, 12, 'new'), (31, 13, 'new'), (32, 9, 'new')", "INSERT INTO notes VALUES ('n30', 30, 'new')",
		"UPDATE items SET user_id = 12 WHERE id = 1", "DELETE FROM items WHERE id = 21",
		"INSERT INTO async_results (id, user_id, schema, status) VALUES (1, 12, 'sms', 'done')")
	w.setup(t, source.Reconcile)
	told := []string{
		`12 insert users {"id":12,"name":"begins","web_hook_url":"https://example.com/12"}`,
		`12 insert items {"id":20,"user_id":12,"name":"of nobody yet"}`, `12 insert items {"id":30,"user_id":12,"name":"new"}`,
		`12 insert notes {"id":"n30","item_id":30,"note":"new"}`, `12 insert calls {"id":1,"user_id":12,"name":"of nobody yet"}`,
		`7 delete items {"id":1}`, `12 insert items {"id":1,"user_id":12,"name":"x"}`, `12 delete items {"id":21}`,
		`1/w insert items {"id":20,"user_id":12,"name":"of nobody yet"}`, `1/w insert items {"id":30,"user_id":12,"name":"new"}`,
		`1/w insert calls {"id":1,"user_id":12,"name":"of nobody yet"}`, `1/w insert items {"id":1,"user_id":12,"name":"x"}`,
		`1/w delete items {"id":21}`, `1/w insert items {"id":31,"user_id":13,"name":"new"}`,
		`12 update sms `,
	}
	wantTold(t, w.told(t), told...)
	note := w.text(t, w.box, "SELECT note FROM walhook.gap ORDER BY id DESC LIMIT 1")
	for _, part := range []string{"; 1 account with a URL began in the gap: each of its records comes as an insert", "; 1 account got a URL in the gap and begins there"} {
		if !strings.Contains(note, part) {
			t.Errorf("the gap's row says %s", note)
		}
	}

	w.exec(t, "UPDATE items SET name = 'after' WHERE id IN (20, 32)")
	w.read(t, false)
	w.loseSlot(t)
	w.exec(t, "UPDATE items SET name = 'later' WHERE id = 30")
	w.setup(t, source.Reconcile)
	wantTold(t, w.told(t), append(told, `12 update items {"id":30,"user_id":12,"name":"later"}`, `1/w update items {"id":30,"user_id":12,"name":"later"}`)...)
}

// What a restored outbox has never heard of, and the source no longer has, nobody can know.
func TestGap_OfARestoredOutboxSaysWhatCannotBeKnown(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), "INSERT INTO users VALUES (7, 'seven', 'https://example.com/7')")
	w.loseSlot(t)
	const lost = "deletes of records that came and went after what the outbox has kept cannot be known"
	for _, restored := range []bool{true, false} {
		if restored {
			if _, err := w.box.Exec(t.Context(), "INSERT INTO walhook.gap (from_lsn, reason) VALUES ('0/1', $1)", schemas.GapOutboxLacks+": it was restored"); err != nil {
				t.Fatal(err)
			}
		}
		w.setup(t, source.Reconcile)
		if note := w.text(t, w.box, "SELECT note FROM walhook.gap ORDER BY id DESC LIMIT 1"); strings.Contains(note, lost) != restored {
			t.Errorf("the gap's row says %s", note)
		}
		w.loseSlot(t)
	}
}
