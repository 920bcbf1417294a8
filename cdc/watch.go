package cdc

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
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
	warned := map[schemas.TableName]bool{}
	for {
		report, err := source.report(ctx, r.cfg.Slot)
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
		if err := r.watchChildren(ctx, source, warned); err != nil {
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
	_, err := r.cfg.judgePublication(schemas.LSN(r.metrics.flushed.Load()), before.publication, now)
	return err
}

// unpublishedChildrenSQL finds the tables that inherit from a published table
// of the catalog and are not published: those that were made since.
const unpublishedChildrenSQL = `
	WITH RECURSIVE named (oid) AS (
		SELECT c.oid FROM unnest($2::text[], $3::text[]) AS t (namespace, name)
		JOIN pg_namespace n ON n.nspname = t.namespace JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name AND c.relkind = 'r'
	), tree (oid) AS (
		SELECT n.oid FROM named n JOIN pg_publication_rel r ON r.prrelid = n.oid JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = $1
		UNION
		SELECT c.oid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
		JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r' AND NOT c.relispartition AND c.relpersistence = 'p'
		WHERE c.oid NOT IN (SELECT oid FROM named)
	)
	SELECT n.nspname::text, c.relname::text FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1 AND r.prrelid = c.oid)`

// watchChildren names, once each, the tables whose rows are a published
// table's by inheritance and that are not published.
func (r *Reader) watchChildren(ctx context.Context, source *catalogReader, warned map[schemas.TableName]bool) error {
	namespaces, names := tableNames(r.cfg.Catalog)
	rows, err := source.conn.Query(ctx, unpublishedChildrenSQL, r.cfg.Publication, namespaces, names)
	var children []schemas.TableName
	if err == nil {
		children, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.TableName])
	}
	if err != nil {
		return fmt.Errorf("look for children that are not published: %w", err)
	}
	for _, child := range children {
		if !warned[child] {
			warned[child] = true
			r.log.Error("table inherits from a published one and is not published: its rows are not sent; 'walhook doctor' prints the statements",
				zap.Stringer("table", child))
		}
	}
	return nil
}
