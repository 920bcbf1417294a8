package admin

import (
	"fmt"
	"strings"
	"testing"

	"walhook/outbox"
	"walhook/schemas/catalog"
)

// The kept columns are, in this order: colour, company, help, secret.
const brandedCatalog = `
account: {table: users, id: id, url: url, parent: up, brand: {name: company, accent: colour, support: help}}
schemas: {dids: {table: dids, owner: u, fields: [id]}}
derive:
  - {schema: dids, hook: number, when: {added: insert}, fields: {x: {account: secret}}}
`

// putCatalog puts a catalog in force.
func (w *world) putCatalog(t *testing.T, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w.Exec(t, "UPDATE walhook.catalog SET state = 'past' WHERE state = 'in_force'")
	w.Exec(t, "INSERT INTO walhook.catalog (state, fingerprint, content) VALUES ('in_force', $1, $2)", c.Fingerprint(), c.YAML())
	return c
}

// keep stores the columns of an account as the publisher does.
func (w *world) keep(t *testing.T, account string, columns ...string) {
	t.Helper()
	w.Exec(t, "INSERT INTO walhook.account_column (account, columns) VALUES ($1, $2)", account, w.store.Access().Secrets.SealColumns(account, columns))
}

func (w *world) brands(t *testing.T, catalogs *outbox.CatalogFollower, account string) (lines []string) {
	t.Helper()
	brands, err := w.admin.Brands(t.Context(), catalogs, account)
	if err != nil {
		t.Fatal(err)
	}
	text := func(value *string) string {
		if value == nil {
			return "-"
		}
		return *value
	}
	for _, b := range brands {
		line := fmt.Sprintf("%s: %s %s %s", b.Account, text(b.Name), text(b.Accent), text(b.Support))
		if b.Unreadable {
			line = b.Account + ": unreadable"
		}
		lines = append(lines, line)
	}
	return lines
}

func wantBrands(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("brands are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBrands_AreThoseOfTheAccountAndOfAllAboveIt(t *testing.T) {
	for name, change := range map[string][]func(*outbox.Config){"without a key": nil, "under a key": {withKey(7)}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, change...)
			catalogs := w.store.FollowCatalog(catalog.Carrier())
			w.Exec(t, "INSERT INTO walhook.account (id, parent) VALUES ('7', '5'), ('5', '1'), ('8', '6'), ('a', 'b'), ('b', 'a')")
			w.Exec(t, "INSERT INTO walhook.account (id, parent, ended_in) VALUES ('gone', '1', '0/1')")
			wantBrands(t, w.brands(t, catalogs, "7")) // no catalog, and nothing kept
			w.putCatalog(t, brandedCatalog)
			w.keep(t, "7", "null", "null", `"https://seven.example"`, `"pin-7"`)
			w.keep(t, "5", `"#123456"`, `"Five \"& <b>"`, "", `"pin-5"`)
			w.keep(t, "1", `12`, `""`, "null", `"pin-1"`)
			w.keep(t, "6", `"#666666"`, `"Six"`, "null", `"pin-6"`)
			w.keep(t, "a", "null", `"A"`, "null", "null")
			w.keep(t, "b", "null", `"B"`, "null", "null")
			wantBrands(t, w.brands(t, catalogs, "7"), "7: - - https://seven.example", `5: Five "& <b> #123456 -`, "1: - 12 -")
			wantBrands(t, w.brands(t, catalogs, "8"), "6: Six #666666 -")
			wantBrands(t, w.brands(t, catalogs, "1"), "1: - 12 -")
			wantBrands(t, w.brands(t, catalogs, "gone"))
			wantBrands(t, w.brands(t, catalogs, "nobody"))
			if loop := w.brands(t, catalogs, "a"); len(loop) != maxAbove+1 || loop[0] != "a: A - -" || loop[1] != "b: B - -" {
				t.Errorf("a loop in the tree gives %d rows: %v", len(loop), loop[:2])
			}
			w.Exec(t, "UPDATE walhook.account_column SET deleted_at = now() WHERE account = '5'")
			wantBrands(t, w.brands(t, catalogs, "7"), "7: - - https://seven.example", "1: - 12 -")
			// What is damaged spoils nothing else.
			w.Exec(t, "ALTER TABLE walhook.account_column ALTER columns DROP NOT NULL")
			for _, damage := range []string{"NULL", "'{}'", "'{x}'", "'{{a,b},{c,d}}'", "'{NULL,NULL,NULL}'"} {
				w.Exec(t, "UPDATE walhook.account_column SET columns = "+damage+" WHERE account = '7'")
				wantBrands(t, w.brands(t, catalogs, "7"), "7: unreadable", "1: - 12 -")
			}
		})
	}
}

// A column that a rule keeps is never taken for a part of the brand, also while a process
// knows an earlier catalog.
func TestBrands_GoByTheCatalogInForce(t *testing.T) {
	w := newWorld(t)
	catalogs := w.store.FollowCatalog(catalog.Carrier())
	w.putCatalog(t, brandedCatalog)
	w.keep(t, "7", `"#111111"`, `"Seven"`, `"https://seven.example"`, `"pin-7"`)
	wantBrands(t, w.brands(t, catalogs, "7"), "7: Seven #111111 https://seven.example")
	stale, row := catalogs.InForce(t.Context())

	// Now the second column is the secret one.
	w.putCatalog(t, strings.ReplaceAll(brandedCatalog, "colour", "tint"))
	w.Exec(t, "UPDATE walhook.account_column SET columns = $1", []string{`"Seven"`, `"https://seven.example"`, `"pin-7"`, `"#222222"`})
	if got, err := w.admin.readBrands(t.Context(), "7", row, len(stale.AccountColumns()), [3]int{1, 0, 2}); err == nil {
		t.Errorf("the new columns are read by the former catalog: %v", *got[0].Support)
	}
	wantBrands(t, w.brands(t, catalogs, "7"), "7: Seven #222222 https://seven.example")
	w.putCatalog(t, "account: {table: users, id: id, url: url}\nschemas: {}\n")
	wantBrands(t, w.brands(t, catalogs, "7"))
}

func TestPeekPortalLink_LeavesTheLinkAsItIs(t *testing.T) {
	w := newWorld(t)
	link, err := w.admin.CreatePortalLink(t.Context(), Caller{}, "7", Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if account, err := w.admin.PeekPortalLink(t.Context(), link.Secret); account != "7" || err != nil {
			t.Errorf("the link is of %q, %v", account, err)
		}
	}
	if _, _, err := w.admin.UsePortalLink(t.Context(), link.Secret); err != nil {
		t.Error(err)
	}
	for name, secret := range map[string]string{"used": link.Secret, "another": portalLinkPrefix + "x", "none": "", "a session's": portalSessionPrefix + "x"} {
		if account, err := w.admin.PeekPortalLink(t.Context(), secret); err != ErrNoPortalLink || account != "" {
			t.Errorf("%s: %q, %v", name, account, err)
		}
	}
	expired, err := w.admin.CreatePortalLink(t.Context(), Caller{}, "7", Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Exec(t, "UPDATE walhook.portal_link SET expires_at = now() - interval '1 second'")
	if _, err := w.admin.PeekPortalLink(t.Context(), expired.Secret); err != ErrNoPortalLink {
		t.Errorf("an expired link: %v", err)
	}
}
