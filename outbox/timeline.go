package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const followSQL = `UPDATE walhook.source SET timeline = $1, changed_at = clock_timestamp() WHERE timeline <> $1`

// Follow notes that the source has moved on to another timeline. What is
// stored lies on both.
func (p *Publisher) Follow(ctx context.Context, timeline int32) error {
	err := pgx.BeginFunc(ctx, p.store.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, assertEpochSQL, p.epoch); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, followSQL, timeline)
		return err
	})
	if err != nil {
		return fmt.Errorf("note the source's timeline %d: %w", timeline, fenceError(err))
	}
	return nil
}
