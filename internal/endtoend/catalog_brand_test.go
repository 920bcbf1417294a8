package endtoend

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walhook/internal/loopback"
)

const brandedShopCatalog = `
account: {table: public.account, id: id, url: url, parent: parent, brand: {name: company, accent: colour}}
schemas:
  items: {table: public.item, owner: account, fields: [id, account, n]}
`

// A catalog that gains a brand has it for all accounts at once, without a gap, and follows
// their rows from there on.
func TestCatalogBrand_IsThereForEveryAccountOnceTheCatalogIsInForce(t *testing.T) {
	t.Parallel()
	s := newShop(t, 3, func(string) string { return "http://127.0.0.1:9/hook" })
	s.db.Exec(t, `ALTER TABLE account ADD company text, ADD colour text, ADD parent bigint;
		UPDATE account SET company = 'Shop & Sons', colour = '#0f766e' WHERE id = 1; UPDATE account SET parent = 1 WHERE id = 2`)
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(brandedShopCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	startAll(t, s.publisher(t))
	address := loopback.Address(t)
	process := startChild(t, "run", "--role", "api", "--outbox", s.outbox.URL, "--catalog", s.catalog, "--listen", address, "--portal-name", "The Carrier", "--portal-accent", "#3451c6")
	defer process.stop(t)
	awaitReady(t, address)
	page := func(account string) string {
		t.Helper()
		response, err := http.Get(mustRun(t, "portal", account, "--outbox", s.outbox.URL, "--listen", address))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	has := func(account string, parts ...string) bool {
		text := page(account)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				return false
			}
		}
		return true
	}
	for _, account := range []string{"1", "2", "3"} {
		if !has(account, "The Carrier", "theme/3451c6.css") {
			t.Errorf("before, account %s sees %s", account, page(account))
		}
	}
	mustRun(t, "setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", changed)
	for _, account := range []string{"1", "2"} {
		if !has(account, "Shop &amp; Sons", "theme/0f766e.css") {
			t.Errorf("account %s sees %s", account, page(account))
		}
	}
	if !has("3", "The Carrier", "theme/3451c6.css") {
		t.Errorf("account 3 sees %s", page("3"))
	}

	s.db.Exec(t, "UPDATE account SET company = 'New Name', colour = 'red;}' WHERE id = 1")
	eventually(t, patience, func() bool { return has("2", "New Name", "theme/3451c6.css") })
	s.db.Exec(t, "UPDATE account SET parent = NULL WHERE id = 2; UPDATE account SET company = NULL WHERE id = 1")
	eventually(t, patience, func() bool { return has("1", "The Carrier") && has("2", "The Carrier") })
	s.db.Exec(t, "UPDATE account SET company = 'Its Own' WHERE id = 3")
	eventually(t, patience, func() bool { return has("3", "Its Own") && !has("1", "Its Own") && !has("2", "Its Own") })
}
