package cdc

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"walhook/schemas"
)

// watch keeps the metrics of the slot while the reader reads, and ends when the
// publication no longer holds what was published: nothing else would tell. It
// has a session of its own: the receiver's is not shared.
func (r *Reader) watch(ctx context.Context, before slotState) error {
	source, err := newCatalogReader(ctx, r.cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	for {
		// A source that has gone silent is not up, though its connections stand.
		silent := time.AfterFunc(lookTimeout, r.metrics.unknown)
		report, err := source.report(ctx, r.cfg.Slot)
		silent.Stop()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		r.metrics.observed(report)
		r.store.Seen(report.WALEnd, report.At)
		r.log.Debug("slot", zap.String("slot", r.cfg.Slot), zap.Float64("retained_bytes", report.Retained), zap.String("wal_status", report.WALStatus))
		if err := r.watchPublication(ctx, source, before); err != nil {
			return err
		}
		r.held(report)
		for next := time.Now().Add(r.watchEvery); time.Now().Before(next); {
			if !sleep(ctx, min(markEvery, time.Until(next))) {
				return context.Cause(ctx)
			}
			end, err := source.walEnd(ctx)
			if err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return err
			}
			r.metrics.lag.mark(end, time.Now())
		}
	}
}

// held takes note of a source that sends nothing until its own standbys have it.
func (r *Reader) held(report SlotReport) {
	why := report.Held()
	before := r.heldBack.Swap(&why)
	if why != "" && time.Since(r.heldTold) >= remindEvery {
		r.heldTold = time.Now()
		r.log.Warn("the source holds its changes back", zap.String("slot", r.cfg.Slot), zap.String("reason", why))
	}
	if why == "" && before != nil && *before != "" {
		r.heldTold = time.Time{}
		r.log.Info("the source sends its changes again", zap.String("slot", r.cfg.Slot))
	}
}

// HeldBack says why the source sends nothing, in words; "" where it does.
func (r *Reader) HeldBack() string {
	if why := r.heldBack.Load(); why != nil && r.State() == Reading {
		return *why
	}
	return ""
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
	_, err := r.cfg.judgePublication(schemas.LSN(r.metrics.flushed.Load()), before.publication, now)
	return err
}
