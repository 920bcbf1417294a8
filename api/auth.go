package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"walhook/outbox/admin"
	"walhook/schemas"
)

// operatorOnly marks the operations that need the operator's token.
const operatorOnly = "operator"

// ShortAdminToken is the length below which an attacker who reaches the API could
// guess an operator's token.
const ShortAdminToken = 16

// authorize passes on a request that has a token for the account in its path. For any
// other account it answers as if that account did not exist.
func (s *subscriptions) authorize(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	c := callOf(ctx.Context())
	c.account, c.whole = ctx.Param("account_id"), !strings.Contains(ctx.Operation().Path, "{account_id}")
	within, cancel := context.WithTimeoutCause(ctx.Context(), requestTimeout, errors.New("look up who calls"))
	defer cancel()
	f, err := s.admit(within, r, c)
	if err != nil {
		f = s.failureOf(ctx.Context(), err)
	}
	if f == nil && !c.operator && ctx.Operation().Metadata[operatorOnly] != nil {
		f = fail(http.StatusForbidden, "forbidden: this call needs the operator's token")
	}
	if f == nil {
		var leave func()
		if leave, f = s.enter(ctx, c); f == nil {
			defer leave()
			next(huma.WithContext(ctx, admin.WithActor(ctx.Context(), c.actor())))
			return
		}
	}
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if f.status == http.StatusTooManyRequests {
		slowDown(ctx.Context())
	}
	refuse(w, c.id, f)
}

// enter waits for the call's turn among the calls of its token's account.
func (s *subscriptions) enter(ctx huma.Context, c *call) (leave func(), f *failure) {
	leave, refused := s.limits.enter(ctx.Context(), kindOfCall(ctx), c.payer)
	switch {
	case leave != nil:
		return leave, nil
	case kindOf(ctx.Operation()) == feedCall:
		return nil, tooMany(feedFullPause, "too many readers of feeds at a time: try again later, or read several webhooks in turn")
	case refused.busy:
		return nil, unavailable("too many concurrent calls: try again later")
	}
	return nil, tooMany(refused.after, "too many concurrent calls of this account, or its calls used too much database time: try again later")
}

// refusedPause delays a 429, so that the caller cannot ask again at once.
const refusedPause = 200 * time.Millisecond

func slowDown(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(refusedPause):
	}
}

// admit determines the caller and whether the account belongs to it. It always looks
// up a token that was right before, no matter how many wrong ones come from the same
// address.
func (s *subscriptions) admit(ctx context.Context, r *http.Request, c *call) (*failure, error) {
	if c.principal != nil {
		return c.principal.admit(c), nil
	}
	secret := bearer(r.Header)
	from := s.clients.of(r)
	hash := sha256.Sum256([]byte(secret))
	c.proof = proofOf(secret)
	if secret != "" && s.guard.isOperator(hash) {
		c.who, c.operator = "operator", true
		if !c.whole && !isID(c.account, schemas.MaxAccountBytes) {
			return notFound("account not found"), nil
		}
		return nil, nil
	}
	if secret != "" && s.guard.hurries(hash) {
		return tooMany(badEvery, "too many requests with this token: try again later"), nil
	}
	token, err := admin.Token{}, admin.ErrNoToken
	if secret != "" && !s.guard.isWrong(hash) {
		token, err = s.lookUp(ctx, secret, hash)
	}
	if errors.Is(err, admin.ErrNoToken) {
		s.log.Info("token rejected", zap.String("request_id", c.id), zap.Stringer("from", from), zap.Bool("missing", secret == ""))
		if secret != "" && s.guard.wrong(from, secret, hash) {
			return tooMany(badEvery, "too many requests with an invalid token: check the token and try again later"), nil
		}
		return fail(http.StatusUnauthorized, "missing or invalid token: send it as X-Auth-Token or Authorization: Bearer"), nil
	}
	if err != nil {
		return nil, err
	}
	s.guard.good(hash)
	c.who, c.payer = token.ID, token.Account
	if c.whole { // no account's call: for operators alone
		return nil, nil
	}
	mine, err := s.isFor(ctx, token, c.account)
	if err == nil && !mine {
		return notFound("account not found"), nil
	}
	return nil, err
}

// lookUp asks the outbox for a token. Tokens that were never right take turns, so that
// a flood of wrong ones occupies few connections and leaves the others for right ones.
func (s *subscriptions) lookUp(ctx context.Context, secret string, hash [sha256.Size]byte) (admin.Token, error) {
	if !s.guard.wasRight(hash) {
		select {
		case s.guard.strangers <- struct{}{}:
			defer func() { <-s.guard.strangers }()
		case <-ctx.Done():
			return admin.Token{}, fmt.Errorf("look up a token: %w", ctx.Err())
		}
	}
	return s.cfg.Admin.FindToken(ctx, secret)
}

func (s *subscriptions) isFor(ctx context.Context, token admin.Token, account string) (bool, error) {
	switch {
	case account == token.Account:
		return true, nil
	case !token.Subaccounts || !isID(account, schemas.MaxAccountBytes):
		return false, nil
	}
	return s.cfg.Admin.IsBelow(ctx, account, token.Account)
}

// bearer returns the token of a request; "" when it has none.
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

// isID reports whether a part of a path can be an id of the outbox.
func isID(id string, maxBytes int) bool {
	return id != "" && len(id) <= maxBytes && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}

// peer returns the address at the other end of the connection. An IPv6 /64 network
// counts as one address.
func peer(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return peerOf(host)
}

// peerOf returns the zero Addr for a text that is not an address.
func peerOf(host string) netip.Addr {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		a = netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}
