package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox/address"
	"walhook/outbox/admin"
)

// hold is a hold as the API shows it.
type hold struct {
	AccountID string    `json:"account_id"`
	Host      string    `json:"host,omitempty" doc:"in its normal form; absent if the whole account is held"`
	Reason    string    `json:"reason"`
	HeldAt    time.Time `json:"held_at"`
}

// holdFields are the fields of a request for a hold.
type holdFields struct {
	Host   *string `json:"host,omitempty" maxLength:"512" doc:"name or address, in any form; absent holds the whole account" example:"hooks.example.com"`
	Reason *string `json:"reason,omitempty" minLength:"1" maxLength:"200" default:"held by the operator" doc:"for people; the account is shown it"`
}

// newHold is a new hold with its effects.
type newHold struct {
	hold
	Disabled int `json:"disabled" doc:"number of webhooks that it disabled"`
}

// released is what the end of holds did.
type released struct {
	Enabled       int `json:"enabled" doc:"number of webhooks that it enabled"`
	StillDisabled int `json:"still_disabled" doc:"number of webhooks that stay disabled, since the account or walhook has disabled them, too"`
}

type (
	createHoldInput struct {
		AccountInput
		RawBody []byte
	}
	listHoldsInput struct {
		AccountInput
		PageInput
	}
	hostInput struct {
		AccountInput
		Host string `path:"host" doc:"the host, in any form"`
	}
)

// reasonHeld is the reason of a hold for which the operator gave none.
const reasonHeld = "held by the operator"

func (s *subscriptions) registerHolds(routes huma.API) {
	const path = "/accounts/{account_id}/holds"
	s.holds = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[holdFields]())
	registerOptional(routes, idempotent(forOperator(withBody(operation("create-hold", http.MethodPut, path, "Hold an account, or one host of it",
		"For the operator. walhook sends nothing of the account there until the hold ends, and keeps the events until retention ends. The hold also applies to what the account's tokens set in sub-accounts."),
		s.holds, http.StatusCreated))), handled(s, s.createHold))
	huma.Register(routes, forOperator(operation("list-holds", http.MethodGet, path, "List the holds of an account",
		"For the operator. A webhook that the operator disabled has a hold on its host.")), handled(s, s.listHolds))
	huma.Register(routes, forOperator(operation("release-account", http.MethodDelete, path, "End all holds of an account",
		"For the operator. walhook sends what was held. What the account or walhook has disabled, too, stays disabled.")), handled(s, s.releaseAccount))
	huma.Register(routes, forOperator(operation("release-host", http.MethodDelete, path+"/{host}", "End the hold on one host",
		"For the operator. walhook sends what was held. What the account or walhook has disabled, too, stays disabled.")), handled(s, s.releaseHost))
}

func (s *subscriptions) createHold(ctx context.Context, in *createHoldInput) (*answer[newHold], error) {
	return makeOnce(ctx, s, "create-hold", in.RawBody, func(once creation[newHold]) (*answer[newHold], error) {
		return s.createHoldOnce(ctx, in, once)
	})
}

func (s *subscriptions) createHoldOnce(ctx context.Context, in *createHoldInput, once creation[newHold]) (*answer[newHold], error) {
	var asked holdFields
	sent, err := s.edits.readOptional(in.RawBody, s.holds, &asked)
	if err != nil {
		return nil, err
	}
	made := newHold{hold: hold{AccountID: in.AccountID, Reason: reasonHeld, HeldAt: time.Now().UTC()}}
	set(&made.Reason, asked.Reason)
	if hasControl(made.Reason) {
		return nil, badRequest("reason", "contains a control character")
	}
	if asked.Host != nil {
		if made.Host = address.NamedHost(*asked.Host); made.Host == "" {
			return nil, badRequest("host", "want the name or address of a host, such as hooks.example.com")
		}
	}
	unknown, err := s.unknownAccount(ctx, in.AccountID)
	if err != nil {
		return nil, err
	}
	var answered *answer[newHold]
	_, err = s.cfg.Admin.HoldOnce(ctx, in.AccountID, made.Host, made.Reason, once.once, func(disabled int) ([]byte, error) {
		made.Disabled = disabled
		answered = answerOf(made, sent.warnings, unknown)
		return once.write(answered)
	})
	if err != nil {
		return nil, s.unencodable(ctx, err, map[string]string{"reason": made.Reason, "host": made.Host})
	}
	action := "account held"
	if made.Host != "" {
		action = "host held"
	}
	s.auditHold(ctx, action, made.Host, zap.String("reason", made.Reason), zap.Int("webhooks", made.Disabled))
	return answered, nil
}

func (s *subscriptions) listHolds(ctx context.Context, in *listHoldsInput) (*pageAnswer[hold], error) {
	after := admin.Hold{Account: in.AccountID}
	switch host, err := startKey[*string](in.StartKey); {
	case err != nil:
		return nil, err
	case host != nil && *host != "" && !isID(*host, maxHost):
		return nil, badStartKey()
	case host != nil:
		after.Host = *host
	default:
		after.Account = ""
	}
	list, err := s.cfg.Admin.Holds(ctx, in.AccountID, after, in.PageSize+1)
	if err != nil {
		return nil, err
	}
	return paged(list, in.PageSize, shownHold, func(h *admin.Hold) any { return h.Host }), nil
}

// maxHost is longer than any host name, in bytes.
const maxHost = 1024

func (s *subscriptions) releaseAccount(ctx context.Context, in *AccountInput) (*answer[released], error) {
	did, err := s.cfg.Admin.ReleaseAccount(ctx, in.AccountID)
	if err != nil {
		return nil, err
	}
	s.auditHold(ctx, "account released", "", zap.Int("webhooks", did.Enabled), zap.Int("still_disabled", did.Stay))
	return answerOf(released{did.Enabled, did.Stay}), nil
}

func (s *subscriptions) releaseHost(ctx context.Context, in *hostInput) (*answer[released], error) {
	if !isID(in.Host, maxHost) {
		return nil, admin.ErrNoHold
	}
	did, err := s.cfg.Admin.ReleaseHost(ctx, in.AccountID, in.Host)
	if err != nil {
		return nil, err
	}
	s.auditHold(ctx, "host released", address.NamedHost(in.Host), zap.Int("webhooks", did.Enabled), zap.Int("still_disabled", did.Stay))
	return answerOf(released{did.Enabled, did.Stay}), nil
}

func shownHold(h *admin.Hold) hold {
	return hold{AccountID: h.Account, Host: h.Host, Reason: h.Reason, HeldAt: h.HeldAt.UTC()}
}

func (s *subscriptions) auditHold(ctx context.Context, what, host string, fields ...zap.Field) {
	c := callOf(ctx)
	s.log.Info("audit", append([]zap.Field{
		zap.String("action", what), zap.String("who", c.who), zap.String("account", c.account), zap.String("host", host),
		zap.String("request_id", c.id),
	}, fields...)...)
}
