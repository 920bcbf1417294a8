package cdc

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

const (
	watchEvery = 10 * time.Second

	retainedSQL = `
		SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::float8
		FROM pg_replication_slots WHERE slot_name = $1`
)

// watchSlot keeps the gauge of the WAL that the slot holds back. It has a
// session of its own: the receiver's is not shared.
func (r *Reader) watchSlot(ctx context.Context) error {
	conn, err := r.cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	for {
		var retained float64
		if err := conn.QueryRow(ctx, retainedSQL, r.cfg.Slot).Scan(&retained); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("look at slot %s: %w", r.cfg.Slot, err)
		}
		r.metrics.retained.Set(retained)
		r.log.Debug("slot", zap.String("slot", r.cfg.Slot), zap.Float64("retained_bytes", retained))
		if !sleep(ctx, watchEvery) {
			return context.Cause(ctx)
		}
	}
}
