package cdc

import (
	"context"
	"sync"
	"time"

	"walhook/schemas"
)

// The bounds of one batch. A larger transaction is appended in chunks; its ordinals say
// where to resume after a crash.
const (
	maxPendingChanges = 2_500
	maxPendingBytes   = 2 << 20
)

// pending is the batch that fills while the last one is being stored. The receiver
// adds, the appender takes. There is no timer: an idle appender takes what there is at
// once.
type pending struct {
	mu    sync.Mutex
	batch schemas.Batch    // guarded by mu
	spare []schemas.Change // guarded by mu: empty, for the next batch's changes
	bytes int              // guarded by mu
	some  bool             // guarded by mu: there is something to store
	taken bool             // guarded by mu: a batch is being stored
	ready chan struct{}    // gets a signal when some becomes true
	room  chan struct{}    // gets a signal when the batch was taken
}

func newPending() *pending {
	return &pending{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// add appends a batch's changes to those that wait. It reports whether there is room
// for more; if not, the caller waits for room before it adds again.
func (p *pending) add(b schemas.Batch, bytes int) (room bool) {
	p.mu.Lock()
	p.batch.Changes = append(p.batch.Changes, b.Changes...)
	p.batch.Position, p.batch.Xid, p.batch.CommittedAt = b.Position, b.Xid, b.CommittedAt
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
			// Position and flush stay, for a batch without changes.
			p.batch.Changes, p.spare, p.bytes, p.some, p.taken = p.spare, nil, 0, false, true
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

// done returns the memory of a batch of take, for another one.
func (p *pending) done(b schemas.Batch) {
	clear(b.Changes)
	p.mu.Lock()
	p.spare, p.taken = b.Changes[:0], false
	p.mu.Unlock()
}

// allStored reports whether all that was added is stored.
func (p *pending) allStored() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.some && !p.taken
}

// waiting reports whether the batch holds something.
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

// signal wakes a waiter, now or at its next receive.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// The bounds of a chunk: the part of a transaction that the receiver collects before it
// adds it to the batch. At the end of the transaction it adds the rest.
const (
	chunkChanges = 1000
	chunkBytes   = 1 << 20
)

// keep adds the changes of one message to the chunk, and hands on a full chunk. It never
// splits a message: a position stands for all of it.
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

// handOn adds the chunk to the batch, and waits while that is full. Meanwhile it answers
// the server, which would end a silent connection.
func (s *stream) handOn(ctx context.Context) error {
	size := s.arena.size - s.chunkStart
	room := s.pending.add(schemas.Batch{Changes: s.chunk, Position: s.position, Xid: s.xid, CommittedAt: s.committedAt, Flush: s.flush}, size)
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

// arena holds the values that a batch's changes point to, so that a change needs no
// allocation of its own. The garbage collector frees its blocks with the batches: an
// arena is never reset.
type arena struct {
	data    []byte
	values  []schemas.Value
	size    int // bytes handed out
	refills int // size from which on values gets a new block
}

const (
	arenaBytes  = 64 << 10
	arenaValues = 2048

	// arenaHeld is about how many bytes one block of values keeps in memory: those of rows
	// that were stored long ago, too, until the block is used up.
	arenaHeld = 1 << 20
)

// bytes copies b, which is in the receive buffer.
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
	if len(a.values)+n > cap(a.values) || a.size > a.refills {
		a.values, a.refills = make([]schemas.Value, 0, arenaValues), a.size+arenaHeld
	}
	start := len(a.values)
	a.values = a.values[:start+n]
	return a.values[start : start+n : start+n]
}
