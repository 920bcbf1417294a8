package outbox

import (
	"encoding/binary"
	"io"
	"time"

	"walhook/outbox/route"
)

// A large body that goes to several endpoints, or is sent again, is stored once.
// Of the events of one append that have the same body the first carries it, and
// each of the others names that one in body_of, the body's length in body_size,
// and has an empty body. So does a repetition. They are in one partition, which
// retention drops whole.

// sharedFrom is the length from which a body is stored once. Below it, reading
// another row costs more than the copy.
const sharedFrom = 2 << 10

const (
	// Of an event e.
	sizeSQL = `coalesce(e.body_size, octet_length(e.body))`
	bodySQL = `CASE WHEN e.body_of IS NULL THEN e.body ELSE (SELECT o.body FROM walhook.event o WHERE o.id = e.body_of) END`
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
	if c := s.last; c != nil && len(c.Body) == len(e.Body) && &c.Body[0] == &e.Body[0] && eventPartition(c.ID) == eventPartition(e.ID) {
		return &c.ID
	}
	s.last = e
	return nil
}

// errCarrierGone is met in a damaged log alone: retention drops both together.
var errCarrierGone = &badItem{asideUnreadable, "the event that carries its body no longer exists"}

// fewRows are as many as are inserted with an INSERT; more are copied, which is
// cheaper for each, and takes two round trips more.
const fewRows = 50

// rowCopy writes rows as COPY reads them in binary (PostgreSQL manual, COPY,
// Binary Format), a little at a time: bodies may be large.
type rowCopy struct {
	rows   int
	encode func(b []byte, row int) []byte // appends a row: its number of columns, and them
	next   int                            // row
	buf    []byte
	rest   []byte // of buf, not read yet
	ended  bool
}

// copyBuffer is how much is encoded at once, or one row.
const copyBuffer = 32 << 10

func newRowCopy(rows int, encode func(b []byte, row int) []byte) *rowCopy {
	c := &rowCopy{rows: rows, encode: encode, buf: make([]byte, 0, copyBuffer+4<<10)}
	c.buf = append(c.buf, "PGCOPY\n\377\r\n\000"...)
	c.buf = append(c.buf, make([]byte, 8)...) // no flags, no extension
	c.rest = c.buf
	return c
}

func (c *rowCopy) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if c.ended {
			return 0, io.EOF
		}
		c.fill()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *rowCopy) fill() {
	b := c.buf[:0]
	for ; len(b) < copyBuffer && c.next < c.rows; c.next++ {
		b = c.encode(b, c.next)
	}
	if c.next == c.rows {
		b = append(b, 0xff, 0xff) // the end
		c.ended = true
	}
	c.buf, c.rest = b, b
}

// The columns of a row, each with its length before it.

func appendColumns(b []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(b, n) }

func appendBigint(b []byte, value int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(value))
}

func appendInteger(b []byte, value int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(value))
}

// appendBytes appends a text or a bytea.
func appendBytes[T string | []byte](b []byte, value T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
}

func appendNull(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff) }

func appendTime(b []byte, t time.Time) []byte { return appendBigint(b, microseconds(t)) }

// appendInterval appends a time without days and months.
func appendInterval(b []byte, d time.Duration) []byte {
	b = binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 16), uint64(d.Microseconds()))
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// postgresEpoch is what PostgreSQL counts time from.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func microseconds(t time.Time) int64 {
	return (t.Unix()-postgresEpoch.Unix())*1_000_000 + int64(t.Nanosecond())/1000
}

// fromMicroseconds is the time that is stored as that.
func fromMicroseconds(m int64) time.Time {
	return time.UnixMicro(m + postgresEpoch.UnixMicro())
}
