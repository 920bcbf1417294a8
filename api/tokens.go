package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// token is a token as the API shows it, without its secret.
type token struct {
	ID                 string    `json:"id"`
	Name               string    `json:"name,omitempty"`
	AccountID          string    `json:"account_id"`
	IncludeSubaccounts bool      `json:"include_subaccounts"`
	CreatedAt          time.Time `json:"created_at"`
}

// newToken is a token with its secret, which the API shows only once.
type newToken struct {
	token
	Token string `json:"token" doc:"the value for X-Auth-Token; it is not shown again"`
}

// tokenFields are the fields of a request for a token.
type tokenFields struct {
	Name               *string `json:"name,omitempty" maxLength:"128" doc:"for people"`
	IncludeSubaccounts *bool   `json:"include_subaccounts,omitempty" default:"false" doc:"valid for sub-accounts too, at any depth"`
}

type (
	createTokenInput struct {
		AccountInput
		RawBody []byte
	}
	listTokensInput struct {
		AccountInput
		PageInput
	}
	tokenInput struct {
		AccountInput
		TokenID string `path:"token_id" doc:"the token's id"`
	}
)

func (s *subscriptions) registerTokens(routes huma.API) {
	const path = "/accounts/{account_id}/tokens"
	s.tokens = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[tokenFields]())
	registerOptional(routes, idempotent(forOperator(withBody(operation("create-token", http.MethodPut, path, "Create a token",
		"For the operator. The token is valid for this account and, on request, for its sub-accounts."), s.tokens, http.StatusCreated))), handled(s, s.createToken))
	huma.Register(routes, forOperator(operation("list-tokens", http.MethodGet, path, "List the tokens", "For the operator.")), handled(s, s.listTokens))
	huma.Register(routes, forOperator(operation("delete-token", http.MethodDelete, path+"/{token_id}", "Delete a token",
		"For the operator. The token is invalid at once.")), handled(s, s.deleteToken))
}

func (s *subscriptions) createToken(ctx context.Context, in *createTokenInput) (*answer[newToken], error) {
	return makeOnce(ctx, s, "create-token", in.RawBody, func(asked creation[newToken]) (*answer[newToken], error) {
		return s.createTokenOnce(ctx, in, asked)
	})
}

func (s *subscriptions) createTokenOnce(ctx context.Context, in *createTokenInput, asked creation[newToken]) (*answer[newToken], error) {
	var wanted tokenFields
	sent, err := s.edits.readOptional(in.RawBody, s.tokens, &wanted)
	if err != nil {
		return nil, err
	}
	t := admin.Token{Account: in.AccountID}
	set(&t.Name, wanted.Name)
	set(&t.Subaccounts, wanted.IncludeSubaccounts)
	if hasControl(t.Name) {
		return nil, badRequest("name", "contains a control character")
	}
	unknown, err := s.unknownAccount(ctx, in.AccountID)
	if err != nil {
		return nil, err
	}
	name := t.Name
	var made *answer[newToken]
	t, _, err = s.cfg.Admin.CreateToken(ctx, t, asked.once, func(t admin.Token, secret string) ([]byte, error) {
		made = answerOf(newToken{token: shownToken(&t), Token: secret}, sent.warnings, unknown)
		return asked.write(made)
	})
	if err != nil {
		return nil, s.unencodable(ctx, err, map[string]string{"name": name})
	}
	s.auditToken(ctx, "token created", &t)
	return made, nil
}

func (s *subscriptions) listTokens(ctx context.Context, in *listTokensInput) (*pageAnswer[token], error) {
	after, err := startKey[*admin.Token](in.StartKey)
	if err != nil {
		return nil, err
	}
	if after != nil && !isOurID(after.ID) {
		return nil, badStartKey()
	}
	list, err := s.cfg.Admin.Tokens(ctx, in.AccountID, after, in.PageSize+1)
	if err != nil {
		return nil, err
	}
	return paged(list, in.PageSize, shownToken, func(t *admin.Token) any { return admin.Token{ID: t.ID, CreatedAt: t.CreatedAt} }), nil
}

func (s *subscriptions) deleteToken(ctx context.Context, in *tokenInput) (*answer[token], error) {
	if !isOurID(in.TokenID) {
		return nil, admin.ErrNoToken
	}
	t, err := s.cfg.Admin.DeleteToken(ctx, in.AccountID, in.TokenID)
	if err != nil {
		return nil, err
	}
	s.auditToken(ctx, "token deleted", &t)
	return answerOf(shownToken(&t)), nil
}

func shownToken(t *admin.Token) token {
	return token{ID: t.ID, Name: t.Name, AccountID: t.Account, IncludeSubaccounts: t.Subaccounts, CreatedAt: utc(t.CreatedAt)}
}

func (s *subscriptions) auditToken(ctx context.Context, what string, t *admin.Token) {
	c := callOf(ctx)
	s.log.Info("audit", zap.String("action", what), zap.String("who", c.who), zap.String("account", t.Account),
		zap.String("token", t.ID), zap.Bool("subaccounts", t.Subaccounts), zap.String("request_id", c.id))
}
