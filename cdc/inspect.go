package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

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
