package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
)

// signingSecret is the secret that signs deliveries.
type signingSecret struct {
	Secret        string          `json:"secret" doc:"whsec_ and base64, as in Standard Webhooks 1.0"`
	Previous      string          `json:"previous_secret,omitempty" doc:"the newest secret of earlier"`
	PreviousUntil time.Time       `json:"previous_until,omitzero" doc:"when previous_secret expires"`
	Earlier       []earlierSecret `json:"earlier,omitempty" doc:"all earlier secrets that still sign, newest first, each until its time"`
}

type earlierSecret struct {
	Secret string    `json:"secret"`
	Until  time.Time `json:"until"`
}

// rotateFields are the fields of a request to replace a secret.
type rotateFields struct {
	OverlapSeconds *int `json:"overlap_seconds,omitempty" minimum:"0" maximum:"2592000" default:"86400" doc:"how long the previous secret still signs; 0 expires it and all earlier ones before the answer"`
}

type rotateInput struct {
	WebhookInput
	RawBody []byte
}

const defaultOverlap = 24 * time.Hour

const unusableEarlier = "an earlier secret cannot be used and signs no longer"

func (s *subscriptions) registerSecrets(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks/{webhook_id}/secret"
	huma.Register(routes, operation("read-secret", http.MethodGet, path, "Read the signing secret", ""), handled(s, s.readSecret))
	s.rotations = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[rotateFields]())
	registerOptional(routes, idempotent(withBody(slow(operation("rotate-secret", http.MethodPost, path+"/rotate", "Replace the signing secret",
		"Until the overlap ends, deliveries carry signatures by the new and the previous secret, newest first. Up to 10 secrets sign at once, each until its time.")), s.rotations, http.StatusOK)), handled(s, s.rotateSecret))
}

func (s *subscriptions) readSecret(ctx context.Context, in *WebhookInput) (*answer[signingSecret], error) {
	w, err := s.webhook(ctx, in)
	if err != nil {
		return nil, err
	}
	secrets, until, err := s.cfg.Admin.WebhookSecrets(ctx, in.AccountID, in.WebhookID)
	var warnings []string
	if errors.Is(err, admin.ErrUnusableSecret) && len(secrets) > 0 {
		warnings, err = []string{unusableEarlier}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Admin.Audit(ctx, admin.Act{Action: admin.ActSecretRead, Account: w.Account, Webhook: w.ID}); err != nil {
		return nil, err
	}
	s.audit(ctx, "secret read", &w)
	shown := signingSecret{Secret: secrets[0]}
	for i, secret := range secrets[1:] {
		if i < len(until) {
			shown.Earlier = append(shown.Earlier, earlierSecret{secret, utc(until[i])})
		}
	}
	if len(shown.Earlier) > 0 {
		shown.Previous, shown.PreviousUntil = shown.Earlier[0].Secret, shown.Earlier[0].Until
	}
	return answerOf(shown, warnings), nil
}

func (s *subscriptions) rotateSecret(ctx context.Context, in *rotateInput) (*answer[signingSecret], error) {
	unconfirmed := false
	made, err := makeOnce(ctx, s, "rotate-secret "+in.WebhookID, in.RawBody, func(asked creation[signingSecret]) (*answer[signingSecret], error) {
		made, err := s.rotateSecretOnce(ctx, in, asked)
		if unconfirmed = errors.Is(err, admin.ErrNotConfirmed); unconfirmed {
			err = nil
		}
		return made, err
	})
	if err != nil {
		return nil, err
	}
	if repeated := callOf(ctx).header.Get(replayedHeader) != ""; repeated && made.Body.Data.PreviousUntil.IsZero() {
		// The first request may still wait, or its process may have ended meanwhile.
		err := s.cfg.Admin.AwaitSecretEnd(ctx, in.AccountID, in.WebhookID)
		if unconfirmed = errors.Is(err, admin.ErrNotConfirmed); err != nil && !unconfirmed {
			return nil, err
		}
	}
	if unconfirmed { // known after the commit only, so it is in no stored answer
		made.Body.Warnings = append(made.Body.Warnings, admin.ErrNotConfirmed.Error())
	}
	return made, nil
}

func (s *subscriptions) rotateSecretOnce(ctx context.Context, in *rotateInput, once creation[signingSecret]) (made *answer[signingSecret], err error) {
	w, err := s.webhook(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	var asked rotateFields
	sent, err := s.edits.readOptional(in.RawBody, s.rotations, &asked)
	if err != nil {
		return nil, err
	}
	overlap := defaultOverlap
	if asked.OverlapSeconds != nil {
		overlap = time.Duration(*asked.OverlapSeconds) * time.Second
	}
	_, err = s.cfg.Admin.RotateWebhookSecret(ctx, callOf(ctx).caller(), in.AccountID, in.WebhookID, overlap, once.once, func(r admin.Rotated) ([]byte, error) {
		if r.Unusable { // it gets no overlap
			sent.warnings = append(sent.warnings, unusableEarlier)
		}
		made = answerOf(signingSecret{Secret: r.Secret, PreviousUntil: utc(r.Until)}, sent.warnings)
		return once.write(made)
	})
	if err == nil || errors.Is(err, admin.ErrNotConfirmed) {
		s.audit(ctx, "secret rotated", &w)
	}
	return made, err
}
