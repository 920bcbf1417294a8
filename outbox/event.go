package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
)

// The columns of an event, in the order in which eventRow gives them.
const (
	eventColumns = `id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, body, body_of, body_size, account`

	copyEventsSQL = `COPY walhook.event (` + eventColumns + `) FROM STDIN (FORMAT binary)`
)

// insertEvents is for up to fewRows, which go with the rest of their transaction, in one
// round trip.
var insertEvents = newRowInsert(`INSERT INTO walhook.event (`+eventColumns+`)`, []string{
	"?::bigint", "?::bigint", "?::bigint", "?::text", "?::text", "?::text", "?::text", "?::timestamptz", "?::timestamptz", "?::text", "?::bytea", "?::bigint", "?::int", "?::text",
}, "")

func (s *Store) copyEvents(ctx context.Context, conn *pgx.Conn, events []route.Event, appended time.Time) error {
	if len(events) == 0 {
		return nil
	}
	if _, err := conn.PgConn().CopyFrom(ctx, newRowCopy(len(events), s.eventRow(events, appended)), copyEventsSQL); err != nil {
		return fmt.Errorf("copy %d events: %w", len(events), err)
	}
	return nil
}

// eventRow writes the events of one append, which are asked for in order.
func (s *Store) eventRow(events []route.Event, appended time.Time) func(w rowWriter, i int) {
	var bodies sharedBodies
	return func(w rowWriter, i int) {
		e := &events[i]
		w.bigint(e.ID)
		w.bigint(e.To.ID)
		w.bigint(e.To.Revision)
		w.text(s.encoding.text(e.Record))
		w.text(e.WebhookID)
		w.text(s.encoding.text(e.Schema))
		w.text(s.encoding.text(e.Type))
		w.time(e.CommittedAt)
		w.time(appended)
		w.text(e.Format)
		body, of, size := e.Body, bodies.carrier(e), (*int32)(nil)
		if of != nil {
			body, size = []byte{}, new(int32(len(e.Body)))
		}
		w.bytes(body)
		w.bigintOrNull(of)
		w.integerOrNull(size)
		w.text(s.encoding.text(e.Account))
	}
}

// A large body that goes to several endpoints, or is sent again, is stored once.
// Of the events of one append that have the same body the first carries it, and
// each of the others names that one in body_of, the body's length in body_size,
// and has an empty body. So does a repetition. They are in one partition, which
// retention drops whole.

// sharedFrom is the length from which a body is stored once. Below it, reading
// another row costs more than the copy.
const sharedFrom = 2 << 10

// What statements ask of a row e of the event log.
const (
	SizeSQL = `coalesce(e.body_size, octet_length(e.body))`
	BodySQL = `CASE WHEN e.body_of IS NULL THEN e.body ELSE (SELECT o.body FROM walhook.event o WHERE o.id = e.body_of) END`

	// An event with an attempt has been settled by it or is in retry. An EXISTS
	// would do, but may be planned as a scan of the whole table.
	unsettledSQL = `(SELECT 1 FROM walhook.attempt a WHERE a.endpoint = e.endpoint AND a.event_id = e.id LIMIT 1) IS NULL
		AND (SELECT 1 FROM walhook.retry r WHERE r.endpoint = e.endpoint AND r.event_id = e.id LIMIT 1) IS NULL
		AND (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = e.endpoint AND d.event_id = e.id LIMIT 1) IS NULL`
)

// sharedBodies goes through the events of one append in order.
type sharedBodies struct {
	last *route.Event // that carries a large body
}

// carrier is the id of the event that carries the body of e; nil for e itself.
// Routing hands one slice to all endpoints that get the same body.
func (s *sharedBodies) carrier(e *route.Event) *int64 {
	if len(e.Body) < sharedFrom {
		return nil
	}
	if c := s.last; c != nil && sameBody(c, e) && eventPartition(c.ID) == eventPartition(e.ID) {
		return &c.ID
	}
	s.last = e
	return nil
}

// errCarrierGone is met in a damaged log alone: retention drops both together.
var errCarrierGone = &badItem{asideUnreadable, "the event that carries its body no longer exists"}
