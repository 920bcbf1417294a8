package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// portalLink is a link that opens the account's portal once.
type portalLink struct {
	URL       string    `json:"url" doc:"opens the account's portal, once"`
	ExpiresAt time.Time `json:"expires_at" doc:"when the link expires; the session that it opens lasts 12 hours"`
}

func (s *subscriptions) registerPortal(routes huma.API) {
	if s.cfg.PortalURL == "" {
		return
	}
	op := operation("create-portal-link", http.MethodPut, "/accounts/{account_id}/portal", "Make a link to the portal",
		"The link is valid for 15 minutes and for one use. Its session is for this account alone, and ends with the token that made the link. A repeated request gets the same link: look at expires_at, and use a new key for each visitor.")
	op.DefaultStatus = http.StatusCreated
	huma.Register(routes, idempotent(op), handled(s, s.createPortalLink))
}

func (s *subscriptions) createPortalLink(ctx context.Context, in *AccountInput) (*answer[portalLink], error) {
	c := callOf(ctx)
	if c.session { // otherwise a session could outlast its 12 hours
		return nil, fail(http.StatusForbidden, "forbidden: a session of the portal makes no links to it")
	}
	return makeOnce(ctx, s, "create-portal-link", nil, func(asked creation[portalLink]) (*answer[portalLink], error) {
		return s.createPortalLinkOnce(ctx, in, asked)
	})
}

func (s *subscriptions) createPortalLinkOnce(ctx context.Context, in *AccountInput, asked creation[portalLink]) (made *answer[portalLink], err error) {
	unknown, err := s.unknownAccount(ctx, in.AccountID)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	_, err = s.cfg.Admin.CreatePortalLink(ctx, c.caller(), in.AccountID, asked.once, func(link admin.PortalLink) ([]byte, error) {
		made = answerOf(portalLink{URL: PortalLinkURL(s.cfg.PortalURL, link.Secret), ExpiresAt: utc(link.ExpiresAt)}, unknown)
		return asked.write(made)
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("audit", zap.String("action", "portal link created"), zap.String("who", c.who), zap.String("account", in.AccountID), zap.String("request_id", c.id))
	return made, nil
}

// PortalLinkURL is the address that a link's secret opens.
func PortalLinkURL(portal, secret string) string {
	return portal + "enter?" + url.Values{"link": {secret}}.Encode()
}
