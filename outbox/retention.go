package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// errUndelivered says that senders hold events that are past retention, and
// have been told to make dead letters of them.
var errUndelivered = errors.New("some of its events are neither delivered nor dead letters")

const (
	// Who may have something undelivered before an event id, and after which
	// cursor. Each endpoint is looked up by index; an EXISTS may be planned as a
	// scan of the log. A shard's tail stands still while nobody owns it.
	undeliveredSQL = `
		SELECT p.id, p.account, coalesce(p.feed_from, 0), coalesce(p.expire_before, 0), coalesce(l.cursor, s.tail)
		FROM walhook.endpoint p
		JOIN walhook.shard s ON s.id = p.id % 32
		LEFT JOIN walhook.lane l ON l.endpoint = p.id AND l.behind
		WHERE s.id = ANY ($2) AND (
			coalesce(l.cursor, $1) < $1::bigint - 1
			OR (SELECT 1 FROM walhook.event e WHERE e.endpoint = p.id AND e.id > coalesce(l.cursor, s.tail) AND e.id < $1 LIMIT 1) IS NOT NULL
			OR (SELECT 1 FROM walhook.retry r WHERE r.endpoint = p.id AND r.event_id < $1 LIMIT 1) IS NOT NULL)
		ORDER BY p.id`

	expireBeforeSQL = `
		UPDATE walhook.endpoint SET expire_before = $2, revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 AND coalesce(expire_before, 0) < $2`

	// Nobody can take a shard whose row is locked, and who held it before has
	// no lease.
	lockFreeShardSQL = `SELECT FROM walhook.shard WHERE id = $1 AND sender IS NULL FOR UPDATE SKIP LOCKED`

	passLanesSQL = `UPDATE walhook.lane SET cursor = $2 WHERE behind AND cursor < $2 AND endpoint % 32 = $1`
	passShardSQL = `UPDATE walhook.shard SET tail = $2 WHERE id = $1 AND tail < $2`
)

// laneEnd is where a lane stands that has something undelivered.
type laneEnd struct {
	Endpoint
	cursor int64
}

// expireBefore has dead letters made of what is undelivered before an event:
// by the senders that own the lanes, which alone know what is in flight, or
// here where a shard is free. It is done when it returns nil, and under way when
// it returns errUndelivered.
func (s *Store) expireBefore(ctx context.Context, before int64) error {
	left, err := s.undelivered(ctx, before, allShards())
	if err != nil || len(left) == 0 {
		return err
	}
	// An update of its own for each: nobody waits for more than one.
	for _, lane := range left {
		_, err := s.pool.Exec(ctx, expireBeforeSQL, lane.ID, before)
		if isDataFault(err) {
			s.setAside(ctx, loopRetention, strconv.FormatInt(lane.ID, 10), lane.ID, asideUnstorable, err)
		} else if err != nil {
			return fmt.Errorf("expire events of endpoint %d: %w", lane.ID, err)
		}
	}
	if err := s.expireFreeShards(ctx, before); err != nil {
		return err
	}
	if left, err = s.undelivered(ctx, before, allShards()); err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: %d endpoints have events before %d", errUndelivered, len(left), before)
	}
	return err
}

func (s *Store) undelivered(ctx context.Context, before int64, shards []int) ([]laneEnd, error) {
	rows, err := s.pool.Query(ctx, undeliveredSQL, before, shards)
	if err != nil {
		return nil, fmt.Errorf("find undelivered events before %d: %w", before, err)
	}
	left, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l laneEnd, err error) {
		return l, row.Scan(&l.ID, &l.Account, &l.FeedFrom, &l.ExpireBefore, &l.cursor)
	})
	if err != nil {
		return nil, fmt.Errorf("find undelivered events before %d: %w", before, err)
	}
	return left, nil
}

// expireFreeShards does for the shards that nobody holds what their senders
// would do.
func (s *Store) expireFreeShards(ctx context.Context, before int64) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", rebalanceLock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, expireSendersSQL)
		return err
	})
	if err != nil {
		return fmt.Errorf("remove expired leases: %w", err)
	}
	for shard := range Shards {
		if err := s.expireFreeShard(ctx, shard, before); err != nil && !errors.Is(err, errShardHeld) {
			return err
		}
	}
	return nil
}

// errShardHeld says that a sender holds the shard, or is about to.
var errShardHeld = errors.New("the shard is leased")

func (s *Store) expireFreeShard(ctx context.Context, shard int, before int64) error {
	fenced := func(ctx context.Context, f func(pgx.Tx) error) error {
		return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, lockFreeShardSQL, shard)
			if err == nil && tag.RowsAffected() == 0 {
				err = errShardHeld
			}
			if err != nil {
				return err
			}
			return f(tx)
		})
	}
	var left []laneEnd
	err := fenced(ctx, func(pgx.Tx) (err error) {
		left, err = s.undelivered(ctx, before, []int{shard})
		return err
	})
	if err != nil || len(left) == 0 {
		return err
	}
	s.log.Info("dead-lettering events past retention", zap.Int("shard", shard), zap.Int("endpoints", len(left)))
	for _, lane := range left {
		if err := s.expire(ctx, fenced, lane.Endpoint, lane.cursor); err != nil {
			return err
		}
	}
	return fenced(ctx, func(tx pgx.Tx) error {
		for _, sql := range []string{passLanesSQL, passShardSQL} {
			if _, err := tx.Exec(ctx, sql, shard, before-1); err != nil {
				return err
			}
		}
		return nil
	})
}

func allShards() []int {
	shards := make([]int, Shards)
	for i := range shards {
		shards[i] = i
	}
	return shards
}
