package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often a peer may come with a wrong token, and how many peers and tokens
// are remembered.
const (
	badBurst      = 20
	badEvery      = 10 * time.Second
	guardRemember = 10_000

	// How often a right token may come before it is looked up: each look is a
	// query of the outbox.
	rightBurst = 500
	rightEvery = 10 * time.Millisecond
)

// guard slows down whoever guesses tokens. A token that was right before gets
// through all the same: behind a proxy everybody is one peer.
type guard struct {
	operator [sha256.Size]byte

	mu    sync.Mutex
	peers map[netip.Addr]*rate.Limiter
	right map[[sha256.Size]byte]*rate.Limiter
}

func newGuard(adminToken string) *guard {
	return &guard{
		operator: sha256.Sum256([]byte(adminToken)),
		peers:    map[netip.Addr]*rate.Limiter{},
		right:    map[[sha256.Size]byte]*rate.Limiter{},
	}
}

// isOperator takes the same time whatever the token is.
func (g *guard) isOperator(token [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(token[:], g.operator[:]) == 1
}

func (g *guard) shuts(from netip.Addr, token [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if limit, known := g.right[token]; known {
		return !limit.Allow()
	}
	limit := g.peers[from]
	return limit != nil && limit.Tokens() < 1
}

func (g *guard) bad(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	limit := g.peers[from]
	if limit == nil {
		if len(g.peers) >= guardRemember {
			g.forget()
		}
		limit = rate.NewLimiter(rate.Every(badEvery), badBurst)
		g.peers[from] = limit
	}
	limit.Allow()
}

// forget drops the peers that have waited long enough, or else all.
func (g *guard) forget() {
	for from, limit := range g.peers {
		if limit.Tokens() >= badBurst {
			delete(g.peers, from)
		}
	}
	if len(g.peers) >= guardRemember {
		clear(g.peers)
	}
}

func (g *guard) good(token [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.right[token] != nil {
		return
	}
	if len(g.right) >= guardRemember {
		clear(g.right)
	}
	g.right[token] = rate.NewLimiter(rate.Every(rightEvery), rightBurst)
}
