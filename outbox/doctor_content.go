package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

// lookAtContent makes the checks of what the outbox holds.
func (e *examination) lookAtContent(ctx context.Context) {
	for _, check := range []struct {
		id   string
		look func(context.Context) error
	}{
		{checkPartitions, e.lookAtPartitions},
		{checkGaps, e.lookAtGaps},
		{checkSenders, e.lookAtSenders},
		{checkShards, e.lookAtShards},
		{checkSecrets, e.lookAtSecrets},
		{checkAside, e.lookAtAside},
		{checkOwnFaults, e.lookAtHeld},
		{checkUnrouted, e.lookAtUnrouted},
		{checkDeadRows, e.lookAtDeadRows},
	} {
		if err := check.look(ctx); err != nil {
			e.s.Unseen(e.r, err, check.id)
		}
	}
}

// namedPartitionSQL says whether a partition is there and attached.
const namedPartitionSQL = `
	SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'walhook' AND c.relname = $1)`

// lookAtPartitions looks for the partitions in use and the next ones.
func (e *examination) lookAtPartitions(ctx context.Context) error {
	var now time.Time
	var nextID int64
	if err := e.s.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return err
	}
	if err := e.s.QueryRow(ctx, currentEventIDSQL).Scan(&nextID); err != nil {
		return err
	}
	for ahead := range 2 { // maintenance makes the second one ahead within minutes
		names := []string{fmt.Sprintf("event_%06d", eventPartition(nextID)+int64(ahead))}
		for _, table := range dailyTables() {
			names = append(names, table+"_"+now.UTC().AddDate(0, 0, ahead).Format(dayFormat))
		}
		for _, name := range names {
			var there bool
			if err := e.s.QueryRow(ctx, namedPartitionSQL, name).Scan(&there); err != nil {
				return err
			}
			switch {
			case there:
			case ahead == 0:
				e.r.Fail(checkPartitions, doctor.Run("walhook setup"), "partition walhook.%s is in use and missing: nothing can be stored", name)
			default:
				e.r.Warn(checkPartitions, doctor.Run("walhook setup"), "partition walhook.%s is missing and needed next", name)
			}
		}
	}
	e.r.OK(checkPartitions, "those in use and the next ones exist; the event log is at event %d", nextID)
	return nil
}

const openGapsSQL = `
	SELECT found_at, from_lsn::text, coalesce(to_lsn::text, 'an unknown position'), reason,
		coalesce(to_lsn - from_lsn = 1, false) -- a transaction that cannot be sent
	FROM walhook.gap
	WHERE accepted_at IS NULL ORDER BY id LIMIT 5`

const acceptedGapsSQL = `
	SELECT count(*), coalesce((SELECT format('at %s on %s: %s', from_lsn, to_char(accepted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), reason)
		FROM walhook.gap WHERE accepted_at IS NOT NULL ORDER BY accepted_at DESC, id DESC LIMIT 1), '')
	FROM walhook.gap WHERE accepted_at IS NOT NULL`

func (e *examination) lookAtGaps(ctx context.Context) error {
	rows, err := e.s.Query(ctx, openGapsSQL)
	if err != nil {
		return err
	}
	var at time.Time
	var from, to, reason string
	var one bool
	_, err = pgx.ForEachRow(rows, []any{&at, &from, &to, &reason, &one}, func() error {
		if one {
			e.r.Fail(checkGaps, doctor.Steps{{Kind: doctor.Command, Text: "walhook run --skip-unreadable " + from,
				Note: "this skips that transaction alone: first look at what it changed; stored events are sent meanwhile"}},
				"found at %s: %s", at.UTC().Format(time.RFC3339), reason)
			return nil
		}
		e.r.Fail(checkGaps, doctor.Steps{{Kind: doctor.Command, Text: "walhook setup --accept-gap",
			Note: "first find out why; changes in between are not sent"}},
			"found at %s, not accepted: %s; changes between %s and %s may be missing", at.UTC().Format(time.RFC3339), reason, from, to)
		return nil
	})
	if err != nil {
		return err
	}
	var accepted int64
	var last string
	if err := e.s.QueryRow(ctx, acceptedGapsSQL).Scan(&accepted, &last); err != nil {
		return err
	}
	if accepted == 0 {
		e.r.OK(checkGaps, "none")
	} else {
		e.r.OK(checkGaps, "no open gap; %d accepted, the last %s", accepted, last)
	}
	return nil
}

// updatedTables are those whose rows are updated and deleted, so that vacuum has
// to keep up with them.
func updatedTables() []string {
	return []string{"lane", "shard", "sender", "retry", "owner", "endpoint", "account", "inbox", "epoch", "source"}
}

const (
	// deadWarned is how many dead rows are too many, where they are also more
	// than the living: autovacuum comes at a fifth of these.
	deadWarned = 20_000

	deadRowsSQL = `
		SELECT s.relname::text, s.n_dead_tup, s.n_live_tup, coalesce(greatest(s.last_vacuum, s.last_autovacuum)::timestamptz(0)::text, 'never'),
			coalesce(c.reloptions::text, '') LIKE '%autovacuum_enabled=%'
		FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid WHERE s.schemaname = 'walhook' AND s.relname = ANY ($1)`
)

func (e *examination) lookAtDeadRows(ctx context.Context) error {
	rows, err := e.s.Query(ctx, deadRowsSQL, updatedTables())
	if err != nil {
		return err
	}
	var table, vacuumed string
	var dead, live, worst int64
	var switched bool
	_, err = pgx.ForEachRow(rows, []any{&table, &dead, &live, &vacuumed, &switched}, func() error {
		worst = max(worst, dead)
		if dead <= max(deadWarned, live) {
			return nil
		}
		fix := doctor.Ask(here, "", "VACUUM walhook."+schemas.QuoteIdent(table))
		if switched {
			fix = slices.Insert(fix, 0, doctor.Ask(here, "", fmt.Sprintf("ALTER TABLE walhook.%s RESET (autovacuum_enabled)", schemas.QuoteIdent(table)))...)
		}
		e.r.Warn(checkDeadRows, fix, "walhook.%s has %d dead and %d live rows, vacuumed %s: vacuum does not keep up", table, dead, live, vacuumed)
		return nil
	})
	e.r.OK(checkDeadRows, "at most %d in a table with updates", worst)
	return err
}
