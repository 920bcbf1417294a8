package cdc

import (
	"context"
	"fmt"
	"time"

	"walhook/schemas"
)

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
			return s.unread(ctx, start, err)
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
	s.r.metrics.lag.reads(end)
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
