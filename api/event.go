package api

import (
	"cmp"
	"context"
	"errors"

	"walhook/outbox/admin"
)

// sentRequest is the request that walhook would make of an event now. Each attempt adds
// webhook-timestamp and webhook-signature of its own.
type sentRequest struct {
	Method  string            `json:"method"`
	Headers map[string]string `json:"headers" doc:"webhook-timestamp and webhook-signature are missing: each attempt has its own. … stands for each value of the webhook's own headers"`
	Query   string            `json:"query,omitempty" doc:"what a GET adds to the query of the URL; the signature covers it in place of a body"`
	Body    string            `json:"body" doc:"byte for byte"`
}

// wholeEvent is an event with all that became of it.
type wholeEvent struct {
	event
	Request *sentRequest `json:"request,omitempty" doc:"by the webhook's present settings; absent when no body is kept (a dead letter that is too large), or when it cannot be rendered"`
	Unsent  string       `json:"unsent,omitempty" doc:"why there is no request"`
	Made    []attempt    `json:"attempts_made" nullable:"false" doc:"the newest 200, newest first"`
}

type eventInput struct {
	WebhookInput
	EventID string `path:"event_id" doc:"the event's id, which is the header webhook-id"`
}

func (s *subscriptions) readEvent(ctx context.Context, in *eventInput) (*answer[wholeEvent], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	unknown := &admin.UnknownEventError{WebhookID: clipped(in.EventID)}
	if !isID(in.EventID, maxEventID) {
		return nil, unknown
	}
	e, err := s.cfg.Admin.EventDetail(ctx, w.Endpoint, in.EventID)
	if err != nil {
		if s.cannotHold(ctx, in.EventID) {
			return nil, unknown
		}
		return nil, err
	}
	whole := wholeEvent{event: shownEvent(&e.EventStatus), Made: []attempt{}}
	whole.Deleted = w.Deleted
	for i := range e.Made {
		made := &e.Made[i]
		made.Webhook, made.Deleted, made.Schema, made.Type = w.ID, w.Deleted, e.Schema, e.Type
		whole.Made = append(whole.Made, shownAttempt(made))
	}
	if e.Event.Body == nil {
		whole.Unsent = "no body is kept of it"
		return answerOf(whole), nil
	}
	endpoint, err := s.cfg.Admin.Endpoint(ctx, w.Endpoint)
	if err != nil {
		return nil, err
	}
	sent, err := s.cfg.Destination.Render(endpoint, e.Event)
	if err != nil {
		whole.Unsent = "the event cannot be rendered by the webhook's present settings: change format or custom_data"
		return answerOf(whole), nil
	}
	whole.Request = &sentRequest{
		Method: sent.Method, Query: sent.Query, Body: string(sent.Body),
		Headers: map[string]string{"User-Agent": sent.UserAgent, "webhook-id": cmp.Or(sent.ID, e.WebhookID)},
	}
	if sent.EventIDs != "" {
		whole.Request.Headers["webhook-event-ids"] = sent.EventIDs
	}
	if sent.ContentType != "" {
		whole.Request.Headers["Content-Type"] = sent.ContentType
	}
	for _, name := range sent.Headers {
		whole.Request.Headers[name] = admin.Masked
	}
	return answerOf(whole), nil
}

func isUnknownEvent(err error) bool {
	_, unknown := errors.AsType[*admin.UnknownEventError](err)
	return unknown
}
