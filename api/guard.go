package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often an address may come with wrong tokens, and with wrong ones that begin
// alike, before it is told to wait.
const (
	badBurst     = 20
	badEvery     = 10 * time.Second
	addressBurst = 200
	addressEvery = time.Second

	// How often a right token may come before it is looked up: each look is a
	// query of the outbox.
	rightBurst = 500
	rightEvery = 10 * time.Millisecond

	// wrongFor is how long a token that was wrong is wrong without a look: tokens
	// are made at random, and none becomes right later but by a restored backup.
	wrongFor = time.Minute

	// guardRemember bounds how many of each are remembered.
	guardRemember = 10_000
	// strangerLooks is how many tokens are looked up at once that were not right
	// before, of the outbox's connections for the API.
	strangerLooks = 2
	// prefixLength is how much of a token tells it from others: what every token
	// begins with, and five letters.
	prefixLength = 11
)

// guard slows down whoever guesses tokens, and knows the tokens of before. What
// it counts against an address never keeps a right token out: behind a proxy
// everybody is one address. Nothing of it outlives the process.
type guard struct {
	operator  [sha256.Size]byte
	strangers chan struct{} // turns of those who look a new token up

	mu    sync.Mutex // guards what follows
	bad   map[badKey]*rate.Limiter
	known map[[sha256.Size]byte]time.Time // wrong ones, and until when they are taken for it
	right map[[sha256.Size]byte]*rate.Limiter
}

// badKey is whose wrong tokens are counted; prefix is "" for all of an address.
type badKey struct {
	from   netip.Addr
	prefix string
}

func newGuard(adminToken string) *guard {
	return &guard{
		operator:  sha256.Sum256([]byte(adminToken)),
		strangers: make(chan struct{}, strangerLooks),
		bad:       map[badKey]*rate.Limiter{},
		known:     map[[sha256.Size]byte]time.Time{},
		right:     map[[sha256.Size]byte]*rate.Limiter{},
	}
}

// isOperator takes the same time whatever the token is.
func (g *guard) isOperator(token [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(token[:], g.operator[:]) == 1
}

// hurries says whether a right token comes too often.
func (g *guard) hurries(token [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	limit := g.right[token]
	return limit != nil && !limit.Allow()
}

func (g *guard) wasRight(token [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.right[token] != nil
}

// isWrong says whether a token was wrong a moment ago.
func (g *guard) isWrong(token [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	until, known := g.known[token]
	return known && time.Now().Before(until)
}

// wrong notes a wrong token, and says whether there were too many.
func (g *guard) wrong(from netip.Addr, secret string, token [sha256.Size]byte) (tooMany bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.right, token)
	if _, again := g.known[token]; !again {
		makeRoom(g.known, func(until time.Time) bool { return time.Now().After(until) })
	}
	g.known[token] = time.Now().Add(wrongFor)
	alike := g.limiter(badKey{from, secret[:min(len(secret), prefixLength)]}, badEvery, badBurst).Allow()
	all := g.limiter(badKey{from: from}, addressEvery, addressBurst).Allow()
	return !alike || !all
}

func (g *guard) limiter(of badKey, every time.Duration, burst int) *rate.Limiter {
	limit := g.bad[of]
	if limit == nil {
		makeRoom(g.bad, func(l *rate.Limiter) bool { return l.Tokens() >= float64(l.Burst()) })
		limit = rate.NewLimiter(rate.Every(every), burst)
		g.bad[of] = limit
	}
	return limit
}

// makeRoom drops what is over of a map that is full, or else all.
func makeRoom[K comparable, V any](of map[K]V, over func(V) bool) {
	if len(of) < guardRemember {
		return
	}
	for key, value := range of {
		if over(value) {
			delete(of, key)
		}
	}
	if len(of) >= guardRemember {
		clear(of)
	}
}

func (g *guard) good(token [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.right[token] != nil {
		return
	}
	makeRoom(g.right, func(l *rate.Limiter) bool { return l.Tokens() >= float64(l.Burst()) })
	g.right[token] = rate.NewLimiter(rate.Every(rightEvery), rightBurst)
}
