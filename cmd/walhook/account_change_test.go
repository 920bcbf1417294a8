package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
)

// A catalog by which accounts have other ids is refused, and one by which the same ids stand
// in another column is not.
func TestAccountChange_IsRefusedWhereAccountsEnd(t *testing.T) {
	t.Parallel()
	w := newGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7'), (8, 'eight', NULL), (9, 'nine', NULL)`)
	for _, sql := range []string{
		`INSERT INTO walhook.endpoint (account, webhook, url, state, secret, hook) VALUES ('8', 'w', 'https://example.com/w', 'active', 'whsec_b2xk', 'records'), ('8', 'x', 'https://example.com/x', 'active', 'whsec_b2xk', 'records')`,
		`INSERT INTO walhook.token (hash, id, account, subaccounts) VALUES ('\x01', 'a', '8', false)`,
	} {
		if _, err := w.box.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	byName := write("name.yaml", strings.Replace(gapCatalog, "id: id, url", "id: name, url", 1))
	setup := func(file string, more ...string) error {
		_, err := walhook(t, append([]string{"setup", "--source", w.db.URL, "--outbox", w.outbox.URL, "--slot", w.cfg.Slot, "--catalog", file}, more...)...)
		return err
	}
	const lost = "2 accounts, which have no row with the same id in the new account table or column: 1 URL, 2 webhooks, 1 API token"
	fault, is := errors.AsType[*source.Fault](setup(byName))
	if !is || !strings.Contains(fault.Problem, lost) || !strings.Contains(fault.Fix, "--accept-account-change") {
		t.Errorf("setup of another id: %v", fault)
	}
	diff := func(file, want string) {
		t.Helper()
		if out, err := walhook(t, "catalog", "diff", file, "--source", w.db.URL, "--outbox", w.outbox.URL); err != nil || !strings.Contains(out, want) {
			t.Errorf("%q is missing (%v) from\n%s", want, err, out)
		}
	}
	diff(byName, "WHAT ENDS FOR GOOD\n  "+lost)

	w.exec(t, "ALTER TABLE users RENAME COLUMN id TO account_id")
	renamed := write("renamed.yaml", strings.NewReplacer("id: id, url", "id: account_id, url", "owner: id, fields: [id,", "owner: account_id, fields: [account_id,").Replace(gapCatalog))
	diff(renamed, "No account ends")
	if err := setup(renamed); err != nil {
		t.Errorf("setup of a renamed column: %v", err)
	}
	if got := w.text(t, w.box, "SELECT count(*) FROM walhook.endpoint WHERE ended_at IS NULL"); got != "3" {
		t.Errorf("%s endpoints are left", got)
	}
	byName = write("name2.yaml", strings.NewReplacer("id: id, url", "id: name, url", "owner: id, fields: [id,", "owner: account_id, fields: [account_id,").Replace(gapCatalog))
	if err := setup(byName, "--accept-account-change"); err != nil {
		t.Errorf("setup that accepts it: %v", err)
	}
	if got := w.text(t, w.box, "SELECT count(*) FROM walhook.token"); got != "0" {
		t.Errorf("%s tokens are left: the test asks for nothing", got)
	}
}
