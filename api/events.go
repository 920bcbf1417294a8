package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
)

// event is an event of a webhook with its state.
type event struct {
	EventID     string    `json:"event_id" doc:"the header webhook-id"`
	Deleted     bool      `json:"webhook_deleted,omitempty" doc:"the webhook was deleted"`
	Schema      string    `json:"schema"`
	Type        string    `json:"type"`
	State       string    `json:"state" enum:"delivered,waiting,retry,dead,held,replayed" doc:"held: nothing is sent to the webhook at present; replayed: a newer entry with the same id has the state"`
	CommittedAt time.Time `json:"committed_at"`
	Bytes       int       `json:"bytes" doc:"size of its body before it is formatted"`
	Replayed    bool      `json:"replayed,omitempty" doc:"sent again by a replay"`
	Attempts    int       `json:"attempts"`
	Reason      string    `json:"reason,omitempty" doc:"of the last attempt"`
	NextAt      time.Time `json:"next_at,omitzero" doc:"of the next attempt"`
}

// deadLetter is an event that walhook does not attempt any more.
type deadLetter struct {
	WebhookID   string    `json:"webhook_id"`
	Deleted     bool      `json:"webhook_deleted,omitempty" doc:"the webhook was deleted: nothing of it can be sent again"`
	EventID     string    `json:"event_id" doc:"the header webhook-id; replay accepts it"`
	Schema      string    `json:"schema"`
	Type        string    `json:"type"`
	CommittedAt time.Time `json:"committed_at"`
	DiedAt      time.Time `json:"died_at"`
	Attempts    int       `json:"attempts"`
	Reason      string    `json:"reason"`
	Bytes       int64     `json:"bytes" doc:"size of its body; a body above the size limit is not stored and cannot be replayed"`
}

func (s *subscriptions) registerEvents(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks"
	huma.Register(routes, operation("list-events", http.MethodGet, path+"/{webhook_id}/events", "List the events of a webhook",
		"Events with their state, newest first, back to the end of retention."), handled(s, s.listEvents))
	huma.Register(routes, operation("list-dead-letters", http.MethodGet, path+"/dead", "List dead letters",
		"Dead-lettered events of all webhooks of the account, the 100 that were deleted last included, newest first."), handled(s, s.listDeadLetters))
}

func (s *subscriptions) listEvents(ctx context.Context, in *webhookListInput) (*pageAnswer[event], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	before, err := startKey[int64](in.StartKey)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Admin.EventStatuses(ctx, w.Endpoint, before, in.PageSize+1)
	if err != nil {
		return nil, err
	}
	return paged(list, in.PageSize, func(e *admin.EventStatus) event {
		shown := shownEvent(e)
		shown.Deleted = w.Deleted
		return shown
	}, func(e *admin.EventStatus) any { return e.ID }), nil
}

func shownEvent(e *admin.EventStatus) event {
	return event{
		EventID: e.WebhookID, Schema: e.Schema, Type: e.Type, State: e.State, CommittedAt: utc(e.CommittedAt),
		Bytes: e.Size, Replayed: e.Replayed, Attempts: e.Attempts, Reason: e.Reason, NextAt: utc(e.NextAt),
	}
}

func (s *subscriptions) listDeadLetters(ctx context.Context, in *accountListInput) (*pageAnswer[deadLetter], error) {
	before, err := startKey[int64](in.StartKey)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Admin.DeadLetters(ctx, in.AccountID, before, in.PageSize+1)
	if err != nil {
		return nil, err
	}
	return paged(list, in.PageSize, shownDeadLetter, func(d *admin.DeadLetter) any { return d.EventID }), nil
}

func shownDeadLetter(d *admin.DeadLetter) deadLetter {
	return deadLetter{
		WebhookID: d.Webhook, Deleted: d.Deleted, EventID: d.WebhookID, Schema: d.Schema, Type: d.Type, CommittedAt: utc(d.CommittedAt),
		DiedAt: utc(d.DiedAt), Attempts: d.Attempts, Reason: d.Reason, Bytes: d.Size,
	}
}
