package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// SnapshotStore keeps the first snapshot. It loads nothing by itself: the
// functions that it is given write through the sink.
type SnapshotStore interface {
	Store
	// BeginSnapshot notes durably that the source's slot is about to be made.
	BeginSnapshot(ctx context.Context, source schemas.Source) error
	// SnapshotBegun says whether that was noted for slot and not finished.
	SnapshotBegun(ctx context.Context, slot string) (bool, error)
	// Checkpoint reads what is stored without taking over. It is zero where no
	// first snapshot is.
	Checkpoint(ctx context.Context) (schemas.Checkpoint, error)
	// LoadSnapshot stores all that fill writes and the point, at one stroke.
	LoadSnapshot(ctx context.Context, point schemas.LSN, fill func(SnapshotSink) error) error
}

// SnapshotSink takes the rows of the first snapshot.
type SnapshotSink interface {
	Account(ctx context.Context, account schemas.Account) error
	Owner(ctx context.Context, edge schemas.OwnerEdge) error
	Describe(ctx context.Context, list []*catalog.TableDescription) error
}

// Snapshot makes the slot and stores, with its consistent point as the first
// position, the accounts and owners as they are at that point. It does nothing
// when a position is stored already, unless acceptGap: then it starts over. A
// slot that somebody reads without a stored position is refused.
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
	slot, setUp, err := awaitSlot(ctx, cfg, source, store, acceptGap)
	if err != nil {
		return err
	}
	if setUp {
		// Taking over would take the log away from whoever reads it.
		log.Info("somebody reads the slot, the source is set up", zap.String("slot", cfg.Slot))
		return nil
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

// releaseWait is how long a slot may take to be released: the server notices a
// reader that has ended only a moment later.
const (
	releaseWait = 5 * time.Second
	releasePoll = 100 * time.Millisecond
)

// awaitSlot waits until nobody reads the slot, or says that the source is set
// up and read. A [*Fault] says that somebody keeps a slot that is not set up.
func awaitSlot(ctx context.Context, cfg Config, source *catalogReader, store SnapshotStore, acceptGap bool) (slot slotState, setUp bool, err error) {
	for end := time.Now().Add(releaseWait); ; {
		if slot, err = source.inspect(ctx, cfg); err != nil || !slot.active {
			return slot, false, err
		}
		if !acceptGap {
			stored, err := store.Checkpoint(ctx)
			if err != nil {
				return slot, false, err
			}
			switch stored.Source.Slot {
			case cfg.Slot:
				return slot, true, nil
			case "":
			default:
				return slot, false, cfg.otherSlot(stored.Source.Slot)
			}
		}
		if time.Now().After(end) {
			return slot, false, cfg.slotInUse(acceptGap)
		}
		if !sleep(ctx, releasePoll) {
			return slot, false, context.Cause(ctx)
		}
	}
}

func (c Config) slotInUse(acceptGap bool) error {
	problem := fmt.Sprintf("slot %s is in use", c.Slot)
	if !acceptGap {
		problem += ", and no snapshot of it is stored"
	}
	return &Fault{Problem: problem, Mend: "stop whoever reads it (active_pid in pg_replication_slots) or wait for the setup that runs, then run this again; " +
		"or choose another name with --slot"}
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
	if err := pglogrepl.DropReplicationSlot(ctx, conn, cfg.slotIdent(), pglogrepl.DropReplicationSlotOptions{}); sqlState(err) == codeObjectInUse {
		return cfg.slotInUse(acceptGap)
	} else if err != nil {
		return fmt.Errorf("drop slot %s: %w", cfg.Slot, err)
	}
	return nil
}
