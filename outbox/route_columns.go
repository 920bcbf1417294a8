package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// columnCache remembers the columns of accounts that rules ask for, each as
// JSON ([schemas.Account.Columns]). Like the cache of owners it keeps two
// generations; nil stands for an account of which nothing is known.
type columnCache struct {
	young, old map[string][]string
}

// columnGeneration is how many accounts one generation holds before the next
// begins; a batch may go beyond.
const columnGeneration = 5_000

func newColumnCache() *columnCache { return &columnCache{young: map[string][]string{}} }

func (c *columnCache) get(account string) []string {
	columns, _ := c.look(account)
	return columns
}

func (c *columnCache) look(account string) (columns []string, known bool) {
	if columns, known = c.young[account]; known {
		return columns, true
	}
	if columns, known = c.old[account]; known {
		c.young[account] = columns
	}
	return columns, known
}

func (c *columnCache) age() {
	if len(c.young) >= columnGeneration {
		c.old, c.young = c.young, map[string][]string{}
	}
}

const (
	columnsSQL = `SELECT account, columns, coalesce(array_ndims(columns), 1) FROM walhook.account_column WHERE account = ANY ($1)`

	writeColumnsSQL = `
		INSERT INTO walhook.account_column (account, columns) VALUES ($1, $2)
		ON CONFLICT (account) DO UPDATE SET columns = excluded.columns, deleted_at = NULL`

	// A cascade deletes accounts before what is theirs.
	forgetColumnsSQL = `UPDATE walhook.account_column SET deleted_at = clock_timestamp() WHERE account = ANY ($1)`

	truncateColumnsSQL = `DELETE FROM walhook.account_column`
)

// fetchColumns reads the columns of the accounts that routing the batch may ask
// for. It comes after fetchOwners.
func (r *router) fetchColumns(ctx context.Context) error {
	if len(r.p.catalog.AccountColumns()) == 0 {
		return nil
	}
	r.p.columns.age()
	var wanted []string
	want := func(account string) {
		if _, known := r.p.columns.look(account); !known && account != "" {
			r.p.columns.young[account] = nil
			wanted = append(wanted, account)
		}
	}
	for i := r.part.first; i < r.part.end; i++ {
		if plan := r.plans[i]; plan != nil {
			r.accountsOf(plan, r.changes[i].Old, want)
			r.accountsOf(plan, r.changes[i].New, want)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	err := isolate(wanted, isReadFault, func(accounts []string) error { return r.readColumns(ctx, accounts) }, func(account string, cause error) error {
		r.p.columns.young[account] = nil
		r.p.store.setAside(ctx, loopAccounts, asideColumns+account, 0, asideUnreadable, cause)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the columns of %d accounts: %w", len(wanted), err)
	}
	return nil
}

// readColumns reads those of the accounts. What is no JSON would spoil the
// bodies that it is written into.
func (r *router) readColumns(ctx context.Context, accounts []string) error {
	rows, err := r.p.store.pool.Query(ctx, columnsSQL, accounts)
	if err != nil {
		return err
	}
	var account string
	var columns []string
	var dimensions int
	var well []string
	_, err = pgx.ForEachRow(rows, []any{&account, &columns, &dimensions}, func() error {
		if columns == nil || dimensions != 1 { // pgx would read it as one longer list
			return &badItem{asideUnreadable, "the columns of the account are no list"}
		}
		columns, err := r.p.store.secrets.openColumns(account, columns)
		if err != nil {
			return &badItem{asideUnreadable, err.Error()}
		}
		for _, column := range columns {
			if column != "" && !json.Valid([]byte(column)) {
				return &badItem{asideUnreadable, "a column of the account is no JSON"}
			}
		}
		r.p.columns.young[account] = columns
		well = append(well, account)
		return nil
	})
	for _, account := range well {
		r.p.store.wellAgain(ctx, loopAccounts, asideColumns+account)
	}
	return err
}

// accountsOf gives every account that a row may turn out to belong to.
func (r *router) accountsOf(plan *catalog.Plan, row schemas.Tuple, want func(account string)) {
	if row == nil {
		return
	}
	if plan.Account != nil {
		if account, ok := plan.AccountOf(row); ok {
			want(account.ID)
		}
	}
	if plan.Schema == nil || len(r.p.derives) == 0 {
		return
	}
	if key, ok := plan.Key(row); ok {
		o, _ := r.p.owners.get(recordKey{plan.Schema.Name, key})
		want(o.account)
	}
	key, ok := plan.OwnerKey(row)
	switch parent := plan.Schema.Owner.Schema; {
	case !ok:
	case parent == "":
		want(key)
	default:
		o, _ := r.p.owners.get(recordKey{parent, key})
		want(o.account)
	}
}

// setColumns follows the columns of an account; begins says that it was not
// there before. What was not sent stays as it is known.
func (r *router) setColumns(account string, columns []string, begins bool) {
	if len(columns) == 0 {
		return
	}
	known, _ := r.p.columns.look(account)
	columns = slices.Clone(columns)
	for i := range columns {
		if columns[i] == "" && i < len(known) {
			columns[i] = known[i]
		}
	}
	if slices.Equal(columns, known) && !begins {
		return
	}
	r.p.columns.young[account] = columns
	r.columns[account] = columns
	delete(r.columnsGone, account)
}

// dropColumns notes that an account is gone. What was known of it stays known
// until retention ends.
func (r *router) dropColumns(account string) {
	if len(r.p.catalog.AccountColumns()) > 0 {
		r.columnsGone[account] = true
	}
}

func (r *router) queueColumns(b *pgx.Batch) {
	if r.treeGone && len(r.p.catalog.AccountColumns()) > 0 {
		b.Queue(truncateColumnsSQL)
	}
	for account, columns := range r.columns {
		stored := make([]string, len(columns))
		for i := range columns {
			stored[i] = r.p.store.encoding.json(columns[i])
		}
		b.Queue(writeColumnsSQL, account, r.p.store.secrets.sealColumns(account, stored))
	}
	if len(r.columnsGone) > 0 {
		gone := make([]string, 0, len(r.columnsGone))
		for account := range r.columnsGone {
			gone = append(gone, account)
		}
		b.Queue(forgetColumnsSQL, gone)
	}
}
