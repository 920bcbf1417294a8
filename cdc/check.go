package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
)

// slotState is what the source says of the slot and the publication.
type slotState struct {
	exists    bool
	active    bool
	lost      bool
	logical   bool
	database  string
	confirmed schemas.LSN
	published bool // the publication exists
	walEnd    schemas.LSN
}

const (
	slotSQL = `
		SELECT active, coalesce(wal_status = 'lost', false), coalesce(plugin, '') = 'pgoutput', coalesce(database, ''),
			coalesce(confirmed_flush_lsn, '0/0')::text
		FROM pg_replication_slots WHERE slot_name = $1`

	publicationSQL = `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)`

	walEndSQL = `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text`

	outboxPublishedSQL = `
		SELECT count(*) FROM pg_publication_tables WHERE pubname = $1 AND schemaname = 'walhook'`
)

func (r *catalogReader) inspect(ctx context.Context, cfg Config) (slotState, error) {
	var s slotState
	var confirmed, walEnd string
	err := r.conn.QueryRow(ctx, slotSQL, cfg.Slot).Scan(&s.active, &s.lost, &s.logical, &s.database, &confirmed)
	switch {
	case err == pgx.ErrNoRows:
	case err != nil:
		return s, fmt.Errorf("look at slot %s: %w", cfg.Slot, err)
	default:
		s.exists = true
		if s.confirmed, err = schemas.ParseLSN(confirmed); err != nil {
			return s, err
		}
	}
	if err := r.conn.QueryRow(ctx, publicationSQL, cfg.Publication).Scan(&s.published); err != nil {
		return s, fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
	}
	if err := r.conn.QueryRow(ctx, walEndSQL).Scan(&walEnd); err != nil {
		return s, fmt.Errorf("read the WAL's end: %w", err)
	}
	if s.walEnd, err = schemas.ParseLSN(walEnd); err != nil {
		return s, err
	}
	if s.exists && !s.logical {
		return s, &Fault{Problem: fmt.Sprintf("slot %s exists and is no pgoutput slot", cfg.Slot), Mend: "choose another name with --slot"}
	}
	var own int
	if err := r.conn.QueryRow(ctx, outboxPublishedSQL, cfg.Publication).Scan(&own); err != nil {
		return s, fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
	}
	if own > 0 {
		return s, &Fault{
			Problem: fmt.Sprintf("publication %s holds the outbox's own tables: every event would make another", cfg.Publication),
			Mend:    "publish only the catalog's tables, as 'walhook setup --dry-run' prints them",
		}
	}
	return s, nil
}

// check compares what is stored with what the source has, before anything is
// read. Whatever does not fit is a fault to mend or a gap.
func (c Config) check(stored schemas.Checkpoint, system pglogrepl.IdentifySystemResult, slot slotState) error {
	if stored.Source == (schemas.Source{}) {
		if slot.exists {
			return c.slotWithoutPosition()
		}
		return &Fault{Problem: "the source is not prepared", Mend: "run 'walhook setup', or start with --setup", Err: errNotSetUp}
	}
	gap := func(to schemas.LSN, format string, args ...any) error {
		return &GapError{From: stored.Flush, To: to, Slot: c.Slot, Reason: fmt.Sprintf(format, args...)}
	}
	switch was := stored.Source; {
	case was.Slot != c.Slot:
		return &Fault{Problem: fmt.Sprintf("the outbox follows slot %s, not %s", was.Slot, c.Slot),
			Mend: "correct --slot, or use an outbox of its own"}
	case was.SystemID != system.SystemID:
		return gap(slot.walEnd, "the source is another database system (%s, was %s)", system.SystemID, was.SystemID)
	case !slot.exists:
		return gap(slot.walEnd, "the slot does not exist any more")
	case slot.lost:
		return gap(slot.walEnd, "the server gave up the slot (wal_status lost): max_slot_wal_keep_size was exceeded")
	case slot.walEnd < stored.Flush:
		return gap(slot.walEnd, "the source was rewound or restored: its WAL ends at %s", slot.walEnd)
	case slot.confirmed > stored.Flush:
		return gap(slot.confirmed, "the slot was advanced or made anew by someone else: it stands at %s", slot.confirmed)
	case !slot.published:
		return &Fault{Problem: fmt.Sprintf("publication %s does not exist", c.Publication),
			Mend: "run 'walhook setup' to make it again; changes made while it was missing cannot be decoded"}
	case was.Catalog != c.Catalog.Fingerprint():
		return &Fault{Problem: "the catalog's accounts, tables, keys or owners differ from those that were set up",
			Mend: "run 'walhook setup --accept-gap' to read the owners anew, or go back to the catalog that was set up"}
	}
	return nil
}

func (c Config) slotWithoutPosition() error {
	return &Fault{
		Problem: fmt.Sprintf("slot %s exists without a stored position: the snapshot that belongs to it is gone", c.Slot),
		Mend: fmt.Sprintf("if nobody else uses it, drop it with \"SELECT pg_drop_replication_slot('%s')\" and run 'walhook setup'; "+
			"otherwise choose another name with --slot", c.Slot),
	}
}

func (e *GapError) gap() schemas.Gap { return schemas.Gap{From: e.From, To: e.To, Reason: e.Reason} }

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
