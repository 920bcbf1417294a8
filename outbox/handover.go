package outbox

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	horizonSQL = `SELECT coalesce((SELECT id FROM walhook.event ORDER BY id DESC LIMIT 1), 0)`

	// LaneColumnsSQL are what ScanLane reads.
	LaneColumnsSQL = `endpoint, revision, behind, cursor, open, walhook.until(open_until), opens,
			walhook.until(paused_until), walhook.until(failing_since), stage, last_reason, walhook.until(held_since), held_reason, retry_seen`

	lanesOfShardsSQL = `SELECT ` + LaneColumnsSQL + ` FROM walhook.lane WHERE endpoint % $2 = ANY ($1) AND ($3::bigint[] IS NULL OR endpoint = ANY ($3))`

	// Only a record's oldest row can be due.
	blockedRecordsSQL = `
		SELECT endpoint, record, walhook.until(min(next_at))
		FROM walhook.retry WHERE endpoint % $2 = ANY ($1) AND ($3::bigint[] IS NULL OR endpoint = ANY ($3))
		GROUP BY endpoint, record`

	laneEndpointsSQL    = `SELECT endpoint FROM walhook.lane WHERE endpoint % $2 = ANY ($1) ORDER BY 1`
	blockedEndpointsSQL = `SELECT DISTINCT endpoint FROM walhook.retry WHERE endpoint % $2 = ANY ($1) ORDER BY 1`
	laneCursorSQL       = `SELECT cursor FROM walhook.lane WHERE endpoint = $1`
)

// loadHandoverTx reads what the new owner of h.Shards starts from.
func loadHandoverTx(ctx context.Context, tx pgx.Tx, h *Handover) error {
	if err := tx.QueryRow(ctx, horizonSQL).Scan(&h.Horizon); err != nil {
		return err
	}
	ids, _ := shardColumns(h.Shards)
	err := readShardsTx(ctx, tx, lanesOfShardsSQL, laneEndpointsSQL, ids, ScanLane, &h.Lanes, func(endpoint int64, cause error) error {
		lane := LaneState{Endpoint: endpoint, Behind: true}
		err := savepoint(ctx, tx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, laneCursorSQL, endpoint).Scan(&lane.Cursor) })
		if err != nil && !isReadFault(err) && !isNoRows(err) {
			return err
		}
		h.Lanes = append(h.Lanes, lane)
		h.bad = append(h.bad, badRow{endpoint, cause})
		return nil
	})
	if err != nil {
		return err
	}
	return readShardsTx(ctx, tx, blockedRecordsSQL, blockedEndpointsSQL, ids, scanRecordState, &h.Blocked, func(endpoint int64, cause error) error {
		h.bad = append(h.bad, badRow{endpoint, cause})
		return nil
	})
}

// badRow is an endpoint of whose rows some cannot be read.
type badRow struct {
	endpoint int64
	cause    error
}

// readShardsTx reads rows of shards, those of one endpoint by themselves where
// they cannot be read with the others'.
func readShardsTx[T any](ctx context.Context, tx pgx.Tx, sql, endpointsSQL string, shards []int,
	scan pgx.RowToFunc[T], into *[]T, alone func(endpoint int64, cause error) error) error {
	read := func(endpoints []int64) error {
		return savepoint(ctx, tx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, sql, shards, Shards, endpoints)
			if err != nil {
				return err
			}
			list, err := pgx.CollectRows(rows, scan)
			if err == nil {
				*into = append(*into, list...)
			}
			return err
		})
	}
	err := read(nil)
	if err == nil || !isReadFault(err) {
		return err
	}
	endpoints, err := collect[int64](tx.Query(ctx, endpointsSQL, shards, Shards))
	if err != nil {
		return err
	}
	return isolate(endpoints, isReadFault, read, alone)
}

// ScanLane reads a row of LaneColumnsSQL.
func ScanLane(row pgx.CollectableRow) (lane LaneState, err error) {
	var openUntil, pausedUntil, failingSince, heldSince *time.Duration
	err = row.Scan(&lane.Endpoint, &lane.Revision, &lane.Behind, &lane.Cursor, &lane.Open, &openUntil, &lane.Opens,
		&pausedUntil, &failingSince, &lane.Stage, &lane.LastReason, &heldSince, &lane.HeldReason, &lane.RetrySeen)
	lane.OpenUntil, lane.PausedUntil, lane.FailingSince = fromNow(openUntil), fromNow(pausedUntil), fromNow(failingSince)
	lane.HeldSince = fromNow(heldSince)
	return lane, err
}

// scanRecordState reads endpoint, record and how long until its oldest row is
// due; null with no row behind it means that the record is free.
func scanRecordState(row pgx.CollectableRow) (state RecordState, err error) {
	var next *time.Duration
	err = row.Scan(&state.Endpoint, &state.Record, &next)
	state.NextAt, state.Blocked = fromNow(next), next != nil
	return state, err
}

// Instants that a sender keeps, and those at which retries are due, are stored
// by the outbox's clock and cross over as distances from now: senders whose
// clocks disagree reckon by one.
func fromNow(d *time.Duration) time.Time {
	if d == nil {
		return time.Time{}
	}
	return time.Now().Add(*d)
}

func untilNull(t time.Time) *time.Duration {
	if t.IsZero() {
		return nil
	}
	return new(time.Until(t))
}

// knownTime is a time as SQL takes it: NULL for the zero one.
func knownTime(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

const (
	saveLanesSQL = `
		INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, paused_until, failing_since, stage, last_reason, held_since, held_reason, retry_seen)
		SELECT endpoint, revision, behind, cursor, open, clock_timestamp() + open_in, opens,
			clock_timestamp() + paused_in, clock_timestamp() + failing_in, stage, last_reason, clock_timestamp() + held_in, held_reason, retry_seen
		FROM unnest($1::bigint[], $2::bigint[], $3::bool[], $4::bigint[], $5::bool[], $6::interval[], $7::int[],
			$8::interval[], $9::interval[], $10::int[], $11::text[], $12::interval[], $13::text[], $14::bigint[])
			AS t(endpoint, revision, behind, cursor, open, open_in, opens, paused_in, failing_in, stage, last_reason, held_in, held_reason, retry_seen)
		ON CONFLICT (endpoint) DO UPDATE SET
			revision = excluded.revision, behind = excluded.behind, cursor = excluded.cursor, open = excluded.open,
			open_until = excluded.open_until, opens = excluded.opens, paused_until = excluded.paused_until,
			failing_since = excluded.failing_since, stage = excluded.stage, last_reason = excluded.last_reason,
			held_since = excluded.held_since, held_reason = excluded.held_reason, retry_seen = excluded.retry_seen,
			saved_at = clock_timestamp()`

	forgetLanesSQL = `DELETE FROM walhook.lane WHERE endpoint = ANY ($1)`

	saveTailsSQL = `
		UPDATE walhook.shard s SET tail = g.tail
		FROM unnest($2::int[], $3::bigint[]) AS g(id, tail)
		WHERE s.id = g.id AND s.sender = $1 AND s.tail < g.tail`
)

// Save stores lanes and shard tails in one transaction, for their next owner
// next. A lane with nothing to remember loses its row. Of a lane that the server
// refuses only the cursor is stored; where not even that can be, its shard's tail
// stays where it is, so that nothing is passed by.
func (s *Session) Save(ctx context.Context, lanes []LaneState, shards []Shard) error {
	unsaved := func(shard Shard) bool { return s.unsaved[shard.ID] }
	err := s.save(ctx, lanes, slices.DeleteFunc(slices.Clone(shards), unsaved))
	if isDataFault(err) {
		err = isolate(lanes, isDataFault, func(part []LaneState) error { return s.save(ctx, part, nil) }, func(l LaneState, cause error) error {
			s.store.setAside(ctx, loopLanes, strconv.FormatInt(l.Endpoint, 10), l.Endpoint, asideUnstorable, cause)
			err := s.save(ctx, []LaneState{{Endpoint: l.Endpoint, Revision: l.Revision, Behind: l.Behind, Cursor: l.Cursor}}, nil)
			if l.Behind && isDataFault(err) {
				if s.unsaved == nil {
					s.unsaved = map[int]bool{}
				}
				s.unsaved[ShardOf(l.Endpoint)] = true
			}
			if isDataFault(err) {
				return nil
			}
			return err
		})
		if err == nil {
			err = s.save(ctx, nil, slices.DeleteFunc(slices.Clone(shards), unsaved))
		}
	} else if err == nil {
		for _, l := range lanes {
			s.store.wellAgain(ctx, loopLanes, strconv.FormatInt(l.Endpoint, 10))
		}
	}
	if err != nil {
		return fmt.Errorf("save %d lanes and %d shards: %w", len(lanes), len(shards), err)
	}
	return nil
}

func (s *Session) save(ctx context.Context, lanes []LaneState, shards []Shard) error {
	var kept laneColumns
	var idle []int64
	for _, lane := range lanes {
		if lane.isIdle() {
			idle = append(idle, lane.Endpoint)
		} else {
			kept.add(lane)
		}
	}
	ids, tails := shardColumns(shards)
	return s.run(ctx, &transaction{fill: func(b *pgx.Batch) {
		if len(kept.endpoint) > 0 {
			b.Queue(saveLanesSQL, kept.endpoint, kept.revision, kept.behind, kept.cursor, kept.open, kept.openUntil, kept.opens,
				kept.pausedUntil, kept.failingSince, kept.stage, kept.lastReason, kept.heldSince, kept.heldReason, kept.retrySeen)
		}
		if len(idle) > 0 {
			b.Queue(forgetLanesSQL, idle)
		}
		if len(ids) > 0 {
			b.Queue(saveTailsSQL, s.id, ids, tails)
		}
	}})
}

func (l LaneState) isIdle() bool {
	return !l.Behind && !l.Open && l.Opens == 0 && l.PausedUntil.IsZero() && l.FailingSince.IsZero() && l.HeldSince.IsZero()
}

// laneColumns are lanes as arrays, one per column of the table.
type laneColumns struct {
	endpoint, revision, cursor, retrySeen []int64
	behind, open                          []bool
	opens, stage                          []int
	openUntil, pausedUntil, failingSince  []*time.Duration
	heldSince                             []*time.Duration
	lastReason, heldReason                []string
}

func (c *laneColumns) add(l LaneState) {
	c.endpoint = append(c.endpoint, l.Endpoint)
	c.revision = append(c.revision, l.Revision)
	c.cursor = append(c.cursor, l.Cursor)
	c.behind = append(c.behind, l.Behind)
	c.open = append(c.open, l.Open)
	c.opens = append(c.opens, l.Opens)
	c.openUntil = append(c.openUntil, untilNull(l.OpenUntil))
	c.pausedUntil = append(c.pausedUntil, untilNull(l.PausedUntil))
	c.failingSince = append(c.failingSince, untilNull(l.FailingSince))
	c.stage = append(c.stage, l.Stage)
	c.lastReason = append(c.lastReason, l.LastReason)
	c.heldSince = append(c.heldSince, untilNull(l.HeldSince))
	c.heldReason = append(c.heldReason, l.HeldReason)
	c.retrySeen = append(c.retrySeen, l.RetrySeen)
}
