package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
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
		"The link is valid for 15 minutes and for one use. Its session is for this account alone, and ends with the token that made the link.")
	op.DefaultStatus = http.StatusCreated
	huma.Register(routes, op, handled(s, s.createPortalLink))
}

func (s *subscriptions) createPortalLink(ctx context.Context, in *AccountInput) (*answer[portalLink], error) {
	c := callOf(ctx)
	if c.session { // otherwise a session could outlast its 12 hours
		return nil, fail(http.StatusForbidden, "forbidden: a session of the portal makes no links to it")
	}
	unknown, err := s.unknownAccount(ctx, in.AccountID)
	if err != nil {
		return nil, err
	}
	link, err := s.cfg.Admin.CreatePortalLink(ctx, c.caller(), in.AccountID)
	if err != nil {
		return nil, err
	}
	s.log.Info("audit", zap.String("action", "portal link created"), zap.String("who", c.who), zap.String("account", in.AccountID), zap.String("request_id", c.id))
	return answerOf(portalLink{URL: PortalLinkURL(s.cfg.PortalURL, link.Secret), ExpiresAt: utc(link.ExpiresAt)}, unknown), nil
}

// PortalLinkURL is the address that a link's secret opens.
func PortalLinkURL(portal, secret string) string {
	return portal + "enter?" + url.Values{"link": {secret}}.Encode()
}
