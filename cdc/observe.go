package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.uber.org/zap"

	"walhook/schemas"
)

const reportSQL = `
	SELECT CASE WHEN slot_name IS NULL THEN 'missing' ELSE coalesce(wal_status, 'lost') END, coalesce(confirmed_flush_lsn, '0/0')::text, pg_current_wal_lsn()::text,
		coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::float8,
		CASE WHEN current_setting('max_slot_wal_keep_size')::text LIKE '-%' THEN -1
			ELSE pg_size_bytes(current_setting('max_slot_wal_keep_size')) END::float8
	FROM (VALUES ($1)) AS wanted (name) LEFT JOIN pg_replication_slots ON slot_name = wanted.name`

// slotMissing stands among the values of pg_replication_slots.wal_status for a
// slot that does not exist.
const slotMissing = "missing"

func slotStatuses() []string {
	return []string{"reserved", "extended", "unreserved", "lost", slotMissing}
}

// slotReport is what a slot costs its server.
type slotReport struct {
	status    string      // one of slotStatuses
	confirmed schemas.LSN // 0 where it does not exist
	walEnd    schemas.LSN
	retained  float64 // bytes
	limit     float64 // bytes; +Inf for none
}

func (r *catalogReader) report(ctx context.Context, slot string) (s slotReport, err error) {
	var confirmed, end string
	err = r.conn.QueryRow(ctx, reportSQL, slot).Scan(&s.status, &confirmed, &end, &s.retained, &s.limit)
	if err != nil {
		return s, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	if s.limit < 0 {
		s.limit = math.Inf(1)
	}
	var endErr error
	s.confirmed, err = schemas.ParseLSN(confirmed)
	s.walEnd, endErr = schemas.ParseLSN(end)
	return s, errors.Join(err, endErr)
}

// observe keeps the metrics of slot and source true while the reader does not
// read: as a standby, and while the outbox is away, which is when the slot
// fills the source's disk. While it reads, watch does so with its own session.
func (r *Reader) observe(ctx context.Context) {
	var source *catalogReader
	defer func() {
		if source != nil {
			source.close(ctx)
		}
	}()
	for {
		if r.State() == Reading {
			if source != nil {
				source.close(ctx)
				source = nil
			}
		} else {
			source = r.look(ctx, source)
		}
		if !sleep(ctx, r.watchEvery) {
			return
		}
	}
}

// look asks the source once, over the session that it gets and answers; nil
// stands for none. What is wrong is told by whoever tries to read.
func (r *Reader) look(ctx context.Context, source *catalogReader) *catalogReader {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("look at the slot: no answer in time"))
	defer cancel()
	var err error
	if source == nil {
		source, err = newCatalogReader(ctx, r.cfg)
	}
	var report slotReport
	if err == nil {
		report, err = source.report(ctx, r.cfg.Slot)
	}
	if err != nil {
		if source != nil {
			source.close(ctx)
		}
		if r.State() != Reading {
			r.metrics.unknown()
		}
		r.log.Debug("source cannot be asked", zap.Error(err))
		return nil
	}
	if r.State() != Reading {
		r.metrics.observed(report)
		r.metrics.flushed.Store(uint64(report.confirmed))
	}
	return source
}

// lookTimeout bounds connecting and asking.
const lookTimeout = 15 * time.Second
