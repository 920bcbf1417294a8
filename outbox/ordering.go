package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const (
	setOrderingSQL = `
		UPDATE walhook.endpoint SET ordering = $2, revision = revision + 1, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING ` + infoColumns

	// Without an order nothing waits behind another event.
	releaseParkedSQL = `
		UPDATE walhook.retry SET next_at = clock_timestamp() WHERE endpoint = $1 AND next_at IS NULL`
)

// SetOrdering chooses which of an account's events wait for each other, from
// the next one on that a sender starts. [ErrNoEndpoint] when there is none.
func (s *Store) SetOrdering(ctx context.Context, account string, ordering Ordering) (EndpointInfo, error) {
	switch ordering {
	case OrderingNone, OrderingRecord, OrderingStrict:
	default:
		return EndpointInfo{}, fmt.Errorf("ordering %q: want none, record or strict", string(ordering))
	}
	return s.operate(ctx, account, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
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
