package source

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// EachAccountID calls each with the id of every row of the account table of the catalog of
// cfg, in its normal form. It returns a [Fault] where the source lacks the table or the
// column.
func EachAccountID(ctx context.Context, cfg Config, each func(id string)) error {
	account := cfg.Catalog.Account
	tables, err := Inventory(ctx, cfg)
	if err != nil {
		return err
	}
	var column *catalog.TableColumn
	for _, t := range tables {
		if t.Name == account.Table {
			column = t.Column(account.ID)
		}
	}
	if column == nil {
		return &Fault{Problem: fmt.Sprintf("the source has no table %s with a column %s, which account of the catalog names", account.Table, schemas.QuoteIdent(account.ID)),
			Fix: "correct account in the catalog file, or change the table first"}
	}
	conn, err := cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer CloseConn(ctx, conn)
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT %s::text FROM %s", schemas.QuoteIdent(account.ID), account.Table))
	if err == nil {
		var id *string
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
			if id == nil {
				return nil
			}
			if normal, err := column.Equality.NormalID(*id); err == nil {
				each(schemas.Storable(normal))
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read the ids of the accounts: %w", err)
	}
	return nil
}
