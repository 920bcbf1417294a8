package cdc

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
)

const retainedSQL = `
	SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::float8
	FROM pg_replication_slots WHERE slot_name = $1`

// watch keeps the gauge of the WAL that the slot holds back, and ends when the
// publication no longer holds what was published: nothing else would tell. It
// has a session of its own: the receiver's is not shared.
func (r *Reader) watch(ctx context.Context, published []schemas.TableName) error {
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
		if err := r.watchPublication(ctx, source, published); err != nil {
			return err
		}
		if !sleep(ctx, r.watchEvery) {
			return context.Cause(ctx)
		}
	}
}

// publishedSQL lists what the publication holds, in the words of unpublished.
const publishedSQL = `SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1`

func (r *catalogReader) published(ctx context.Context, cfg Config) ([]schemas.TableName, error) {
	rows, err := r.conn.Query(ctx, publishedSQL, cfg.Publication)
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.TableName])
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
	}
	return tables, nil
}

// watchPublication finds a publication that was narrowed or dropped. A table of
// the catalog that is new is no reason to stop: the next start notices it.
func (r *Reader) watchPublication(ctx context.Context, source *catalogReader, before []schemas.TableName) error {
	var now slotState
	if err := source.inspectPublication(ctx, r.cfg, &now); err != nil {
		return err
	}
	now.unpublished = slices.DeleteFunc(now.unpublished, func(table schemas.TableName) bool {
		return !slices.Contains(before, table)
	})
	return r.cfg.checkPublication(now)
}
