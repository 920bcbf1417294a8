package main

import (
	"context"

	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/schemas"
)

// snapshotStore adapts the outbox's publisher to source.SnapshotStore, since the two
// packages do not import each other.
type snapshotStore struct{ *outbox.Publisher }

func (s snapshotStore) LoadSnapshot(ctx context.Context, point schemas.LSN, fill func(source.SnapshotSink) error) error {
	return s.Publisher.LoadSnapshot(ctx, point, func(w *outbox.SnapshotWriter) error { return fill(w) })
}

// prepare makes source and outbox ready: migrations, publication, replica identities,
// slot and initial snapshot. It leaves unchanged what exists already.
func prepare(ctx context.Context, from source.Config, store *outbox.Store, outboxURL string, acceptGap bool, log *zap.Logger) error {
	plan, err := source.PlanSetup(ctx, from)
	if err != nil {
		return err
	}
	if plan.PublishesEverything() {
		system, database, err := store.Identity(ctx)
		if err == nil {
			err = plan.PublishesOutbox(from, system, database)
		}
		if err != nil {
			return err
		}
	}
	if err := outbox.Migrate(ctx, outboxURL); err != nil {
		return err
	}
	if !acceptGap {
		stored, err := store.Checkpoint(ctx)
		if err != nil {
			return err
		}
		if err := source.CheckPublication(ctx, from, stored); err != nil {
			return err
		}
	}
	if err := plan.Apply(ctx, from, store, log); err != nil {
		return err
	}
	return source.Snapshot(ctx, from, snapshotStore{store.Publisher(from.Catalog)}, acceptGap, log)
}
