package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
	"walhook/schemas"
)

// act is a line of the audit.
type act struct {
	At        time.Time `json:"at"`
	Actor     string    `json:"actor" doc:"a token or a session of the portal by its id, or an operator and the command"`
	Action    string    `json:"action"`
	AccountID string    `json:"account_id,omitempty" doc:"of whom something was changed; absent for no single one"`
	WebhookID string    `json:"webhook_id,omitempty"`
	RequestID string    `json:"request_id,omitempty" doc:"of the API's request, as in the logs"`
	Detail    string    `json:"detail,omitempty" doc:"for people"`
}

// listAuditInput filters the audit. Times are read by [queryTime], whose errors say more.
type listAuditInput struct {
	PageInput
	Account string `query:"account" doc:"only what concerns this account"`
	Actor   string `query:"actor" doc:"only what this actor did, as actor shows it"`
	Action  string `query:"action" doc:"only this action" example:"secret read"`
	Since   string `query:"since" doc:"only at this time or later" example:"2026-03-09T02:00:00Z"`
	Until   string `query:"until" doc:"only before this time" example:"2026-03-09T05:00:00Z"`
}

func (s *subscriptions) registerAudit(routes huma.API) {
	huma.Register(routes, forOperator(operation("list-audit", http.MethodGet, "/audit", "List who did what",
		"For the operator. Every change of every account, every read of a secret and every test, by the API, the portal and the commands; the newest first, for 90 days. Lines hold no secret, no body and no URL.")), handled(s, s.listAudit))
}

func (in *listAuditInput) filter() (admin.ActFilter, error) {
	wrong := faults{}
	f := admin.ActFilter{Account: in.Account, Actor: in.Actor, Action: in.Action}
	queryText("actor", f.Actor, wrong)
	if f.Account != "" && !isID(f.Account, schemas.MaxAccountBytes) {
		wrong.add("account", kindInvalid, "cannot be the id of an account")
	}
	if f.Action != "" && !slices.Contains(admin.Actions(), f.Action) {
		wrong.add("action", kindInvalid, "unknown action: want one of %q", admin.Actions())
	}
	f.Since, f.Until = queryTime("since", in.Since, wrong), queryTime("until", in.Until, wrong)
	if len(wrong) == 0 && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		wrong.add("until", kindInvalid, "is not after since: nothing is between the two")
	}
	return f, wrong.err()
}

func (s *subscriptions) listAudit(ctx context.Context, in *listAuditInput) (*pageAnswer[act], error) {
	filter, err := in.filter()
	if err != nil {
		return nil, err
	}
	before, err := startKey[*admin.ActKey](in.StartKey)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Admin.Acts(ctx, filter, before, in.PageSize+1)
	if err != nil {
		return nil, s.unencodable(ctx, err, map[string]string{"account": in.Account, "actor": in.Actor})
	}
	return paged(list, in.PageSize, shownAct, func(a *admin.Act) any { return a.Key() }), nil
}

func shownAct(a *admin.Act) act {
	return act{At: utc(a.At), Actor: a.Actor, Action: a.Action, AccountID: a.Account, WebhookID: a.Webhook, RequestID: a.RequestID, Detail: a.Detail}
}
