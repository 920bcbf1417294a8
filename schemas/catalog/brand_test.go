package catalog

import (
	"slices"
	"strings"
	"testing"
)

func TestBrand_ItsColumnsAreKeptBesideThoseOfRules(t *testing.T) {
	t.Parallel()
	parse := func(brand string) *Catalog {
		c, err := Parse([]byte("account: {table: users, id: id, url: url, parent: up" + brand + `}
schemas: {dids: {table: dids, owner: u, fields: [id]}}
derive:
  - {schema: dids, hook: number, when: {added: insert}, fields: {plan: {account: plan}, sku: {account: sku}}}
`))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	plain, branded := parse(""), parse(", brand: {name: company, accent: plan, support: help}")
	if got, want := branded.AccountColumns(), []string{"company", "help", "plan", "sku"}; !slices.Equal(got, want) {
		t.Errorf("kept are %v, want %v", got, want)
	}
	if plain.Fingerprint() == branded.Fingerprint() {
		t.Error("the fingerprint does not say that other columns are kept")
	}
	difference := plain.DifferenceTo(branded)
	if !difference.Accounts || len(difference.Owners) > 0 || !slices.Equal(difference.Kept, []string{"dids"}) {
		t.Errorf("the accounts alone are read again, but %+v", difference)
	}
	changes := Summary(plain.ChangesTo(branded), 9)
	if want := "accounts: gains brand.name (column company), gains brand.accent (column plan), gains brand.support (column help)"; changes != want {
		t.Errorf("what changes is said as %q", changes)
	}
	if !plain.RulesNeedAccounts() || !branded.RulesNeedAccounts() {
		t.Error("rules need no columns of accounts")
	}
	again, err := Parse(branded.YAML())
	if err != nil || again.Account != branded.Account {
		t.Errorf("read again it is %+v, %v", again.Account, err)
	}
	alone, err := Parse([]byte("account: {table: users, id: id, url: url, brand: {name: company}}\nschemas: {}\n"))
	if err != nil || alone.RulesNeedAccounts() || strings.Join(alone.AccountColumns(), ",") != "company" {
		t.Errorf("a brand alone: %v, %v", alone.AccountColumns(), err)
	}
}
