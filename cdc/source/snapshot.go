package source

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

// SnapshotStore stores the initial snapshot. The function that it gets writes the rows
// through the sink.
type SnapshotStore interface {
	// TakeOver makes the caller the only writer and returns the stored position.
	TakeOver(ctx context.Context) (schemas.Checkpoint, error)
	// BeginSnapshot stores that the source's slot is about to be created.
	BeginSnapshot(ctx context.Context, source schemas.Source) error
	// StartOver is BeginSnapshot for a source that was read before.
	StartOver(ctx context.Context, source schemas.Source, over schemas.StartOver) error
	// SnapshotBegun reports whether that was stored for slot and not finished.
	SnapshotBegun(ctx context.Context, slot string) (bool, error)
	// Checkpoint reads the stored position without taking over. It is zero without an
	// initial snapshot.
	Checkpoint(ctx context.Context) (schemas.Checkpoint, error)
	// LoadSnapshot stores all that fill writes, and the point, atomically.
	//
	// Where StartOver came before in place of BeginSnapshot, it also stores what endpoints
	// missed, and the next TakeOver sends it.
	LoadSnapshot(ctx context.Context, point schemas.LSN, fill func(catalog.SnapshotSink) error) error
}

// Snapshot creates the slot and stores the accounts and owners at its consistent point,
// with that point as the first position. If a position is stored already, it does
// nothing, or with over starts over. It refuses a slot that a session reads without a
// stored position.
//
// Creating a slot waits for every running transaction of the cluster. Snapshot logs the
// sessions that it waits for.
func Snapshot(ctx context.Context, cfg Config, store SnapshotStore, over Over, log *zap.Logger) error {
	cfg, acceptGap := cfg.WithDefaults(), over != Refuse
	source, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return err
	}
	defer source.Close(ctx)
	conn, err := cfg.connectReplication(ctx)
	if err != nil {
		return err
	}
	defer CloseConn(ctx, conn)
	now, err := Identify(ctx, conn)
	if err != nil {
		return err
	}
	slot, setUp, err := awaitSlot(ctx, cfg, source, store, acceptGap)
	if err != nil {
		return err
	}
	if setUp {
		// TakeOver would stop the process that reads.
		log.Info("another process reads the slot, the source is set up", zap.String("slot", cfg.Slot))
		return nil
	}
	checkpoint, err := store.TakeOver(ctx)
	if err != nil {
		return err
	}
	if checkpoint.Source != (schemas.Source{}) && !now.Verify(ctx, cfg, checkpoint, slot) && !slot.Exists && checkpoint.Xid != 0 {
		log.Warn("the source has no WAL any more from where it was read last, or does not show it, so it is not known whether its files were replaced by an earlier copy since: if they were, resync every account after this",
			zap.Stringer("lsn", checkpoint.Position.Commit))
	}
	if !acceptGap && checkpoint.Source != (schemas.Source{}) {
		return cfg.Check(checkpoint, now, slot)
	}
	if err := clearSlot(ctx, cfg, conn, store, slot, acceptGap); err != nil {
		return err
	}
	begins := schemas.Source{
		SystemID: now.id, Timeline: now.Timeline, Database: now.Database,
		Slot: cfg.Slot, Publication: cfg.Publication, PublicationOID: slot.publication,
		Catalog: cfg.Catalog.Fingerprint(),
	}
	if acceptGap {
		err = store.StartOver(ctx, begins, schemas.StartOver{Gap: cfg.gapNow(checkpoint, now, slot), Reconcile: over == Reconcile})
	} else {
		err = store.BeginSnapshot(ctx, begins)
	}
	if err != nil {
		return err
	}
	point, name, err := createSlot(ctx, cfg, conn, source, createSlotSQL(cfg, conn), logBlockers(cfg, log))
	if err != nil {
		return err
	}
	began := time.Now()
	load := snapshotLoad{cfg: cfg, log: log, progress: began}
	err = store.LoadSnapshot(ctx, point, func(sink catalog.SnapshotSink) error {
		load.sink, load.point = sink, point
		return load.read(ctx, name)
	})
	if err != nil {
		return err
	}
	log.Info("initial snapshot stored", zap.Stringer("lsn", point), zap.Int("accounts", load.accounts),
		zap.Int("owners", load.owners), zap.Duration("duration", time.Since(began)))
	// What was missed in a gap is appended now, not only when somebody publishes.
	_, err = store.TakeOver(ctx)
	return err
}

// Over says what to do with a source that was read before.
type Over byte

// The choices.
const (
	Refuse    Over = iota // keep its position
	Reconcile             // start over, and tell every endpoint what it missed
	Forget                // start over, and tell nobody
)

// releaseWait is how long releasing a slot may take: the server notices the end of a
// reader a moment later.
const (
	releaseWait = 5 * time.Second
	releasePoll = 100 * time.Millisecond
)

// awaitSlot waits until no session reads the slot, or reports that the source is set up
// and read. It returns a [*Fault] if a session keeps a slot that is not set up.
func awaitSlot(ctx context.Context, cfg Config, source *Introspector, store SnapshotStore, acceptGap bool) (slot SlotState, setUp bool, err error) {
	for end := time.Now().Add(releaseWait); ; {
		if slot, err = source.Inspect(ctx, cfg); err != nil || !slot.Active {
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
		select {
		case <-ctx.Done():
			return slot, false, context.Cause(ctx)
		case <-time.After(releasePoll):
		}
	}
}

func (c Config) slotInUse(acceptGap bool) error {
	problem := fmt.Sprintf("slot %s is in use", c.Slot)
	if !acceptGap {
		problem += ", and its snapshot is not stored"
	}
	return &Fault{Problem: problem, Fix: "stop the process that reads it (active_pid in pg_replication_slots) or wait for a running setup, then run this again; " +
		"or choose another name with --slot"}
}

// clearSlot drops a slot of an interrupted snapshot, or one whose gap was accepted.
func clearSlot(ctx context.Context, cfg Config, conn *pgconn.PgConn, store SnapshotStore, slot SlotState, acceptGap bool) error {
	if !slot.Exists {
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
