package outbox

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/outbox/route"
)

// There are two statements that make a dead letter: one for events of the event log, which
// copies what the event log holds, and one for an event of which the event log holds nothing. Both
// leave alone what is a dead letter already.
const (
	deadLetterColumns = `(endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, format, body, account)`

	// The body of one that is unreadable is not looked at: it may be what cannot be read.
	deadLettersSQL = `INSERT INTO walhook.dead_letter ` + deadLetterColumns + `
		SELECT e.endpoint, e.id, e.record, e.webhook_id, e.schema, e.type, e.committed_at, d.attempts, d.reason,
			CASE WHEN d.reason = 'unreadable' THEN 0 ELSE ` + SizeSQL + ` END, e.format,
			CASE WHEN d.reason = 'unreadable' THEN '' ELSE ` + BodySQL + ` END, e.account
		FROM unnest($1::bigint[], $2::int[], $3::text[]) AS d(event_id, attempts, reason)
		JOIN walhook.event e ON e.id = d.event_id
		WHERE NOT EXISTS (SELECT FROM walhook.dead_letter o WHERE o.endpoint = e.endpoint AND o.event_id = e.id)`

	// A body of NULL was never stored; an empty one is lost.
	deadWithoutEventSQL = `INSERT INTO walhook.dead_letter ` + deadLetterColumns + `
		SELECT $1::bigint, $2::bigint, $3::text, $4::text, $5::text, $6::text, coalesce($7::timestamptz, clock_timestamp()), 0, $8::text, $9::bigint, $10::text, $11::bytea, $12::text
		WHERE NOT EXISTS (SELECT FROM walhook.dead_letter o WHERE o.endpoint = $1 AND o.event_id = $2)`
)

// deaths are events of the event log that become dead letters, an array per column.
type deaths struct {
	event    []int64
	attempts []int
	reason   []string
}

func (d *deaths) add(event int64, attempts int, reason string) {
	d.event, d.attempts, d.reason = append(d.event, event), append(d.attempts, attempts), append(d.reason, reason)
}

func (d *deaths) queue(b *pgx.Batch) { b.Queue(deadLettersSQL, d.event, d.attempts, d.reason) }

// insertTx says how many are dead letters only now.
func (d *deaths) insertTx(ctx context.Context, tx pgx.Tx) (int64, error) {
	if len(d.event) == 0 {
		return 0, nil
	}
	tag, err := tx.Exec(ctx, deadLettersSQL, d.event, d.attempts, d.reason)
	return tag.RowsAffected(), err
}

// queueTooLarge makes a dead letter of an event whose body is not stored.
func queueTooLarge(b *pgx.Batch, e *route.Event, enc *encoding) {
	b.Queue(deadWithoutEventSQL, e.To.ID, e.ID, enc.text(e.Record), e.WebhookID, e.Schema, e.Type, e.CommittedAt, deadTooLarge, e.Size, e.Format, nil, enc.text(e.Account))
}

const (
	endpointOfSQL = `SELECT endpoint FROM walhook.event WHERE id = $1`

	unretrySQL = `DELETE FROM walhook.retry WHERE endpoint = $1 AND event_id = $2`

	// What waited behind a row that is gone is its record's oldest now.
	promoteEndpointSQL = `
		UPDATE walhook.retry r SET next_at = clock_timestamp()
		WHERE r.endpoint = $1 AND r.next_at IS NULL AND NOT EXISTS (
			SELECT FROM walhook.retry o
			WHERE o.endpoint = r.endpoint AND o.record = r.record AND o.event_id < r.event_id)`
)

// bury makes a dead letter of an event that cannot be read, such as one on a damaged
// page, and takes it out of retry. The dead letter has what of the event can still be
// read; its body is gone, so it cannot be sent again. Whoever calls it has nothing of
// the event in flight.
func (s *Store) bury(ctx context.Context, f fence, l loop, id, endpoint int64, cause error) error {
	if endpoint == 0 {
		if err := s.pool.QueryRow(ctx, endpointOfSQL, id).Scan(&endpoint); err != nil && !isReadFault(err) && !isNoRows(err) {
			return err
		}
	}
	dead := int64(0)
	err := s.transact(ctx, f, func(tx pgx.Tx) error {
		var one deaths
		one.add(id, 0, asideUnreadable)
		err := savepoint(ctx, tx, func(tx pgx.Tx) (err error) {
			dead, err = one.insertTx(ctx, tx)
			return err
		})
		if isReadFault(err) {
			var tag pgconn.CommandTag
			name := strconv.FormatInt(id, 10)
			tag, err = tx.Exec(ctx, deadWithoutEventSQL, endpoint, id, "unreadable/"+name, "unreadable_"+name, "", "", nil, asideUnreadable, 0, "", []byte{}, "")
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
