package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const (
	orderingSQL = `SELECT ordering FROM walhook.endpoint WHERE account = $1 AND webhook = 'account'`

	setOrderingSQL = `
		UPDATE walhook.endpoint SET ordering = $2, revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING ` + infoColumns

	// Without an order nothing waits behind another event.
	releaseParkedSQL = `
		UPDATE walhook.retry SET next_at = clock_timestamp() WHERE endpoint = $1 AND next_at IS NULL`
)

// Ordering tells which of an account's events wait for each other.
// [ErrNoEndpoint] when it has no endpoint.
func (s *Store) Ordering(ctx context.Context, account string) (ordering Ordering, err error) {
	err = s.pool.QueryRow(ctx, orderingSQL, account).Scan(&ordering)
	if isNoRows(err) {
		err = ErrNoEndpoint
	}
	if err != nil {
		return "", fmt.Errorf("read the ordering of account %s: %w", account, err)
	}
	return ordering, nil
}

// SetOrdering chooses which of an account's events wait for each other, from
// the next one on that a sender starts. The one that is in force changes
// nothing. [ErrNoEndpoint] when there is none.
func (s *Store) SetOrdering(ctx context.Context, account string, ordering Ordering) (EndpointInfo, error) {
	switch ordering {
	case OrderingNone, OrderingRecord, OrderingStrict:
	default:
		return EndpointInfo{}, fmt.Errorf("ordering %q: want none, record or strict", string(ordering))
	}
	return s.operate(ctx, Caller{}, account, AccountWebhook, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
		if e.Ordering == ordering {
			return e, nil
		}
		if ordering == OrderingNone {
			if _, err := tx.Exec(ctx, releaseParkedSQL, e.ID); err != nil {
				return e, err
			}
		}
		rows, err := tx.Query(ctx, setOrderingSQL, e.ID, string(ordering))
		if err != nil {
			return e, err
		}
		return pgx.CollectExactlyOneRow(rows, scanEndpointInfo)
	})
}
