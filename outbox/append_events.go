package outbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	copyEventsSQL = `
		COPY walhook.event (id, endpoint, revision, record, webhook_id, schema, type, committed_at, appended_at, format, body)
		FROM STDIN (FORMAT binary)`
	copiedColumns = 11

	// A few events go with the rest of their transaction, in one round trip.
	insertEventsSQL = `
		INSERT INTO walhook.event (id, endpoint, revision, record, webhook_id, schema, type, committed_at, appended_at, format, body)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
			$8::timestamptz[], $9::timestamptz[], $10::text[], $11::bytea[])`
)

// fewEvents are as many as are inserted; more are copied.
const fewEvents = 50

func copyEvents(ctx context.Context, conn *pgxpool.Conn, events []eventRow) error {
	if len(events) == 0 {
		return nil
	}
	if _, err := conn.Conn().PgConn().CopyFrom(ctx, newEventCopy(events, time.Now()), copyEventsSQL); err != nil {
		return fmt.Errorf("copy %d events: %w", len(events), err)
	}
	return nil
}

func queueEvents(b *pgx.Batch, events []eventRow) {
	if len(events) == 0 {
		return
	}
	n, now := len(events), time.Now()
	ids, endpoints, revisions := make([]int64, n), make([]int64, n), make([]int64, n)
	records, webhooks, names, types, formats := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	committed, appended, bodies := make([]time.Time, n), make([]time.Time, n), make([][]byte, n)
	for i := range events {
		e := &events[i]
		ids[i], endpoints[i], revisions[i] = e.id, e.route.endpoint, e.route.revision
		records[i], webhooks[i], names[i], types[i], formats[i] = e.record, e.webhookID, e.schema, e.typ, e.format
		committed[i], appended[i], bodies[i] = e.committedAt, now, e.body
	}
	b.Queue(insertEventsSQL, ids, endpoints, revisions, records, webhooks, names, types, committed, appended, formats, bodies)
}

// eventCopy writes events as COPY reads them in binary (PostgreSQL manual, COPY,
// Binary Format), a little at a time: bodies may be large.
type eventCopy struct {
	events []eventRow // that are still to come
	now    int64
	buf    []byte
	rest   []byte // of buf, not read yet
	ended  bool
}

// copyBuffer is how much is encoded at once, or one event.
const copyBuffer = 32 << 10

func newEventCopy(events []eventRow, now time.Time) *eventCopy {
	c := &eventCopy{events: events, now: microseconds(now), buf: make([]byte, 0, copyBuffer+4<<10)}
	c.buf = append(c.buf, "PGCOPY\n\377\r\n\000"...)
	c.buf = append(c.buf, make([]byte, 8)...) // no flags, no extension
	c.rest = c.buf
	return c
}

func (c *eventCopy) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if c.ended {
			return 0, io.EOF
		}
		c.encode()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *eventCopy) encode() {
	b := c.buf[:0]
	for len(b) < copyBuffer && len(c.events) > 0 {
		e := &c.events[0]
		c.events = c.events[1:]
		b = binary.BigEndian.AppendUint16(b, copiedColumns)
		b = appendCopied(b, e.id)
		b = appendCopied(b, e.route.endpoint)
		b = appendCopied(b, e.route.revision)
		for _, text := range [...]string{e.record, e.webhookID, e.schema, e.typ} {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
		}
		b = appendCopied(b, microseconds(e.committedAt))
		b = appendCopied(b, c.now)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e.format))), e.format...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e.body))), e.body...)
	}
	if len(c.events) == 0 {
		b = append(b, 0xff, 0xff) // the end
		c.ended = true
	}
	c.buf, c.rest = b, b
}

// appendCopied appends a column of eight bytes.
func appendCopied(b []byte, value int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(value))
}

// postgresEpoch is what PostgreSQL counts time from.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func microseconds(t time.Time) int64 {
	return (t.Unix()-postgresEpoch.Unix())*1_000_000 + int64(t.Nanosecond())/1000
}
