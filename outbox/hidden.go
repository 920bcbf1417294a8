package outbox

import (
	"context"
	"fmt"

	"walhook/schemas"
)

const hideSQL = `UPDATE walhook.owner SET hidden = true WHERE schema = $1 AND key = ANY ($2)`

// Hidden notes that the publication's row filter hides records whose owners were stored
// before.
func (w *SnapshotWriter) Hidden(ctx context.Context, schema string, keys []string) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	stored := make([]string, len(keys))
	for i, key := range keys {
		stored[i] = w.store.encoding.text(schemas.Storable(key))
	}
	if _, err := w.tx.Exec(ctx, hideSQL, schema, stored); err != nil {
		return fmt.Errorf("store which records a row filter hides: %w", err)
	}
	return nil
}
