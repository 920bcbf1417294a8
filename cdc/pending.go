package cdc

import (
	"context"
	"sync"

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
