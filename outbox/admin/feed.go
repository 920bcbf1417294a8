package admin

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// Feed reads a stretch of a webhook's events in the order of the event log.
func (a *Admin) Feed(ctx context.Context, q outbox.FeedQuery) (outbox.FeedPage, error) {
	return a.store.Feed(ctx, q)
}

// CallerFor is a caller, and the account that it acts for.
type CallerFor struct {
	Caller
	Account string
}

const (
	// [Admits] for many at once, by their numbers.
	admitsEachSQL = `
		SELECT u.n FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY u (account, token, token_account, n)
		JOIN walhook.token t ON t.id = u.token AND t.account = u.token_account
		WHERE t.account = u.account OR t.subaccounts AND EXISTS (
			WITH RECURSIVE above AS (
				SELECT parent FROM walhook.account WHERE id = u.account AND ended_in IS NULL
				UNION
				SELECT a.parent FROM walhook.account a JOIN above ON a.id = above.parent WHERE a.ended_in IS NULL)
			SELECT FROM above WHERE parent = t.account)`
)

// Revisions are those of the named endpoints that are not deleted.
func (a *Admin) Revisions(ctx context.Context, endpoints []int64) (map[int64]int64, error) {
	return a.store.Revisions(ctx, endpoints)
}

// AdmitsEach says of many callers whether each may still act for its account, as
// [Admin.Admits] says of one. Sessions of the portal are asked one by one.
func (a *Admin) AdmitsEach(ctx context.Context, callers []CallerFor) (may []bool, err error) {
	may = make([]bool, len(callers))
	var accounts, tokens, tokenAccounts []string
	var at []int
	for i, c := range callers {
		switch {
		case c.isOperator():
			may[i] = true
		case c.Session != "":
			may[i] = a.Admits(ctx, c.Caller, c.Account) == nil
		default:
			accounts, tokens, tokenAccounts, at = append(accounts, c.Account), append(tokens, c.Token), append(tokenAccounts, c.Caller.Account), append(at, i)
		}
	}
	if len(at) == 0 {
		return may, nil
	}
	rows, err := a.pool.Query(ctx, admitsEachSQL, accounts, tokens, tokenAccounts)
	var n int64
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&n}, func() error {
			may[at[n-1]] = true
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("look tokens up again: %w", err)
	}
	return may, nil
}
