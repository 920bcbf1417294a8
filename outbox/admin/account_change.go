package admin

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

const (
	stakeholdersSQL = `
		SELECT account FROM walhook.endpoint WHERE deleted_at IS NULL AND ended_at IS NULL
		UNION SELECT account FROM walhook.token`

	stakesSQL = `
		SELECT count(*) FILTER (WHERE e.webhook = 'account' AND e.state <> 'cleared'), count(*) FILTER (WHERE e.webhook <> 'account'),
			(SELECT count(*) FROM walhook.token t WHERE t.account = ANY ($1)),
			coalesce(sum((SELECT count(*) FROM walhook.retry r WHERE r.endpoint = e.id)), 0)
		FROM walhook.endpoint e WHERE e.deleted_at IS NULL AND e.ended_at IS NULL AND e.account = ANY ($1)`
)

// Stakes are what accounts have in the outbox, and lose when they end.
type Stakes struct {
	Accounts int64 `json:"accounts"` // with any of these
	URLs     int64 `json:"urls"`     // of account tables
	Webhooks int64 `json:"webhooks"` // that the API made
	Tokens   int64 `json:"tokens"`
	Waiting  int64 `json:"waiting"` // events that wait for a retry
}

// Stakeholders lists the accounts that have a URL, webhooks or tokens.
func (a *Admin) Stakeholders(ctx context.Context) ([]string, error) {
	rows, err := a.pool.Query(ctx, stakeholdersSQL)
	var accounts []string
	if err == nil {
		accounts, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("list the accounts that have webhooks: %w", err)
	}
	return accounts, nil
}

// StakesOf adds up what accounts have.
func (a *Admin) StakesOf(ctx context.Context, accounts []string) (sum Stakes, err error) {
	for some := range slices.Chunk(accounts, 10_000) {
		var s Stakes
		if err := a.pool.QueryRow(ctx, stakesSQL, some).Scan(&s.URLs, &s.Webhooks, &s.Tokens, &s.Waiting); err != nil {
			return sum, fmt.Errorf("count what accounts have: %w", err)
		}
		sum.URLs, sum.Webhooks, sum.Tokens, sum.Waiting = sum.URLs+s.URLs, sum.Webhooks+s.Webhooks, sum.Tokens+s.Tokens, sum.Waiting+s.Waiting
	}
	sum.Accounts = int64(len(accounts))
	return sum, nil
}
