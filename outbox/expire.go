package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// expireChunk bounds one transaction of Expire, so that none outlasts a lease.
const expireChunk = 2000

const (
	expireLogSQL = `
		WITH old AS (
			SELECT * FROM walhook.event e
			WHERE e.endpoint = $1 AND e.id > $2 AND e.id < $3
			ORDER BY e.id LIMIT $4),
		buried AS (
			INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
			SELECT endpoint, id, record, webhook_id, schema, type, committed_at, 0, 'expired', octet_length(body), body
			FROM old e WHERE true ` + unsettledSQL + `)
		SELECT coalesce(max(id), 0), count(*) FROM old`

	expireRetriesSQL = `
		WITH old AS (
			DELETE FROM walhook.retry WHERE endpoint = $1 AND event_id < $2 AND event_id <= coalesce((
				SELECT event_id FROM walhook.retry WHERE endpoint = $1 AND event_id < $2
				ORDER BY event_id OFFSET $3::bigint - 1 LIMIT 1), $2)
			RETURNING event_id, attempts),
		buried AS (
			INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
			SELECT e.endpoint, e.id, e.record, e.webhook_id, e.schema, e.type, e.committed_at, old.attempts, 'expired', octet_length(e.body), e.body
			FROM old JOIN walhook.event e ON e.id = old.event_id)
		SELECT count(*) FROM old`

	// What waited behind an expired row is its record's oldest now.
	promoteEndpointSQL = `
		UPDATE walhook.retry r SET next_at = clock_timestamp()
		WHERE r.endpoint = $1 AND r.next_at IS NULL AND NOT EXISTS (
			SELECT FROM walhook.retry o
			WHERE o.endpoint = r.endpoint AND o.record = r.record AND o.event_id < r.event_id)`
)

// Expire turns what an endpoint's earlier feeds left undelivered (ids after
// cursor and below e.FeedFrom, and its retry rows) into dead letters with the
// reason "expired". What waited behind them is due. It may be called again
// after a failure.
func (s *Session) Expire(ctx context.Context, e Endpoint, cursor int64) error {
	for {
		var count int
		err := s.fenced(ctx, func(tx pgx.Tx) error {
			var last int64
			err := tx.QueryRow(ctx, expireLogSQL, e.ID, cursor, e.FeedFrom, expireChunk).Scan(&last, &count)
			cursor = max(cursor, last)
			return err
		})
		if err != nil {
			return fmt.Errorf("expire events of endpoint %d: %w", e.ID, err)
		}
		if count < expireChunk {
			break
		}
	}
	for {
		var count int
		err := s.fenced(ctx, func(tx pgx.Tx) error {
			err := tx.QueryRow(ctx, expireRetriesSQL, e.ID, e.FeedFrom, expireChunk).Scan(&count)
			if err == nil && count < expireChunk {
				_, err = tx.Exec(ctx, promoteEndpointSQL, e.ID)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("expire retries of endpoint %d: %w", e.ID, err)
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
