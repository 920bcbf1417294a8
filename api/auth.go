package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"walhook/outbox"
	"walhook/schemas"
)

// operatorOnly marks the operations that need the operator's token.
const operatorOnly = "operator"

// ShortAdminToken is the length below which an operator's token may be guessed
// by whoever reaches the address.
const ShortAdminToken = 16

// authorize lets a request through that bears a token for the account in its
// path. An account that the token is not for looks like one that is not there.
func (s *subscriptions) authorize(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	c := callOf(ctx.Context())
	c.account = ctx.Param("account_id")
	f, err := s.admit(ctx.Context(), r, c)
	if err != nil {
		f = s.failureOf(ctx.Context(), err)
	}
	if f == nil && !c.operator && ctx.Operation().Metadata[operatorOnly] != nil {
		f = fail(http.StatusForbidden, "only the operator's token may do this")
	}
	if f != nil {
		switch f.status {
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", "10")
		}
		refuse(w, c.id, f)
		return
	}
	next(ctx)
}

// admit finds out who asks, and whether the account is theirs.
func (s *subscriptions) admit(ctx context.Context, r *http.Request, c *call) (*failure, error) {
	secret := bearer(r.Header)
	from := peer(r.RemoteAddr)
	known := sha256.Sum256([]byte(secret))
	if secret != "" && s.guard.shuts(from, known) {
		return fail(http.StatusTooManyRequests, "too many requests with a wrong token: wait a little"), nil
	}
	if secret != "" && s.guard.isOperator(known) {
		s.guard.good(known)
		c.who, c.operator = "operator", true
		if !isID(c.account, schemas.MaxAccountBytes) {
			return notFound("there is no such account"), nil
		}
		return nil, nil
	}
	token, err := outbox.Token{}, outbox.ErrNoToken
	if secret != "" {
		token, err = s.cfg.Store.FindToken(ctx, secret)
	}
	if errors.Is(err, outbox.ErrNoToken) {
		if secret != "" {
			s.guard.bad(from)
		}
		s.log.Info("token refused", zap.String("request_id", c.id), zap.Stringer("from", from), zap.Bool("missing", secret == ""))
		return fail(http.StatusUnauthorized, "a valid token is needed, in the header X-Auth-Token or as Authorization: Bearer"), nil
	}
	if err != nil {
		return nil, err
	}
	s.guard.good(known)
	c.who = token.ID
	mine, err := s.isFor(ctx, token, c.account)
	if err == nil && !mine {
		return notFound("there is no such account"), nil
	}
	return nil, err
}

func (s *subscriptions) isFor(ctx context.Context, token outbox.Token, account string) (bool, error) {
	switch {
	case account == token.Account:
		return true, nil
	case !token.Subaccounts || !isID(account, schemas.MaxAccountBytes):
		return false, nil
	}
	return s.cfg.Store.IsBelow(ctx, account, token.Account)
}

// bearer is the token of a request; "" when it has none.
func bearer(h http.Header) string {
	if token := h.Get("X-Auth-Token"); token != "" {
		return token
	}
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// isID says whether a part of a path can name something: the outbox holds no
// other text.
func isID(id string, maxBytes int) bool {
	return id != "" && len(id) <= maxBytes && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}

// peer is who is on the other end of the connection. A network of IPv6 counts
// as one.
func peer(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		a = netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// How often a peer may come with a wrong token, and how many peers and tokens
// are remembered.
const (
	badBurst      = 20
	badEvery      = 10 * time.Second
	guardRemember = 10_000
)

// guard slows down whoever guesses tokens. A token that was right before gets
// through all the same: behind a proxy everybody is one peer.
type guard struct {
	operator [sha256.Size]byte

	mu    sync.Mutex
	peers map[netip.Addr]*rate.Limiter
	right map[[sha256.Size]byte]struct{}
}

func newGuard(adminToken string) *guard {
	return &guard{
		operator: sha256.Sum256([]byte(adminToken)),
		peers:    map[netip.Addr]*rate.Limiter{},
		right:    map[[sha256.Size]byte]struct{}{},
	}
}

// isOperator takes the same time whatever the token is.
func (g *guard) isOperator(token [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(token[:], g.operator[:]) == 1
}

func (g *guard) shuts(from netip.Addr, token [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.right[token]; known {
		return false
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
	if len(g.right) >= guardRemember {
		clear(g.right)
	}
	g.right[token] = struct{}{}
}
