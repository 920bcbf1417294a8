package admin

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/outbox/address"
)

// FoundEndpoint is an endpoint that a search has found.
type FoundEndpoint struct {
	Account string
	Webhook string
	Name    string
	URL     string // user information and query left out
	State   outbox.EndpointState
	Reason  string
}

// maxFound is how many endpoints a search finds, and findLooks how many it looks at.
const (
	maxFound  = 50
	findLooks = 200_000
)

// The account itself comes first, by its index; then whatever holds the text, among the
// newest endpoints. What is sealed of a URL is not searched.
const findEndpointsSQL = `
	SELECT account, webhook, name, coalesce(url, ''), state, reason FROM (
		(SELECT *, 0 AS far FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL LIMIT $3)
		UNION ALL
		(SELECT * FROM (SELECT *, 1 AS far FROM walhook.endpoint ORDER BY id DESC LIMIT $4) newest
		WHERE deleted_at IS NULL AND account NOT IN ($1, '') AND (account ILIKE $2 OR name ILIKE $2 OR split_part(url, '?', 1) ILIKE $2) LIMIT $3)) found
	ORDER BY far, id DESC LIMIT $3`

// FindEndpoints finds endpoints by the id of their account, or by a part of it, of their
// name or of their URL. It finds at most 50.
func (a *Admin) FindEndpoints(ctx context.Context, text string) ([]FoundEndpoint, error) {
	pattern := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
	rows, err := a.pool.Query(ctx, findEndpointsSQL, text, pattern, maxFound, findLooks)
	if err == nil {
		var list []FoundEndpoint
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (f FoundEndpoint, err error) {
			if err = row.Scan(&f.Account, &f.Webhook, &f.Name, &f.URL, &f.State, &f.Reason); err == nil {
				f.URL = address.Redact(f.URL)
			}
			return f, err
		})
		if err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("find endpoints: %w", err)
}
