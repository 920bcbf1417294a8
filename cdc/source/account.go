package source

import (
	"context"
	"fmt"
	"slices"

	"walhook/doctor"
)

// CheckAccount returns a [*Fault] if the account table lacks a column that the catalog
// names. Before a snapshot it keeps setup from making a slot that nothing follows.
func CheckAccount(ctx context.Context, cfg Config) error {
	cfg = cfg.WithDefaults()
	r, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	tables, err := lookAtTables(ctx, r.conn, cfg, "")
	if err != nil {
		return err
	}
	a := cfg.Catalog.Account
	var lacking []string
	for _, t := range tables {
		if t.name != a.Table || t.description == nil {
			continue
		}
		relation := relationOf(t.description)
		for _, column := range append([]string{a.ID, a.URL, a.Parent, a.Secret}, cfg.Catalog.AccountColumns()...) { // a brand's among them
			if column != "" && relation.Column(column) < 0 && !slices.Contains(lacking, column) {
				lacking = append(lacking, column)
			}
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return &Fault{
		Problem: fmt.Sprintf("the account table %s has no column %s, which the catalog names", a.Table, doctor.List(lacking, doctor.ListMost)),
		Fix:     "correct the catalog file: 'walhook catalog check' names every error",
	}
}
