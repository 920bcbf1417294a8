package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// FoundKey is where a page of found endpoints ends.
type FoundKey struct {
	Own bool  `json:"own,omitempty"` // it is among those of the account that was looked for
	ID  int64 `json:"id"`
}

// findLooks is how many endpoints a page of a search looks at.
const findLooks = 200_000

const (
	// Those of the account itself come first, by its index, as it has few; then whatever
	// holds the text, newest first. What is sealed of a URL is not searched.
	findEndpointsSQL = `
		WITH own AS MATERIALIZED (SELECT * FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL)
		SELECT far = 0, id, account, webhook, name, coalesce(url, ''), state, reason FROM (
			(SELECT *, 0 AS far FROM own WHERE id < $5 ORDER BY id DESC LIMIT $3)
			UNION ALL
			(SELECT * FROM (SELECT *, 1 AS far FROM walhook.endpoint WHERE id < $6 ORDER BY id DESC LIMIT $4) newest
			WHERE deleted_at IS NULL AND account NOT IN ($1, '') AND (account ILIKE $2 OR name ILIKE $2 OR split_part(url, '?', 1) ILIKE $2) ORDER BY id DESC LIMIT $3)) found
		ORDER BY far, id DESC LIMIT $3`

	lastLookSQL = `SELECT id FROM walhook.endpoint WHERE id < $1 ORDER BY id DESC OFFSET $2 LIMIT 1`
)

// FindEndpoints finds endpoints by the id of their account, or by a part of it, of their
// name or of their URL, after a page that ended there; nil begins. next is where the page
// ends, and nil when nothing can follow. A page looks at 200,000 endpoints, so it may
// have fewer than limit, or none, and a next one all the same.
func (a *Admin) FindEndpoints(ctx context.Context, text string, after *FoundKey, limit int) (list []FoundEndpoint, next *FoundKey, err error) {
	if list, next, err = a.findEndpoints(ctx, text, after, limit, findLooks); err != nil {
		return nil, nil, fmt.Errorf("find endpoints: %w", err)
	}
	return list, next, nil
}

func (a *Admin) findEndpoints(ctx context.Context, text string, after *FoundKey, limit, looks int) (list []FoundEndpoint, next *FoundKey, err error) {
	own, rest := int64(math.MaxInt64), int64(math.MaxInt64)
	switch {
	case after == nil:
	case after.Own:
		own = after.ID
	default:
		own, rest = 0, after.ID
	}
	pattern := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
	rows, err := a.pool.Query(ctx, findEndpointsSQL, text, pattern, limit+1, looks, own, rest)
	if err != nil {
		return nil, nil, err
	}
	var keys []FoundKey
	list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (f FoundEndpoint, err error) {
		var key FoundKey
		if err = row.Scan(&key.Own, &key.ID, &f.Account, &f.Webhook, &f.Name, &f.URL, &f.State, &f.Reason); err == nil {
			f.URL = address.Redact(f.URL)
			keys = append(keys, key)
		}
		return f, err
	})
	switch {
	case err != nil:
		return nil, nil, err
	case len(list) > limit:
		return list[:limit], &keys[limit-1], nil
	}
	var last int64 // that the page looked at
	if err := a.pool.QueryRow(ctx, lastLookSQL, rest, looks-1).Scan(&last); errors.Is(err, pgx.ErrNoRows) {
		return list, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	return list, &FoundKey{ID: last}, nil
}
