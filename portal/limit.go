package portal

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The bounds of entries from one address, and how many addresses are remembered.
const (
	entryBurst    = 10
	entryEvery    = 10 * time.Second
	entryRemember = 10_000

	// guessing is how many links from addresses that guess are looked up at the same
	// time, and refusedPause how long an answer to them waits.
	guessing     = 2
	refusedPause = 200 * time.Millisecond
)

// entryLimit slows down whoever guesses links or the operator's token. Its memory ends
// with the process.
type entryLimit struct {
	lookups chan struct{} // one slot per look-up for an address that guesses

	mu   sync.Mutex // guards from
	from map[netip.Addr]*rate.Limiter
}

func newEntryLimit() *entryLimit {
	return &entryLimit{lookups: make(chan struct{}, guessing), from: map[netip.Addr]*rate.Limiter{}}
}

// turn waits until a link may be looked up. Addresses with too many wrong entries take
// turns, so that they occupy few connections to the outbox.
func (l *entryLimit) turn(ctx context.Context, from netip.Addr) (leave func(), err error) {
	if !l.guesses(from) {
		return func() {}, nil
	}
	select {
	case l.lookups <- struct{}{}:
		return func() { <-l.lookups }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// guesses reports whether an address has shown too much that was wrong.
func (l *entryLimit) guesses(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(from).Tokens() < 1
}

// wrong counts a wrong entry, and reports whether there were too many.
func (l *entryLimit) wrong(from netip.Addr) (tooMany bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.of(from).Allow()
}

// of returns the limiter of an address. The caller holds mu.
func (l *entryLimit) of(from netip.Addr) *rate.Limiter {
	limiter := l.from[from]
	if limiter == nil {
		if len(l.from) >= entryRemember {
			for other, known := range l.from {
				if known.Tokens() >= entryBurst {
					delete(l.from, other)
				}
			}
			if len(l.from) >= entryRemember { // all are guessing
				clear(l.from)
			}
		}
		limiter = rate.NewLimiter(rate.Every(entryEvery), entryBurst)
		l.from[from] = limiter
	}
	return limiter
}
