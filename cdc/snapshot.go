package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
)

// SnapshotStore keeps the first snapshot. It loads nothing by itself: the
// functions that it is given write through the sink.
type SnapshotStore interface {
	Store
	// BeginSnapshot notes durably that the source's slot is about to be made.
	BeginSnapshot(ctx context.Context, source schemas.Source) error
	// SnapshotBegun says whether that was noted for slot and not finished.
	SnapshotBegun(ctx context.Context, slot string) (bool, error)
	// LoadSnapshot stores all that fill writes and the point, at one stroke.
	LoadSnapshot(ctx context.Context, point schemas.LSN, fill func(SnapshotSink) error) error
}

// SnapshotSink takes the rows of the first snapshot.
type SnapshotSink interface {
	Account(ctx context.Context, account schemas.Account) error
	Owner(ctx context.Context, edge schemas.OwnerEdge) error
	Describe(ctx context.Context, list []*schemas.TableDescription) error
}

// Snapshot makes the slot and stores, with its consistent point as the first
// position, the accounts and owners as they are at that point. It does nothing
// when a position is stored already or somebody reads the slot, unless
// acceptGap: then it starts over.
//
// Making a slot waits for every transaction that is running in the cluster;
// those that hold it up are named in the log.
func Snapshot(ctx context.Context, cfg Config, store SnapshotStore, acceptGap bool, log *zap.Logger) error {
	cfg = cfg.withDefaults()
	source, err := newCatalogReader(ctx, cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	conn, err := cfg.connectReplication(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	now, err := identify(ctx, conn)
	if err != nil {
		return err
	}
	slot, err := source.inspect(ctx, cfg)
	if err != nil {
		return err
	}
	if slot.active && !acceptGap {
		// Taking over would take the log away from whoever reads it.
		log.Info("somebody reads the slot, the source is set up", zap.String("slot", cfg.Slot))
		return nil
	}
	if slot.active {
		return &Fault{Problem: fmt.Sprintf("slot %s is in use", cfg.Slot), Mend: "stop the walhook that reads it, or choose another name with --slot"}
	}
	checkpoint, err := store.TakeOver(ctx)
	if err != nil {
		return err
	}
	if !acceptGap && checkpoint.Source != (schemas.Source{}) {
		return cfg.check(checkpoint, now, slot)
	}
	if err := clearSlot(ctx, cfg, conn, store, slot, acceptGap); err != nil {
		return err
	}
	err = store.BeginSnapshot(ctx, schemas.Source{
		SystemID: now.id, Timeline: now.timeline, Database: now.database,
		Slot: cfg.Slot, Publication: cfg.Publication, PublicationOID: slot.publication,
		Catalog: cfg.Catalog.Fingerprint(),
	})
	if err != nil {
		return err
	}
	point, name, err := createSlot(ctx, cfg, conn, source, log)
	if err != nil {
		return err
	}
	began := time.Now()
	load := snapshotLoad{cfg: cfg, log: log, progress: began}
	err = store.LoadSnapshot(ctx, point, func(sink SnapshotSink) error {
		load.sink, load.point = sink, point
		return load.read(ctx, name)
	})
	if err != nil {
		return err
	}
	log.Info("first snapshot stored", zap.Stringer("lsn", point), zap.Int("accounts", load.accounts),
		zap.Int("owners", load.owners), zap.Duration("duration", time.Since(began)))
	return nil
}

// clearSlot drops a slot that is ours to drop: left by an interrupted
// snapshot, or given up with a gap.
func clearSlot(ctx context.Context, cfg Config, conn *pgconn.PgConn, store SnapshotStore, slot slotState, acceptGap bool) error {
	if !slot.exists {
		return nil
	}
	ours, err := store.SnapshotBegun(ctx, cfg.Slot)
	if err != nil {
		return err
	}
	if !ours && !acceptGap {
		return cfg.slotWithoutPosition()
	}
	if err := pglogrepl.DropReplicationSlot(ctx, conn, cfg.slotIdent(), pglogrepl.DropReplicationSlotOptions{}); err != nil {
		return fmt.Errorf("drop slot %s: %w", cfg.Slot, err)
	}
	return nil
}
