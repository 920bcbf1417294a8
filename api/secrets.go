package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// signingSecret is what deliveries are signed with.
type signingSecret struct {
	Secret        string    `json:"secret" doc:"whsec_ and base64, as Standard Webhooks 1.0 has it"`
	Previous      string    `json:"previous_secret,omitempty" doc:"signs too, while it is being replaced"`
	PreviousUntil time.Time `json:"previous_until,omitzero" doc:"when the previous one ends"`
}

// rotateFields say how to replace a secret.
type rotateFields struct {
	OverlapSeconds *int `json:"overlap_seconds,omitempty" minimum:"0" maximum:"2592000" default:"86400" doc:"how long the secret before goes on signing; 0 ends it at once"`
}

type rotateInput struct {
	WebhookInput
	RawBody []byte
}

const defaultOverlap = 24 * time.Hour

func (s *subscriptions) registerSecrets(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks/{webhook_id}/secret"
	huma.Register(routes, operation("read-secret", http.MethodGet, path, "Read the signing secret", ""), handled(s, s.readSecret))
	s.rotations = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[rotateFields]())
	registerOptional(routes, withBody(operation("rotate-secret", http.MethodPost, path+"/rotate", "Replace the signing secret",
		"Until the overlap ends deliveries carry two signatures, by the new secret and by the one before."), s.rotations, http.StatusOK), handled(s, s.rotateSecret))
}

func (s *subscriptions) readSecret(ctx context.Context, in *WebhookInput) (*answer[signingSecret], error) {
	w, err := s.webhook(ctx, in)
	if err != nil {
		return nil, err
	}
	secrets, until, err := s.cfg.Store.WebhookSecrets(ctx, in.AccountID, in.WebhookID)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "secret read", &w)
	shown := signingSecret{Secret: secrets[0], PreviousUntil: utc(until)}
	if len(secrets) > 1 {
		shown.Previous = secrets[1]
	}
	return answerOf(shown), nil
}

func (s *subscriptions) rotateSecret(ctx context.Context, in *rotateInput) (*answer[signingSecret], error) {
	w, err := s.webhook(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	wrong := faults{}
	sent := s.edits.readOptional(in.RawBody, s.rotations, wrong)
	if err := wrong.err(); err != nil {
		return nil, err
	}
	var asked rotateFields
	if err := sent.into(&asked); err != nil {
		return nil, err
	}
	overlap := defaultOverlap
	if asked.OverlapSeconds != nil {
		overlap = time.Duration(*asked.OverlapSeconds) * time.Second
	}
	secret, until, err := s.cfg.Store.RotateWebhookSecret(ctx, callOf(ctx).caller(), in.AccountID, in.WebhookID, overlap)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "secret rotated", &w)
	return answerOf(signingSecret{Secret: secret, PreviousUntil: utc(until)}, sent.warnings), nil
}
