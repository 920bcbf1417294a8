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

	// answerWithin bounds how soon a server that asks is told. One that
	// shuts down asks again with every answer until all is stored.
	answerWithin = 50 * time.Millisecond

	// askedEvery bounds how often an idle advance is stored while the server
	// asks, as it does when it shuts down and waits for us.
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

	progress bool // changes were stored; the appender's until it ends

	resume     schemas.Checkpoint
	expect     bool // the transaction that resume lies in is still to come
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
	lastStatus time.Time
	nextStatus time.Time
}

func newStream(r *Reader, conn *pgconn.PgConn, source *catalogReader, c schemas.Checkpoint, confirmed schemas.LSN) *stream {
	s := &stream{
		r: r, conn: conn, source: source, pending: newPending(),
		resume: c, position: c.Position, xid: c.Xid, flush: c.Flush,
		relations: map[uint32]*schemas.Relation{},
		// The server sends what was committed at confirmed or later.
		expect: c.Position.Ordinal > 0 && c.Position.Commit >= confirmed,
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
		s.progress = s.progress || batch.Position != s.resume.Position
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
	var deadline time.Time
	for {
		if now := time.Now(); !now.Before(s.nextStatus) {
			if err := s.sendStatus(calm, now); err != nil {
				return err
			}
		}
		if !deadline.Equal(s.nextStatus) {
			deadline = s.nextStatus
			if err := socket.SetReadDeadline(deadline); err != nil {
				return err
			}
		}
		// After the deadline is set, which the end of ctx has moved or will.
		if ctx.Err() != nil {
			s.goodbye(calm)
			return context.Cause(ctx)
		}
		message, err := s.conn.ReceiveMessage(calm)
		if err != nil {
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
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
	s.lastStatus, s.nextStatus = now, now.Add(statusEvery)
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
		return s.ended(pgconn.ErrorResponseToPgError(m))
	case *pgproto3.CopyDone:
		return errors.New("the source ended the stream")
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return nil
	default:
		return fmt.Errorf("the source sent an unexpected %T", message)
	}
}

// ended puts into words why the server ended the stream.
func (s *stream) ended(err error) error {
	if sqlState(err) == codeUndefinedObject {
		// Changes are decoded by the catalog of their time.
		return &GapError{From: schemas.LSN(s.flushed.Load()), Slot: s.r.cfg.Slot, Reason: fmt.Sprintf(
			"the next change was made while the publication was missing and cannot be decoded (%v)", err)}
	}
	return fmt.Errorf("the source ended the stream: %w", err)
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
		return s.keepalive(end, asked)
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

// keepalive notes how far the server has read its log, all that concerns us
// having been sent.
func (s *stream) keepalive(end schemas.LSN, asked bool) error {
	s.r.metrics.serverEnd.Store(max(s.r.metrics.serverEnd.Load(), uint64(end)))
	every := s.r.idleEvery
	if asked {
		every = askedEvery
		if soon := s.lastStatus.Add(answerWithin); soon.Before(s.nextStatus) {
			s.nextStatus = soon
		}
	}
	if s.inTx {
		return nil
	}
	if s.expect && end > s.resume.Position.Commit {
		return s.otherLog("it is not there")
	}
	s.advance(end, every)
	return nil
}

// advance lets the slot follow the log while nothing that concerns us is
// written. end may be stored when everything received is, or is in the batch
// that waits; and it is reported only after that.
func (s *stream) advance(end schemas.LSN, every time.Duration) {
	now := time.Now()
	if end <= s.flush || now.Sub(s.idleStored) < every {
		return
	}
	s.idleStored = now
	s.flush = end
	s.pending.add(schemas.Batch{Position: s.position, Xid: s.xid, Flush: end}, 0)
}
