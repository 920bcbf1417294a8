package cdc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

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
	// Only time spent waiting for a word counts, so that neither a store that
	// blocks nor a process that stood still takes a good connection for dead.
	var silent time.Duration
	var arrived uint64
	for {
		now := time.Now()
		if !now.Before(s.nextStatus) {
			if err := s.sendStatus(calm, now, silent > s.r.silence/2); err != nil {
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
				if before := arrived; s.arrived.Load() != before {
					arrived, silent = s.arrived.Load(), 0 // a part of a long message
				} else if silent += min(time.Since(now), statusEvery); silent > s.r.silence {
					return fmt.Errorf("receive from the source: not a word for %s", s.r.silence)
				}
				continue
			}
			return fmt.Errorf("receive from the source: %w", err)
		}
		silent = 0
		if err := s.message(ctx, message); err != nil {
			return err
		}
	}
}

// goodbye tells the server what was stored meanwhile, so that a clean stop
// leaves it no more than needed to send again.
func (s *stream) goodbye(ctx context.Context) {
	_ = s.sendStatus(ctx, time.Now(), false) // the connection is closing either way
}

func (s *stream) message(ctx context.Context, message pgproto3.BackendMessage) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		return s.copyData(ctx, m.Data)
	case *pgproto3.ErrorResponse:
		s.drain(ctx)
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
func (s *stream) ended(err *pgconn.PgError) error {
	if sqlState(err) == codeUndefinedObject {
		// Changes are decoded by the catalog of their time.
		return &GapError{From: schemas.LSN(s.flushed.Load()), Slot: s.r.cfg.Slot, Reason: fmt.Sprintf(
			"the next change was made while the publication was missing and cannot be decoded (%v)", err)}
	}
	return s.failed(err)
}
