package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// resyncFields select the records of a resync.
type resyncFields struct {
	Schema *string `json:"schema,omitempty" minLength:"1" maxLength:"64" doc:"only records of this schema" example:"dids"`
}

// resync is a request to send the present state of records, with its progress.
type resync struct {
	ID        int64     `json:"id"`
	Schema    string    `json:"schema,omitempty" doc:"absent for all schemas"`
	Type      string    `json:"type" enum:"update,insert" doc:"the type of its events: insert for an initial state"`
	Total     int64     `json:"total,omitempty" doc:"how many records there were when it began; absent before"`
	Sent      int64     `json:"sent" doc:"records so far; a record that changes meanwhile is sent by its change instead"`
	State     string    `json:"state" enum:"waiting,running,done,ended"`
	Reason    string    `json:"reason,omitempty" doc:"why it ended early"`
	AskedAt   time.Time `json:"asked_at,omitzero"`
	StartedAt time.Time `json:"started_at,omitzero"`
	DoneAt    time.Time `json:"done_at,omitzero"`
}

func (s *subscriptions) registerResyncs(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks/{webhook_id}/resync"
	s.resyncs = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[resyncFields]())
	registerOptional(routes, idempotent(expensive(withBody(operation("resync", http.MethodPost, path, "Send the present state again",
		"Sends each record that the webhook gets as an update event, while changes continue. A receiver that applies a record's events in the order of their arrival ends with the "+
			"present state, and never goes back. One event with the schema resync comes last. It runs in the background; a webhook has one at a time."),
		s.resyncs, http.StatusAccepted))), handled(s, s.resync))
	huma.Register(routes, operation("list-resyncs", http.MethodGet, path, "List resyncs",
		"Newest first, with their progress."), handled(s, s.listResyncs))
}

type resyncInput struct {
	WebhookInput
	RawBody []byte
}

func (s *subscriptions) resync(ctx context.Context, in *resyncInput) (*answer[resync], error) {
	return makeOnce(ctx, s, "resync "+in.WebhookID, in.RawBody, func(asked creation[resync]) (*answer[resync], error) {
		return s.resyncOnce(ctx, in, asked)
	})
}

func (s *subscriptions) resyncOnce(ctx context.Context, in *resyncInput, once creation[resync]) (*answer[resync], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	var sent resyncFields
	read, err := s.edits.readOptional(in.RawBody, s.resyncs, &sent)
	if err != nil {
		return nil, err
	}
	asked := admin.Resync{By: callOf(ctx).caller()}
	set(&asked.Schema, sent.Schema)
	var held []string
	if w.State != outbox.EndpointActive && w.State != outbox.EndpointCleared {
		held = append(held, "the webhook is "+string(w.State)+": its events are held until that ends")
	}
	var made *answer[resync]
	asked, err = s.cfg.Admin.CreateResync(ctx, &w, asked, once.once, func(r admin.Resync) ([]byte, error) {
		made = answerOf(shownResync(&r), read.warnings, held)
		return once.write(made)
	})
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "resync", &w, zap.Int64("request", asked.ID), zap.String("schema", asked.Schema))
	return made, nil
}

func (s *subscriptions) listResyncs(ctx context.Context, in *webhookListInput) (*pageAnswer[resync], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	before, err := startKey[int64](in.StartKey)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Admin.Resyncs(ctx, w.Endpoint, before, in.PageSize+1)
	if err != nil {
		return nil, err
	}
	return paged(list, in.PageSize, shownResync, func(r *admin.Resync) any { return r.ID }), nil
}

func shownResync(r *admin.Resync) resync {
	shown := resync{
		ID: r.ID, Schema: r.Schema, Type: r.Kind, Total: r.Total, Sent: r.Sent, State: "running", Reason: r.Reason,
		AskedAt: utc(r.AskedAt), StartedAt: utc(r.StartedAt), DoneAt: utc(r.DoneAt),
	}
	switch {
	case r.Reason != "":
		shown.State = "ended"
	case !r.DoneAt.IsZero():
		shown.State = "done"
	case r.StartedAt.IsZero():
		shown.State = "waiting"
	}
	return shown
}
