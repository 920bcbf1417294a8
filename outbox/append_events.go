package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	copyEventsSQL = `
		COPY walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, body, body_of, body_size)
		FROM STDIN (FORMAT binary)`

	// Up to fewRows go with the rest of their transaction, in one round trip.
	insertEventsSQL = `
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, body, body_of, body_size)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
			$8::timestamptz[], $9::timestamptz[], $10::text[], $11::bytea[], $12::bigint[], $13::int[])`
)

func (s *Store) copyEvents(ctx context.Context, conn *pgx.Conn, events []eventRow) error {
	if len(events) == 0 {
		return nil
	}
	appended := time.Now()
	var bodies sharedBodies
	rows := newRowCopy(len(events), func(b []byte, i int) []byte {
		e := &events[i]
		b = appendColumns(b, 13)
		b = appendBigint(b, e.id)
		b = appendBigint(b, e.route.endpoint)
		b = appendBigint(b, e.route.revision)
		b = appendBytes(b, s.encoding.text(e.record))
		b = appendBytes(b, e.webhookID)
		b = appendBytes(b, s.encoding.text(e.schema))
		b = appendBytes(b, s.encoding.text(e.typ))
		b = appendTime(b, e.committedAt)
		b = appendTime(b, appended)
		b = appendBytes(b, e.format)
		of := bodies.carrier(e)
		if of == nil {
			return appendNull(appendNull(appendBytes(b, e.body)))
		}
		return appendInteger(appendBigint(appendBytes(b, ""), *of), int32(len(e.body)))
	})
	if _, err := conn.PgConn().CopyFrom(ctx, rows, copyEventsSQL); err != nil {
		return fmt.Errorf("copy %d events: %w", len(events), err)
	}
	return nil
}

func (s *Store) queueEvents(b *pgx.Batch, events []eventRow) {
	if len(events) == 0 {
		return
	}
	n, now := len(events), time.Now()
	ids, endpoints, revisions := make([]int64, n), make([]int64, n), make([]int64, n)
	records, webhooks, names, types, formats := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	committed, appended, bodies := make([]time.Time, n), make([]time.Time, n), make([][]byte, n)
	carriers, sizes := make([]*int64, n), make([]*int32, n)
	var shared sharedBodies
	for i := range events {
		e := &events[i]
		ids[i], endpoints[i], revisions[i] = e.id, e.route.endpoint, e.route.revision
		records[i], webhooks[i], names[i], types[i], formats[i] = s.encoding.text(e.record), e.webhookID, s.encoding.text(e.schema), s.encoding.text(e.typ), e.format
		committed[i], appended[i], bodies[i] = e.committedAt, now, e.body
		if carriers[i] = shared.carrier(e); carriers[i] != nil {
			bodies[i], sizes[i] = []byte{}, new(int32(len(e.body)))
		}
	}
	b.Queue(insertEventsSQL, ids, endpoints, revisions, records, webhooks, names, types, committed, appended, formats, bodies, carriers, sizes)
}
