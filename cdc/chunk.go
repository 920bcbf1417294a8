package cdc

import (
	"context"
	"time"

	"walhook/schemas"
)

// The bounds of a chunk: what is kept back of a transaction before its end is
// seen. At its end, whatever there is goes on.
const (
	chunkChanges = 1000
	chunkBytes   = 1 << 20
)

// keep adds what a change message says to the chunk and hands a full one on. A
// message is never split: a position stands for all of it.
func (s *stream) keep(ctx context.Context, changes ...schemas.Change) error {
	for _, change := range changes {
		change.Position, change.CommittedAt = s.position, s.tx.committedAt
		if len(s.chunk) == 0 {
			s.r.metrics.received()
		}
		s.chunk = append(s.chunk, change)
	}
	if len(s.chunk) < chunkChanges && s.arena.size-s.chunkStart < chunkBytes {
		return nil
	}
	return s.handOn(ctx)
}

// handOn gives the chunk to the appender and waits while there is no room,
// answering the server meanwhile so that it does not give up on us.
func (s *stream) handOn(ctx context.Context) error {
	size := s.arena.size - s.chunkStart
	room := s.pending.add(schemas.Batch{Changes: s.chunk, Position: s.position, Xid: s.xid, Flush: s.flush}, size)
	clear(s.chunk)
	s.chunk, s.chunkStart = s.chunk[:0], s.arena.size
	for !room {
		select {
		case <-s.pending.room:
			room = !s.pending.full()
		case <-time.After(statusEvery):
			if err := s.sendStatus(context.WithoutCancel(ctx), time.Now(), false); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
