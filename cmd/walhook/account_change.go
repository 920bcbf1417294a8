package main

import (
	"context"
	"fmt"
	"slices"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

// acceptAccountChange is the flag without which setup refuses a catalog that ends accounts.
const acceptAccountChange = "accept-account-change"

const acceptAccountChangeUsage = "adopt a catalog whose account table or account.id ends accounts, with their webhooks, secrets, tokens and undelivered events, for good"

// otherAccounts reports whether a changed catalog names accounts by another column.
func otherAccounts(former, next *catalog.Catalog) bool {
	return former.Account.Table != next.Account.Table || former.Account.ID != next.Account.ID
}

// endingAccounts returns what the accounts have that the catalog of cfg ends: those without
// a row in its account table that has their id. A renamed column or table ends none.
func endingAccounts(ctx context.Context, cfg source.Config, a *admin.Admin) (admin.Stakes, error) {
	left := map[string]bool{}
	accounts, err := a.Stakeholders(ctx)
	for _, account := range accounts {
		left[account] = true
	}
	if err == nil && len(left) > 0 {
		err = source.EachAccountID(ctx, cfg, func(id string) { delete(left, id) })
	}
	if err != nil || len(left) == 0 {
		return admin.Stakes{}, err
	}
	return a.StakesOf(ctx, slices.DeleteFunc(accounts, func(account string) bool { return !left[account] }))
}

func stakesText(s admin.Stakes) string {
	return fmt.Sprintf("%s, which %s no row with the same id in the new account table or column: %s, %s, %s, and undelivered events (%d wait for a retry)",
		doctor.Count(int(s.Accounts), "account"), doctor.Choose(int(s.Accounts), "has", "have"), doctor.Count(int(s.URLs), "URL"),
		doctor.Count(int(s.Webhooks), "webhook"), doctor.Count(int(s.Tokens), "API token"), s.Waiting)
}

// checkAccounts refuses the catalog of cfg if it ends accounts for good. A catalog file
// with a wrong account.id looks like any other.
func checkAccounts(ctx context.Context, cfg source.Config, store *outbox.Store) error {
	// The source first: what setup cannot do without is said before what the outbox says,
	// which may be in the same database.
	if _, err := source.PlanSetup(ctx, cfg); err != nil {
		return err
	}
	former, err := store.CatalogInForce(ctx)
	if err != nil || former == nil || !otherAccounts(former, cfg.Catalog) {
		return err
	}
	ending, err := endingAccounts(ctx, cfg, admin.New(store))
	if err != nil || ending.Accounts == 0 {
		return err
	}
	return &source.Fault{
		Problem: fmt.Sprintf("the catalog's account.id is column %s of %s, was %s of %s: this ends, for good, %s. Going back to the former catalog does not bring them back",
			cfg.Catalog.Account.ID, cfg.Catalog.Account.Table, former.Account.ID, former.Account.Table, stakesText(ending)),
		Fix: "correct account in the catalog file; or, if this is meant, run this again with --" + acceptAccountChange,
	}
}
