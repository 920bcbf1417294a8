package outbox

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An event that cannot be read any more, such as one on a damaged page, is given
// up by itself: a dead letter of what can still be read of it. Its body is gone,
// so it cannot be sent again.
const (
	buryKnownSQL = `
		INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, format, body)
		SELECT endpoint, id, record, webhook_id, schema, type, committed_at, 0, 'unreadable', 0, format, ''
		FROM walhook.event e WHERE id = $1 AND NOT EXISTS (SELECT FROM walhook.dead_letter d WHERE d.endpoint = e.endpoint AND d.event_id = e.id)`

	buryUnknownSQL = `
		INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, format, body)
		SELECT $2, $1, 'unreadable/' || $1::bigint, 'unreadable_' || $1::bigint, '', '', clock_timestamp(), 0, 'unreadable', 0, '', ''
		WHERE NOT EXISTS (SELECT FROM walhook.dead_letter d WHERE d.endpoint = $2 AND d.event_id = $1)`

	endpointOfSQL = `SELECT endpoint FROM walhook.event WHERE id = $1`

	unretrySQL = `DELETE FROM walhook.retry WHERE endpoint = $1 AND event_id = $2`
)

// bury makes a dead letter of an event that cannot be read, and takes it out of
// retry. Whoever calls it has nothing of it in flight.
func (s *Store) bury(ctx context.Context, fenced fence, l loop, id, endpoint int64, cause error) error {
	if endpoint == 0 {
		if err := s.pool.QueryRow(ctx, endpointOfSQL, id).Scan(&endpoint); err != nil && !isReadFault(err) && !isNoRows(err) {
			return err
		}
	}
	dead := int64(0)
	err := fenced(ctx, func(tx pgx.Tx) error {
		err := savepoint(ctx, tx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, buryKnownSQL, id)
			dead = tag.RowsAffected()
			return err
		})
		if isReadFault(err) {
			var tag pgconn.CommandTag
			tag, err = tx.Exec(ctx, buryUnknownSQL, id, endpoint)
			dead = tag.RowsAffected()
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, unretrySQL, endpoint, id); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, promoteEndpointSQL, endpoint)
		return err
	})
	if err != nil && !isDataFault(err) {
		return err
	}
	s.metrics.deadLetters.Add(float64(dead))
	s.setAside(ctx, l, strconv.FormatInt(id, 10), endpoint, asideUnreadable, cause)
	return nil
}
