package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
)

// attempt is one request to a webhook.
type attempt struct {
	WebhookID  string    `json:"webhook_id"`
	Deleted    bool      `json:"webhook_deleted,omitempty" doc:"the webhook was deleted"`
	EventID    string    `json:"event_id,omitempty" doc:"the header webhook-id; absent once the event has been dropped"`
	BatchID    string    `json:"batch_id,omitempty" doc:"the header webhook-id of the request, if it was a batch"`
	Schema     string    `json:"schema,omitempty"`
	Type       string    `json:"type,omitempty"`
	Attempt    int       `json:"attempt" doc:"1 for the first"`
	At         time.Time `json:"at"`
	DurationMS float64   `json:"duration_ms" doc:"0 when there was no answer"`
	Status     int       `json:"status" doc:"of HTTP; 0 when there was no answer"`
	Outcome    string    `json:"outcome" enum:"delivered,retry,pause,disable,dead"`
	Reason     string    `json:"reason" doc:"2xx, 5xx, timeout_header, unreachable and so on: docs/RECEIVERS.md lists them"`
	Detail     string    `json:"detail,omitempty" doc:"for people: what the receiver answered, without what was sent; absent when there was no answer"`
}

func shownAttempt(made *admin.MadeAttempt) attempt {
	a := *made
	a.Attempt = made.ForAccount()
	return attempt{
		WebhookID: a.Webhook, Deleted: a.Deleted, EventID: a.WebhookID, BatchID: a.Batch, Schema: a.Schema, Type: a.Type,
		Attempt: a.Number, At: utc(a.At), DurationMS: float64(a.Duration.Microseconds()) / 1000,
		Status: a.Status, Outcome: a.Outcome, Reason: a.Reason, Detail: a.Detail,
	}
}

type (
	accountListInput struct {
		AccountInput
		PageInput
	}
	webhookListInput struct {
		WebhookInput
		PageInput
	}
)

func (s *subscriptions) registerAttempts(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks"
	huma.Register(routes, operation("list-attempts", http.MethodGet, path+"/attempts", "List recent attempts",
		"To all webhooks of the account, the 100 that were deleted last included, the newest first."), handled(s, s.accountAttempts))
	huma.Register(routes, operation("list-webhook-attempts", http.MethodGet, path+"/{webhook_id}/attempts", "List recent attempts to a webhook",
		"Newest first."), handled(s, s.webhookAttempts))
}

func (s *subscriptions) accountAttempts(ctx context.Context, in *accountListInput) (*pageAnswer[attempt], error) {
	return attemptsPage(in.PageInput, func(before *admin.AttemptKey, limit int) ([]admin.MadeAttempt, error) {
		return s.cfg.Admin.Attempts(ctx, in.AccountID, before, limit)
	})
}

func (s *subscriptions) webhookAttempts(ctx context.Context, in *webhookListInput) (*pageAnswer[attempt], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	return attemptsPage(in.PageInput, func(before *admin.AttemptKey, limit int) ([]admin.MadeAttempt, error) {
		return s.cfg.Admin.AttemptsOf(ctx, []int64{w.Endpoint}, before, limit)
	})
}

func attemptsPage(page PageInput, read func(before *admin.AttemptKey, limit int) ([]admin.MadeAttempt, error)) (*pageAnswer[attempt], error) {
	before, err := startKey[*admin.AttemptKey](page.StartKey)
	if err != nil {
		return nil, err
	}
	list, err := read(before, page.PageSize+1)
	if err != nil {
		return nil, err
	}
	return paged(list, page.PageSize, shownAttempt, func(a *admin.MadeAttempt) any {
		return admin.AttemptKey{At: a.At, Endpoint: a.Endpoint, EventID: a.EventID}
	}), nil
}
