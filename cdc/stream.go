package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/cdc/source"
	"walhook/internal/pgsession"
	"walhook/internal/retry"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// catalogNow reads the source's current system catalog. It is a [source.Introspector]
// outside of tests.
type catalogNow interface {
	Describe(ctx context.Context, oid uint32) (*catalog.TableDescription, error)
	ReadTypes(ctx context.Context, oids []uint32) (rows []pgjson.TypeRow, altered map[uint32][]int64, version string, err error)
	TypesVersion(ctx context.Context, rows []pgjson.TypeRow) (version string, seen source.Visibility, err error)
	Shows(ctx context.Context, xid uint32) (bool, error)
}

// stream is one connection's stream of changes. The goroutine of receive owns its
// fields; that of append shares only pending and flushed.
type stream struct {
	r       *Reader
	conn    *pgconn.PgConn
	arrived *atomic.Uint64 // bytes that the server sent
	source  catalogNow
	builtin *pgjson.Types // never added to
	pending *pending
	flushed atomic.Uint64 // the stored flush position, which the server gets

	progress bool // changes were stored; append's until it returns

	resume        schemas.Checkpoint
	expect        bool // the transaction that resume is in has not come yet
	history       *history
	relations     map[uint32]*schemas.Relation
	dropsDefaults bool                                          // of the server
	described     uint32                                        // the last RELATION message's, until a change
	partitions    map[uint32]*partitions                        // of tables that are published under their own names
	missing       map[uint32]map[string]catalog.DescribedColumn // columns whose defaults old rows may lack
	composites    map[uint32]*compositeTypes                    // of relations with composite columns
	arena         arena
	inTx          bool
	skip          bool  // the whole transaction is stored
	skipUpto      int64 // the last stored ordinal of the transaction
	tx            begin
	invisible     schemas.LSN // a transaction that the catalog did not show in time
	ordinal       int64
	encoding      string          // of the server
	illegible     map[string]bool // columns with values that were not UTF-8
	convert       func(context.Context, []byte) (string, error)
	size          int             // of a shortened message; 0 for another
	held          *schemas.Change // a delete whose row may have moved to another partition
	chunk         []schemas.Change
	chunkStart    int // arena.size when the chunk began
	position      schemas.Position
	xid           uint32
	committedAt   time.Time
	flush         schemas.LSN
	gate          gate
	idleStored    time.Time
	lastStatus    time.Time
	nextStatus    time.Time
}

func newStream(r *Reader, conn *pgconn.PgConn, source catalogNow, dropsDefaults bool, history *history, c schemas.Checkpoint, confirmed schemas.LSN) *stream {
	s := &stream{
		r: r, conn: conn, source: source, builtin: pgjson.NewTypes(), dropsDefaults: dropsDefaults, pending: newPending(),
		resume: c, position: c.Position, xid: c.Xid, committedAt: c.CommittedAt, flush: c.Flush,
		history: history, partitions: map[uint32]*partitions{}, missing: map[uint32]map[string]catalog.DescribedColumn{},
		relations: map[uint32]*schemas.Relation{}, composites: map[uint32]*compositeTypes{},
		// The server sends transactions that committed at confirmed or later.
		expect: c.Position.Ordinal > 0 && c.Position.Commit >= confirmed,
	}
	s.flushed.Store(uint64(c.Flush))
	s.pending.batch = schemas.Batch{Position: c.Position, Xid: c.Xid, CommittedAt: c.CommittedAt, Flush: c.Flush, NoMessages: r.noMessages}
	return s
}

// append stores batch after batch. The source gets a position only after that.
func (s *stream) append(ctx context.Context) error {
	for {
		batch, err := s.pending.take(ctx)
		if err != nil {
			return err
		}
		taken := time.Now()
		if err := s.r.store.Append(ctx, batch); err != nil {
			return err
		}
		s.progress = s.progress || batch.Position != s.resume.Position
		s.flushed.Store(uint64(batch.Flush))
		s.r.checkSkip(batch.Flush, 0)
		s.r.metrics.stored(batch, taken, s.pending.waiting())
		s.pending.done(batch)
	}
}

const (
	// statusEvery is how often the reader reports the stored position unasked; far
	// below any sensible wal_sender_timeout.
	statusEvery = time.Second

	// answerWithin is how soon the reader answers a server that asks for the position.
	// While it shuts down, the server asks again after every answer until all is
	// stored.
	answerWithin = 50 * time.Millisecond

	// askedEvery is how often an idle advance is stored while the server asks, as it
	// does when it shuts down and waits for the reader.
	askedEvery = 200 * time.Millisecond
)

// receive reads messages and answers keepalives until ctx ends or the
// connection breaks.
func (s *stream) receive(ctx context.Context) error {
	// A deadline on the socket instead of a context per message, which at a hundred
	// thousand messages a second costs more than decoding. The connection survives a
	// deadline that passes.
	socket := s.conn.Conn()
	stop := context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	calm := context.WithoutCancel(ctx)
	var deadline time.Time
	// Only time spent waiting for the server counts, so that a good connection
	// survives a store that blocks and a process that was suspended.
	var silent time.Duration
	var arrived uint64
	for {
		now := time.Now()
		if !now.Before(s.nextStatus) {
			if err := s.sendStatus(calm, now, silent > s.r.silence/2 || s.gate.asksAnswer() || s.awaited()); err != nil {
				return err
			}
		}
		if !deadline.Equal(s.nextStatus) {
			deadline = s.nextStatus
			if err := socket.SetReadDeadline(deadline); err != nil {
				return err
			}
		}
		// After the deadline was set: AfterFunc sets it too when ctx ends.
		if ctx.Err() != nil {
			s.goodbye(calm)
			return context.Cause(ctx)
		}
		if s.mayStop() {
			if err := s.stand(ctx); err != nil {
				return err
			}
			continue
		}
		message, err := s.conn.ReceiveMessage(calm)
		if err != nil {
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				if before := arrived; s.arrived.Load() != before {
					arrived, silent = s.arrived.Load(), 0 // a part of a long message
				} else if silent += min(time.Since(now), statusEvery); silent > s.r.silence {
					return fmt.Errorf("receive from the source: no message for %s", s.r.silence)
				}
				continue
			}
			return fmt.Errorf("receive from the source: %w", err)
		}
		silent = 0
		switch m := message.(type) {
		case *pgproto3.CopyData:
			err = s.copyData(ctx, m.Data)
		case *pgproto3.ErrorResponse:
			s.drain(ctx)
			err = s.ended(pgconn.ErrorResponseToPgError(m))
		case *pgproto3.CopyDone:
			err = errors.New("the source ended the stream")
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			err = fmt.Errorf("the source sent an unexpected %T", message)
		}
		if err != nil {
			return err
		}
	}
}

// goodbye reports what was stored meanwhile, so that the server sends no more than
// needed after a clean stop.
func (s *stream) goodbye(ctx context.Context) {
	_ = s.sendStatus(ctx, time.Now(), false) // the connection is closing either way
}

// ended makes the error of a stream that the server ended.
func (s *stream) ended(err *pgconn.PgError) error {
	if pgsession.State(err) == "42704" { // undefined_object
		// The server decodes changes by its catalog of their time.
		return &source.GapError{From: schemas.LSN(s.flushed.Load()), Slot: s.r.cfg.Slot, Reason: fmt.Sprintf(
			source.GapUndecodable, err)}
	}
	return s.failed(err)
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
	case copyWAL, copyShortened:
		s.size = 0
		if kind == copyShortened {
			s.size = int(c.uint64())
		}
		start := c.lsn()
		s.r.metrics.serverEnd.Store(max(s.r.metrics.serverEnd.Load(), c.uint64()))
		c.uint64() // the server's clock
		if err := s.change(ctx, c); err != nil {
			return s.asDecodeError(ctx, start, err)
		}
		return nil
	default:
		return fmt.Errorf("the source sent copy data of kind %q", kind)
	}
}

// keepalive notes the position up to which the server has read its WAL and sent all
// published changes.
func (s *stream) keepalive(end schemas.LSN, asked bool) error {
	s.r.metrics.serverEnd.Store(max(s.r.metrics.serverEnd.Load(), uint64(end)))
	every := s.r.idleEvery
	if s.awaited() {
		every = 0
	}
	if asked {
		every = min(every, askedEvery)
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
	if s.gate.reaches(end) {
		return nil
	}
	s.r.metrics.lag.reads(end)
	s.advance(end, every)
	return nil
}

// awaited reports whether the store waits for more than what was received. An idle server
// says how far it is only when it is asked.
func (s *stream) awaited() bool { return s.flush < s.r.store.Awaited() }

// advance lets the slot follow the WAL while no published change is written. It adds end
// to the pending batch, behind all that was received. The reader reports it only once
// that is stored.
func (s *stream) advance(end schemas.LSN, every time.Duration) {
	now := time.Now()
	if end <= s.flush || now.Sub(s.idleStored) < every {
		return
	}
	s.idleStored = now
	s.flush = end
	s.pending.add(schemas.Batch{Position: s.position, Xid: s.xid, CommittedAt: s.committedAt, Flush: end}, 0)
}

// sendStatus reports the stored position and nothing beyond. answer asks the
// server for a reply.
//
// A second update without a flush position follows in the same packet. The first one
// advances the slot. The second one keeps the WAL sender from being a synchronous
// standby, whatever synchronous_standby_names says: a standby without a valid flush
// position is no candidate (PostgreSQL,
// src/backend/replication/syncrep.c, SyncRepGetCandidateStandbys). Otherwise
// the carrier's commits would wait for the outbox, and an outbox on the same
// server would wait for itself.
func (s *stream) sendStatus(_ context.Context, now time.Time, answer bool) error {
	stored := s.flushed.Load()
	s.lastStatus, s.nextStatus = now, now.Add(statusEvery)
	if stored == 0 {
		return nil
	}
	buf, err := appendStatus(nil, stored, stored, now, answer)
	if err == nil {
		buf, err = appendStatus(buf, stored, 0, now, false)
	}
	if err == nil {
		err = s.conn.Frontend().SendUnbufferedEncodedCopyData(buf)
	}
	if err != nil {
		return fmt.Errorf("report position %s: %w", schemas.LSN(stored), err)
	}
	return nil
}

// keepAlive does what takes long before anything is received, and keeps the server from
// ending the stream meanwhile (wal_sender_timeout). What the server sends waits in the
// connection. It gets no position: nothing is known to be stored yet. If the connection
// breaks, do ends with the cause.
func keepAlive(ctx context.Context, conn *pgconn.PgConn, do func(context.Context) error) error {
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			buf, err := appendStatus(nil, 0, 0, time.Now(), false)
			if err == nil {
				err = conn.Frontend().SendUnbufferedEncodedCopyData(buf)
			}
			if err != nil {
				cancel(fmt.Errorf("keep the connection to the source alive during the take-over: %w", err))
				return
			}
			if retry.Pause(bounded, statusEvery) != nil {
				return
			}
		}
	})
	err := do(bounded)
	broken := context.Cause(bounded)
	cancel(nil)
	sending.Wait()
	if err != nil && broken != nil && ctx.Err() == nil {
		return broken // it says more than the step that it ended
	}
	return err
}

// appendStatus appends a standby status update (PostgreSQL manual, Streaming
// Replication Protocol). A flushed position of 0 is not valid.
func appendStatus(buf []byte, stored, flushed uint64, now time.Time, answer bool) ([]byte, error) {
	data := make([]byte, 0, 34)
	data = append(data, 'r')
	for _, position := range []uint64{stored, flushed, stored} { // written, flushed, applied
		data = binary.BigEndian.AppendUint64(data, position)
	}
	data = binary.BigEndian.AppendUint64(data, uint64(now.Sub(source.Epoch).Microseconds()))
	reply := byte(0)
	if answer {
		reply = 1
	}
	return (&pgproto3.CopyData{Data: append(data, reply)}).Encode(buf)
}
