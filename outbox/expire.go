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

// expireChunk bounds one transaction of Expire, so that none outlasts a lease.
const expireChunk = 2000

const (
	// Events go by in order of id, so what an interrupted call buried says how
	// far it came.
	expiredUptoSQL = `
		SELECT coalesce(max(event_id), 0) FROM walhook.dead_letter
		WHERE endpoint = $1 AND event_id > $2 AND event_id < $3 AND reason IN ('expired', 'retention')`

	expireLogSQL      = expireLogStartSQL + expireLogEndSQL
	expireLogOfSQL    = expireLogStartSQL + ofIDsSQL + expireLogEndSQL
	expireLogStartSQL = `
		WITH old AS (
			SELECT * FROM walhook.event e
			WHERE e.endpoint = $1 AND e.id > $2 AND e.id < $3`
	expireLogEndSQL = `
			ORDER BY e.id LIMIT $5),
		buried AS (
			INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, format, body)
			SELECT endpoint, id, record, webhook_id, schema, type, committed_at, 0,
				CASE WHEN id < $4 THEN 'expired' ELSE 'retention' END, ` + sizeSQL + `, format, ` + bodySQL + `
			FROM old e WHERE true ` + unsettledSQL + `
			RETURNING event_id)
		SELECT coalesce(max(id), 0), count(*), (SELECT count(*) FROM buried) FROM old`

	expireIDsSQL = `SELECT e.id FROM walhook.event e WHERE e.endpoint = $1 AND e.id > $2 AND e.id < $3 ORDER BY e.id LIMIT $4`

	expireRetryIDsSQL = `SELECT event_id FROM walhook.retry WHERE endpoint = $1 AND event_id < $2 ORDER BY event_id LIMIT $3`

	expireRetriesSQL      = expireRetriesStartSQL + expireRetriesEndSQL
	expireRetriesOfSQL    = expireRetriesStartSQL + ` AND event_id = ANY ($5)` + expireRetriesEndSQL
	expireRetriesStartSQL = `
		WITH old AS (
			DELETE FROM walhook.retry WHERE endpoint = $1 AND event_id < $2 AND event_id <= coalesce((
				SELECT event_id FROM walhook.retry WHERE endpoint = $1 AND event_id < $2
				ORDER BY event_id OFFSET $4::bigint - 1 LIMIT 1), $2)`
	expireRetriesEndSQL = `
			RETURNING event_id, attempts),
		buried AS (
			INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, format, body)
			SELECT e.endpoint, e.id, e.record, e.webhook_id, e.schema, e.type, e.committed_at, old.attempts,
				CASE WHEN e.id < $3 THEN 'expired' ELSE 'retention' END, ` + sizeSQL + `, e.format, ` + bodySQL + `
			FROM old JOIN walhook.event e ON e.id = old.event_id
			RETURNING event_id)
		SELECT count(*), (SELECT count(*) FROM buried) FROM old`

	// What waited behind an expired row is its record's oldest now.
	promoteEndpointSQL = `
		UPDATE walhook.retry r SET next_at = clock_timestamp()
		WHERE r.endpoint = $1 AND r.next_at IS NULL AND NOT EXISTS (
			SELECT FROM walhook.retry o
			WHERE o.endpoint = r.endpoint AND o.record = r.record AND o.event_id < r.event_id)`
)

// Expire turns what is left undelivered of an endpoint's earlier feeds, or past
// retention (ids after cursor and below e.SendFrom, and its retry rows), into
// dead letters with the reason "expired" or "retention". What waited behind
// them is due. Whoever calls it has nothing of the endpoint in flight. It may be
// called again after a failure, and goes on where it was.
func (s *Session) Expire(ctx context.Context, e Endpoint, cursor int64) error {
	return s.store.expire(ctx, s.fenced, e, cursor)
}

// fence runs f in a transaction that commits only while nobody else may send
// what f expires.
type fence func(ctx context.Context, f func(pgx.Tx) error) error

func (s *Store) expire(ctx context.Context, fenced fence, e Endpoint, cursor int64) error {
	if err := s.expireLog(ctx, fenced, e, cursor); err != nil {
		return fmt.Errorf("expire events of endpoint %d: %w", e.ID, err)
	}
	if err := s.expireRetries(ctx, fenced, e); err != nil {
		return fmt.Errorf("expire retries of endpoint %d: %w", e.ID, err)
	}
	return nil
}

func (s *Store) expireLog(ctx context.Context, fenced fence, e Endpoint, cursor int64) error {
	var upto int64
	if err := s.pool.QueryRow(ctx, expiredUptoSQL, e.ID, cursor, e.SendFrom()).Scan(&upto); err != nil {
		return err
	}
	cursor = max(cursor, upto)
	for {
		var last int64
		var count int
		expire := func(ids []int64) error {
			var dead int
			sql, args := expireLogSQL, []any{e.ID, cursor, e.SendFrom(), e.FeedFrom, expireChunk}
			if ids != nil {
				sql, args = expireLogOfSQL, append(args, ids)
			}
			err := fenced(ctx, func(tx pgx.Tx) error {
				return tx.QueryRow(ctx, sql, args...).Scan(&last, &count, &dead)
			})
			if err == nil {
				s.metrics.deadLetters.Add(float64(dead))
			}
			return err
		}
		err := expire(nil)
		if err != nil && isReadFault(err) {
			var ids []int64
			if ids, err = collect[int64](s.pool.Query(ctx, expireIDsSQL, e.ID, cursor, e.SendFrom(), expireChunk)); err == nil && len(ids) > 0 {
				err = s.expireEach(ctx, fenced, e.ID, ids, expire)
				count, last = len(ids), ids[len(ids)-1]
			}
		}
		if err != nil {
			return err
		}
		if count < expireChunk {
			return nil
		}
		cursor = last
	}
}

// expireEach expires events of which some cannot be read: those are dead letters
// without a body.
func (s *Store) expireEach(ctx context.Context, fenced fence, endpoint int64, ids []int64, expire func([]int64) error) error {
	return isolate(ids, isReadFault, expire, func(id int64, cause error) error {
		return s.bury(ctx, fenced, loopRetention, id, endpoint, cause)
	})
}

func (s *Store) expireRetries(ctx context.Context, fenced fence, e Endpoint) error {
	for {
		var count int
		expire := func(ids []int64) error {
			var dead int
			sql, args := expireRetriesSQL, []any{e.ID, e.SendFrom(), e.FeedFrom, expireChunk}
			if ids != nil {
				sql, args = expireRetriesOfSQL, append(args, ids)
			}
			err := fenced(ctx, func(tx pgx.Tx) error {
				err := tx.QueryRow(ctx, sql, args...).Scan(&count, &dead)
				if err == nil && count < expireChunk {
					_, err = tx.Exec(ctx, promoteEndpointSQL, e.ID)
				}
				return err
			})
			if err == nil {
				s.metrics.deadLetters.Add(float64(dead))
			}
			return err
		}
		err := expire(nil)
		if err != nil && isReadFault(err) {
			var ids []int64
			if ids, err = collect[int64](s.pool.Query(ctx, expireRetryIDsSQL, e.ID, e.SendFrom(), expireChunk)); err == nil {
				err = s.expireEach(ctx, fenced, e.ID, ids, expire)
				count = len(ids)
			}
		}
		if err != nil {
			return err
		}
		if count < expireChunk {
			return nil
		}
	}
}

// fenced runs f in a transaction that a sender without a lease cannot commit.
func (s *Session) fenced(ctx context.Context, f func(pgx.Tx) error) error {
	return fenceError(pgx.BeginFunc(ctx, s.store.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, assertSenderSQL, s.id); err != nil {
			return err
		}
		return f(tx)
	}))
}
