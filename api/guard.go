package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The bounds of wrong tokens from one address: badBurst and badEvery of those with the
// same prefix, addressBurst and addressEvery of all.
const (
	badBurst     = 20
	badEvery     = 10 * time.Second
	addressBurst = 200
	addressEvery = time.Second

	// rightBurst and rightEvery bound the calls of a right token, since each costs a
	// query of the outbox.
	rightBurst = 500
	rightEvery = 10 * time.Millisecond

	// wrongFor is how long the guard refuses a wrong token without a query. Tokens are
	// random, so a wrong one becomes right only when a backup is restored.
	wrongFor = time.Minute

	// guardRemember bounds the entries of each map.
	guardRemember = 10_000
	// strangerLooks is how many tokens that were never right are looked up at the same
	// time. It is less than the API's connections to the outbox.
	strangerLooks = 2
	// prefixLength is how many characters of wrong tokens are compared: the prefix of
	// every token and five characters more.
	prefixLength = 11
)

// guard slows down clients that guess tokens, and remembers right and wrong tokens. It
// never refuses a right token for what its address did, because all clients behind a
// proxy share one address. Its memory ends with the process.
type guard struct {
	operator  [sha256.Size]byte
	strangers chan struct{} // one slot per look-up of a new token

	mu    sync.Mutex // guards what follows
	bad   map[badKey]*rate.Limiter
	known map[[sha256.Size]byte]time.Time // wrong tokens, and until when the guard refuses them
	right map[[sha256.Size]byte]*rate.Limiter
}

// badKey counts the wrong tokens of an address with the same prefix; "" counts all of
// the address.
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

// isOperator compares in constant time.
func (g *guard) isOperator(token [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(token[:], g.operator[:]) == 1
}

// hurries reports whether a right token exceeds its rate.
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

// isWrong reports whether a token was wrong within wrongFor.
func (g *guard) isWrong(token [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	until, known := g.known[token]
	return known && time.Now().Before(until)
}

// wrong notes a wrong token, and reports whether there were too many.
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

// makeRoom drops the entries of a full map for which over is true, or else all.
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
