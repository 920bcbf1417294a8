package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ThroughputWindow is what the rates of a [Status] are over.
const ThroughputWindow = 10 * time.Second

// throughputBlocks bounds how much of the newest attempts is looked at: 32 MiB,
// some hundred thousand rows. Above that many the rates are over less time.
const throughputBlocks = 4096

const (
	// The position of a while ago: positions rise with time, so this walks back
	// from the newest. Without one that old nothing was appended before.
	pastPositionSQL = `
		SELECT coalesce((SELECT next_event_id - 1 FROM walhook.position WHERE stored_at < statement_timestamp() - $1::interval ORDER BY id DESC LIMIT 1), 0)`

	// Attempts have no index by time, since nothing else needs one. They are
	// only ever appended, so the newest lie at the end of the table, and a
	// range of row addresses (PostgreSQL 14 and newer) reads just that.
	newestAttemptsSQL = `
		SELECT count(*) FILTER (WHERE outcome = 'delivered'), count(*) FILTER (WHERE outcome <> 'delivered'),
			extract(epoch FROM clock_timestamp() - min(ended))::float8
		FROM (SELECT outcome, at + least(greatest(duration, '0'), '1 day') AS ended FROM walhook.%[1]s WHERE ctid >= $1::text::tid) a
		WHERE ended > statement_timestamp() - $2::interval`

	attemptBlocksSQL = `
		SELECT c.relname::text, pg_relation_size(c.oid) / current_setting('block_size')::bigint
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'walhook.attempt'::regclass
			AND substring(c.relname FROM '\d+$') IN (
				to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD'),
				to_char((clock_timestamp() - $1::interval) AT TIME ZONE 'UTC', 'YYYYMMDD'))`
)

// readThroughput computes the rates from what is stored, whichever processes did
// it.
func (a *Admin) readThroughput(ctx context.Context, st *Status) error {
	var past int64
	if err := a.pool.QueryRow(ctx, pastPositionSQL, ThroughputWindow).Scan(&past); err != nil {
		return err
	}
	appended, err := a.store.AppendedAfter(ctx, past)
	if err != nil {
		return err
	}
	st.Appended = appended / ThroughputWindow.Seconds()
	rows, err := a.pool.Query(ctx, attemptBlocksSQL, ThroughputWindow)
	if err != nil {
		return err
	}
	type part struct {
		name   string
		blocks int64
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p part, err error) { return p, row.Scan(&p.name, &p.blocks) })
	for _, p := range parts {
		if err == nil {
			err = a.addAttempts(ctx, st, p.name, p.blocks)
		}
	}
	return err
}

// addAttempts adds the rates of one day's attempts.
func (a *Admin) addAttempts(ctx context.Context, st *Status, partition string, blocks int64) error {
	var delivered, failed float64
	var span *float64
	from := max(blocks-throughputBlocks, 0)
	sql := fmt.Sprintf(newestAttemptsSQL, pgx.Identifier{partition}.Sanitize())
	err := a.pool.QueryRow(ctx, sql, fmt.Sprintf("(%d,0)", from), ThroughputWindow).Scan(&delivered, &failed, &span)
	if err != nil || span == nil {
		return err
	}
	seconds := ThroughputWindow.Seconds()
	if from > 0 {
		seconds = min(max(*span, 0.1), seconds)
	}
	st.Delivered += delivered / seconds
	st.Failed += failed / seconds
	return nil
}
