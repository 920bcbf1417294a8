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

// noSecretKey is what setup warns of before it stores the first signing secret.
const noSecretKey = "--secret-key is not set: signing secrets are stored in clear; 'head -c 32 /dev/urandom | base64' makes a key for every walhook process, " +
	"and 'walhook endpoints reseal' encrypts with it what is stored by then"

// prepare makes source and outbox ready: migrations, publication, replica identities,
// slot and initial snapshot. It leaves unchanged what exists already.
func prepare(ctx context.Context, from source.Config, store *outbox.Store, outboxURL string, acceptGap bool, log *zap.Logger) error {
	plan, err := source.PlanSetup(ctx, from)
	if err != nil {
		return err
	}
	if !store.Access().Secrets.HasKey() {
		log.Warn(noSecretKey)
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
