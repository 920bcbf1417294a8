package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

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
