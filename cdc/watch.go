package cdc

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"walhook/schemas"
)

const retainedSQL = `
	SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::float8
	FROM pg_replication_slots WHERE slot_name = $1`

// watch keeps the gauge of the WAL that the slot holds back, and ends when the
// publication no longer holds what was published: nothing else would tell. It
// has a session of its own: the receiver's is not shared.
func (r *Reader) watch(ctx context.Context, before slotState) error {
	source, err := newCatalogReader(ctx, r.cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	for {
		var retained float64
		if err := source.conn.QueryRow(ctx, retainedSQL, r.cfg.Slot).Scan(&retained); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("look at slot %s: %w", r.cfg.Slot, err)
		}
		r.metrics.retained.Set(retained)
		r.log.Debug("slot", zap.String("slot", r.cfg.Slot), zap.Float64("retained_bytes", retained))
		if err := r.watchPublication(ctx, source, before); err != nil {
			return err
		}
		if !sleep(ctx, r.watchEvery) {
			return context.Cause(ctx)
		}
	}
}

// watchPublication finds a publication that was narrowed, dropped or made anew:
// what was changed meanwhile is not in the stream. A table of the catalog that
// is new is no reason to stop: the next start notices it.
func (r *Reader) watchPublication(ctx context.Context, source *catalogReader, before slotState) error {
	var now slotState
	if err := source.inspectPublication(ctx, r.cfg, &now); err != nil {
		return err
	}
	now.unpublished = slices.DeleteFunc(now.unpublished, func(table schemas.TableName) bool {
		return !slices.Contains(before.published, table)
	})
	return r.cfg.checkPublication(schemas.LSN(r.metrics.flushed.Load()), before.publication, now)
}
