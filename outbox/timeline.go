package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const (
	followSQL = `UPDATE walhook.source SET timeline = $1, database = $2, changed_at = clock_timestamp() WHERE (timeline, database) <> ($1, $2)`

	// What was changed on the source is undone under the new name.
	followChangesSQL = `
		UPDATE walhook.source_change c SET database = $1 FROM walhook.source s
		WHERE c.system_id = s.system_id AND c.database = s.database AND c.database <> $1`
)

// Follow notes that the source has moved on to another timeline, or that its
// database has another name. What is stored lies on both.
func (p *Publisher) Follow(ctx context.Context, timeline int32, database string) error {
	err := pgx.BeginFunc(ctx, p.store.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, assertEpochSQL, p.epoch); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, followChangesSQL, database); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, followSQL, timeline, database)
		return err
	})
	if err != nil {
		return fmt.Errorf("record the source's timeline %d and database %s: %w", timeline, database, fenceError(err))
	}
	return nil
}
