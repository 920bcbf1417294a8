package cdc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/schemas"
)

const (
	// statusEvery is how often the server is told the stored position even
	// if it does not ask; far below any sensible wal_sender_timeout.
	statusEvery = time.Second

	// idleEvery bounds how often an idle advance is stored: each costs a
	// commit in the outbox.
	idleEvery = 10 * time.Second

	// askedEvery is the same for when the server asks, as it does when it
	// shuts down and waits for us.
	askedEvery = 200 * time.Millisecond
)

// stream is what one connection receives. The receiver's fields belong to the
// goroutine of receive; the appender shares only pending and flushed.
type stream struct {
	r       *Reader
	conn    *pgconn.PgConn
	source  *catalogReader
	pending *pending
	flushed atomic.Uint64 // stored; what the server may be told

	resume     schemas.Checkpoint
	relations  map[uint32]*schemas.Relation
	arena      arena
	inTx       bool
	skip       bool  // the whole transaction is stored
	skipUpto   int64 // ordinals of the transaction that are stored
	tx         begin
	ordinal    int64
	chunk      []schemas.Change
	chunkStart int // arena.size when the chunk began
	position   schemas.Position
	xid        uint32
	flush      schemas.LSN
	idleStored time.Time
	nextStatus time.Time
}

func newStream(r *Reader, conn *pgconn.PgConn, source *catalogReader, c schemas.Checkpoint) *stream {
	s := &stream{
		r: r, conn: conn, source: source, pending: newPending(),
		resume: c, position: c.Position, xid: c.Xid, flush: c.Flush,
		relations: map[uint32]*schemas.Relation{},
	}
	s.flushed.Store(uint64(c.Flush))
	s.pending.batch = schemas.Batch{Position: c.Position, Xid: c.Xid, Flush: c.Flush}
	return s
}

// append stores batch after batch. Only then is the source told.
func (s *stream) append(ctx context.Context) error {
	for {
		batch, err := s.pending.take(ctx)
		if err != nil {
			return err
		}
		if err := s.r.store.Append(ctx, batch); err != nil {
			return err
		}
		s.flushed.Store(uint64(batch.Flush))
		s.r.metrics.stored(batch, s.pending.waiting())
	}
}

// receive reads messages and answers keepalives until ctx ends or the
// connection breaks.
func (s *stream) receive(ctx context.Context) error {
	// A deadline on the socket instead of a context per message: at a hundred
	// thousand messages a second that would cost more than decoding. A
	// deadline that passes does not close the connection.
	socket := s.conn.Conn()
	stop := context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	calm := context.WithoutCancel(ctx)
	for {
		now := time.Now()
		if ctx.Err() != nil {
			s.goodbye(calm)
			return context.Cause(ctx)
		}
		if !now.Before(s.nextStatus) {
			if err := s.sendStatus(calm, now); err != nil {
				return err
			}
			if err := socket.SetReadDeadline(s.nextStatus); err != nil {
				return err
			}
		}
		message, err := s.conn.ReceiveMessage(calm)
		if err != nil {
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				s.nextStatus = time.Time{}
				continue
			}
			return fmt.Errorf("receive from the source: %w", err)
		}
		if err := s.message(ctx, message); err != nil {
			return err
		}
	}
}

// goodbye tells the server what was stored meanwhile, so that a clean stop
// leaves it no more than needed to send again.
func (s *stream) goodbye(ctx context.Context) {
	_ = s.sendStatus(ctx, time.Now()) // the connection is closing either way
}

// sendStatus reports the stored position and nothing beyond. All three
// positions are set: pglogrepl reads a zero as "everything written is flushed".
func (s *stream) sendStatus(ctx context.Context, now time.Time) error {
	flushed := pglogrepl.LSN(s.flushed.Load())
	s.nextStatus = now.Add(statusEvery)
	if flushed == 0 {
		return nil
	}
	status := pglogrepl.StandbyStatusUpdate{
		WALWritePosition: flushed, WALFlushPosition: flushed, WALApplyPosition: flushed, ClientTime: now,
	}
	if err := pglogrepl.SendStandbyStatusUpdate(ctx, s.conn, status); err != nil {
		return fmt.Errorf("report position %s: %w", schemas.LSN(flushed), err)
	}
	return nil
}

func (s *stream) message(ctx context.Context, message pgproto3.BackendMessage) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		return s.copyData(ctx, m.Data)
	case *pgproto3.ErrorResponse:
		return fmt.Errorf("the source ended the stream: %w", pgconn.ErrorResponseToPgError(m))
	case *pgproto3.CopyDone:
		return errors.New("the source ended the stream")
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return nil
	default:
		return fmt.Errorf("the source sent an unexpected %T", message)
	}
}

// The headers inside CopyData (PostgreSQL manual, Streaming Replication
// Protocol).
const (
	copyWAL       = 'w'
	copyKeepalive = 'k'
)

func (s *stream) copyData(ctx context.Context, data []byte) error {
	c := &cursor{buf: data}
	switch kind := c.byte(); kind {
	case copyKeepalive:
		end := c.lsn()
		c.uint64() // the server's clock
		asked := c.byte() == 1
		if err := c.done(); err != nil {
			return fmt.Errorf("decode keepalive: %w", err)
		}
		s.keepalive(end, asked)
		return nil
	case copyWAL:
		start := c.lsn()
		s.r.metrics.serverEnd.Store(max(s.r.metrics.serverEnd.Load(), c.uint64()))
		c.uint64() // the server's clock
		if err := s.change(ctx, c); err != nil {
			return fmt.Errorf("decode message at %s: %w", start, err)
		}
		return nil
	default:
		return fmt.Errorf("the source sent copy data of kind %q", kind)
	}
}

// keepalive lets the slot follow the WAL while nothing that concerns us is
// written. end may be stored when everything received is, or is in the batch
// that waits; and it is reported only after that.
func (s *stream) keepalive(end schemas.LSN, asked bool) {
	s.r.metrics.serverEnd.Store(max(s.r.metrics.serverEnd.Load(), uint64(end)))
	now := time.Now()
	if asked {
		s.nextStatus = time.Time{}
	}
	every := idleEvery
	if asked {
		every = askedEvery
	}
	if s.inTx || end <= s.flush || now.Sub(s.idleStored) < every {
		return
	}
	s.idleStored = now
	s.flush = end
	s.pending.add(schemas.Batch{Position: s.position, Xid: s.xid, Flush: end}, 0)
}
