package source

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

// lackingSQL are the columns $3 that table $2 of schema $1 does not have.
const lackingSQL = `
	SELECT name FROM unnest($3::text[]) WITH ORDINALITY AS asked (name, place)
	WHERE NOT EXISTS (
		SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = asked.name AND a.attnum > 0 AND NOT a.attisdropped)
	ORDER BY place`

// CheckAccount returns a [*Fault] if the account table lacks a column that the catalog
// names. Before a snapshot it keeps setup from making a slot that nothing follows.
func CheckAccount(ctx context.Context, cfg Config) error {
	r, err := NewIntrospector(ctx, cfg.WithDefaults())
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	a := cfg.Catalog.Account
	named := append([]string{a.ID, a.URL, a.Parent, a.Secret, a.Brand.Name, a.Brand.Accent, a.Brand.Support}, cfg.Catalog.AccountColumns()...)
	named = slices.DeleteFunc(named, func(column string) bool { return column == "" })
	rows, err := r.conn.Query(ctx, lackingSQL, a.Table.Namespace, a.Table.Name, named)
	var lacking []string
	if err == nil {
		lacking, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return fmt.Errorf("look for the columns of accounts: %w", err)
	}
	if len(lacking) == 0 {
		return nil
	}
	return &Fault{
		Problem: fmt.Sprintf("the account table %s has no column %s, which the catalog names", a.Table, doctor.List(slices.Compact(lacking), doctor.ListMost)),
		Fix:     "correct the catalog file: 'walhook catalog check' names every error",
	}
}
