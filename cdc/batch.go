package cdc

import (
	"context"
	"sync"
	"time"

	"walhook/schemas"
)

// The bounds of one batch. A transaction larger than that is appended in
// chunks; its ordinals tell where to go on after a crash.
const (
	maxPendingChanges = 2_500
	maxPendingBytes   = 2 << 20
)

// pending is the batch that fills while the last one is being stored. The
// receiver adds, the appender takes; there is no timer: an idle appender takes
// what there is at once.
type pending struct {
	mu    sync.Mutex
	batch schemas.Batch    // guarded by mu
	spare []schemas.Change // guarded by mu: empty, for the next batch's changes
	bytes int              // guarded by mu
	some  bool             // guarded by mu: there is something to store
	ready chan struct{}    // signalled when some becomes true
	room  chan struct{}    // signalled when the batch was taken
}

func newPending() *pending {
	return &pending{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// add puts a batch's changes behind those that wait. It reports whether there
// is room for more; if not, the caller waits for room before it adds again.
func (p *pending) add(b schemas.Batch, bytes int) (room bool) {
	p.mu.Lock()
	p.batch.Changes = append(p.batch.Changes, b.Changes...)
	p.batch.Position, p.batch.Xid = b.Position, b.Xid
	p.batch.Flush = max(p.batch.Flush, b.Flush)
	p.bytes += bytes
	p.some = true
	room = len(p.batch.Changes) < maxPendingChanges && p.bytes < maxPendingBytes
	p.mu.Unlock()
	signal(p.ready)
	return room
}

// take waits for something to store and takes all of it.
func (p *pending) take(ctx context.Context) (schemas.Batch, error) {
	for {
		p.mu.Lock()
		if p.some {
			batch := p.batch
			// Position and flush go on from here; an empty batch keeps them.
			p.batch.Changes, p.spare, p.bytes, p.some = p.spare, nil, 0, false
			p.mu.Unlock()
			signal(p.room)
			return batch, nil
		}
		p.mu.Unlock()
		select {
		case <-p.ready:
		case <-ctx.Done():
			return schemas.Batch{}, context.Cause(ctx)
		}
	}
}

// done gives back what take handed out, for another batch.
func (p *pending) done(b schemas.Batch) {
	clear(b.Changes)
	p.mu.Lock()
	p.spare = b.Changes[:0]
	p.mu.Unlock()
}

// waiting says whether something waits to be taken.
func (p *pending) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.some
}

func (p *pending) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.batch.Changes) >= maxPendingChanges || p.bytes >= maxPendingBytes
}

// signal wakes a waiter, now or when it next looks.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

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

// arena holds what a batch's changes point into, so that a change costs no
// allocation of its own. Chunks are given up to the garbage collector with the
// batch: an arena is never reset, only replaced.
type arena struct {
	data   []byte
	values []schemas.Value
	size   int // bytes handed out
}

const (
	arenaBytes  = 64 << 10
	arenaValues = 2048
)

// bytes copies b, whose own memory is the receive buffer.
func (a *arena) bytes(b []byte) []byte {
	a.size += len(b)
	if len(b) > arenaBytes/4 {
		return append([]byte(nil), b...)
	}
	if len(a.data)+len(b) > cap(a.data) {
		a.data = make([]byte, 0, arenaBytes)
	}
	start := len(a.data)
	a.data = append(a.data, b...)
	return a.data[start:len(a.data):len(a.data)]
}

// tuple returns n zero values.
func (a *arena) tuple(n int) schemas.Tuple {
	const valueSize = 32
	a.size += n * valueSize
	if n > arenaValues/4 {
		return make(schemas.Tuple, n)
	}
	if len(a.values)+n > cap(a.values) {
		a.values = make([]schemas.Value, 0, arenaValues)
	}
	start := len(a.values)
	a.values = a.values[:start+n]
	return a.values[start : start+n : start+n]
}
