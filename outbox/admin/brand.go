package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// AccountBrand is what the row of one account says of how the portal looks. Whoever can
// change the row wrote it: nothing of it is checked. nil stands for no value.
type AccountBrand struct {
	Account               string
	Name, Accent, Support *string
	// Unreadable says that the outbox has columns of the account which cannot be read.
	Unreadable bool
}

// maxAbove is how many accounts above one are asked for their brand.
const maxAbove = 32

// The row of the catalog tells that the columns are those that it names. A loop in the
// tree ends at the bound.
const brandsSQL = `
	WITH RECURSIVE line (account, depth) AS (
		SELECT $1::text, 0
		UNION ALL
		SELECT a.parent, line.depth + 1 FROM line JOIN walhook.account a ON a.id = line.account
		WHERE a.ended_in IS NULL AND line.depth < $2)
	SELECT (SELECT id FROM walhook.catalog WHERE state = 'in_force'), line.account, coalesce(array_to_json(c.columns)::text, '[]')
	FROM line JOIN walhook.account_column c ON c.account = line.account AND c.deleted_at IS NULL
	ORDER BY line.depth`

var errCatalogChanges = errors.New("the catalog changes: try again")

// Brands returns what the rows of an account and of the accounts above it say of how the
// portal looks, the account's own first; none if the catalog in force names no columns for
// it. catalogs follows that catalog.
func (a *Admin) Brands(ctx context.Context, catalogs *outbox.CatalogFollower, account string) ([]AccountBrand, error) {
	for range 3 { // a catalog may take effect between the two statements
		c, row := catalogs.InForce(ctx)
		named := c.Account.Brand
		if named.Name == "" && named.Accent == "" && named.Support == "" || row == 0 {
			return nil, nil
		}
		places := [3]int{}
		for i, column := range []string{named.Name, named.Accent, named.Support} {
			places[i] = slices.Index(c.AccountColumns(), column) // -1 for ""
		}
		brands, err := a.readBrands(ctx, account, row, len(c.AccountColumns()), places)
		if !errors.Is(err, errCatalogChanges) {
			return brands, err
		}
	}
	return nil, fmt.Errorf("read the brand of account %s: %w", account, errCatalogChanges)
}

func (a *Admin) readBrands(ctx context.Context, account string, row int64, kept int, places [3]int) (brands []AccountBrand, err error) {
	rows, err := a.pool.Query(ctx, brandsSQL, account, maxAbove)
	if err == nil {
		var of *int64
		var one AccountBrand
		var stored string
		_, err = pgx.ForEachRow(rows, []any{&of, &one.Account, &stored}, func() error {
			if of == nil || *of != row {
				return errCatalogChanges
			}
			brands = append(brands, a.openBrand(one.Account, stored, kept, places))
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the brand of account %s: %w", account, err)
	}
	return brands, nil
}

// openBrand reads the kept columns of an account. A damaged row is unreadable by itself.
func (a *Admin) openBrand(account, stored string, kept int, places [3]int) AccountBrand {
	brand := AccountBrand{Account: account}
	var columns []string
	err := json.Unmarshal([]byte(stored), &columns)
	if err == nil {
		columns, err = a.secrets.OpenColumns(account, columns)
	}
	if err != nil || len(columns) != kept {
		brand.Unreadable = true
		return brand
	}
	for i, to := range []**string{&brand.Name, &brand.Accent, &brand.Support} {
		if places[i] >= 0 {
			*to = columnText(columns[places[i]])
		}
	}
	return brand
}

// columnText is a kept column as text; nil for null, for an empty text, and for a column
// that the source did not send.
func columnText(kept string) *string {
	if kept == "" || kept == "null" {
		return nil
	}
	text := kept // a number, say
	if kept[0] == '"' {
		if json.Unmarshal([]byte(kept), &text) != nil {
			return &kept
		}
	}
	if text == "" {
		return nil
	}
	return &text
}
