package portal

import (
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
)

// entryLimit slows down whoever guesses links or the operator's token. Its memory ends
// with the process.
type entryLimit struct {
	mu   sync.Mutex // guards from
	from map[netip.Addr]*rate.Limiter
}

func newEntryLimit() *entryLimit { return &entryLimit{from: map[netip.Addr]*rate.Limiter{}} }

// allow reports whether an address may try to enter. An address that has used up its
// tries is refused before anything is compared or looked up.
func (l *entryLimit) allow(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(from).Tokens() >= 1
}

// wrong counts a wrong entry.
func (l *entryLimit) wrong(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(from).Allow()
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
