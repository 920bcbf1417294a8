package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/admin"
)

// retryFields select the events to retry.
type retryFields struct {
	EventIDs *[]string `json:"event_ids,omitempty" minItems:"1" maxItems:"1000" nullable:"false" doc:"only events with these ids (the header webhook-id); absent means all"`
}

// retried is what a retry did.
type retried struct {
	Due     int64     `json:"due" doc:"how many events it made due"`
	More    bool      `json:"more,omitempty" doc:"more events wait for a retry: call again"`
	Probes  bool      `json:"probes" doc:"it ended the open time of the breaker, or a pause: one event is sent as a probe, and the others after it"`
	AskedAt time.Time `json:"asked_at"`
}

func (s *subscriptions) registerRetry(routes huma.API) {
	s.retries = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[retryFields]())
	registerOptional(routes, idempotent(expensive(withBody(operation("retry", http.MethodPost, "/accounts/{account_id}/webhooks/{webhook_id}/retry", "Retry now",
		"Makes what waits for a retry due now, and lets an open or paused webhook try at once. The events of one record stay in order. Delivered and dead-lettered events are sent again by replay."),
		s.retries, http.StatusAccepted))), handled(s, s.retry))
}

func (s *subscriptions) retry(ctx context.Context, in *replayInput) (*answer[retried], error) {
	return makeOnce(ctx, s, "retry "+in.WebhookID, in.RawBody, func(asked creation[retried]) (*answer[retried], error) {
		return s.retryOnce(ctx, in, asked)
	})
}

func (s *subscriptions) retryOnce(ctx context.Context, in *replayInput, once creation[retried]) (*answer[retried], error) {
	w, err := s.webhook(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	var asked retryFields
	sent, err := s.edits.readOptional(in.RawBody, s.retries, &asked)
	if err != nil {
		return nil, err
	}
	var ids, warnings []string
	set(&ids, asked.EventIDs)
	for _, id := range ids {
		if !isID(id, maxEventID) {
			return nil, badRequest("event_ids", "want ids such as evt_0000000001A2B3C4_7")
		}
	}
	if _, err := s.keptEvents(ctx, &w, ids); err != nil {
		return nil, err
	}
	if wait := s.retrying.take(w.Account, address.HostOf(w.URL)); wait > 0 && w.State == outbox.EndpointActive {
		return nil, tooMany(wait, "too many retries asked for of this account or of this host: try again later")
	}
	var made *answer[retried]
	done, err := s.cfg.Admin.RetryNow(ctx, callOf(ctx).caller(), w.Account, w.ID, ids, once.once, func(done admin.Retried) ([]byte, error) {
		idle := fmt.Sprintf("%d of them wait for no retry: they are being sent, wait for their first attempt, or were delivered or dead-lettered, in which case POST …/replay sends them again", len(done.Idle))
		switch {
		case len(done.Idle) > 0 && done.Waiting == 0 && !done.Probes:
			return nil, conflict("event_ids", idle)
		case len(done.Idle) > 0:
			warnings = append(warnings, "event_ids: "+idle)
		case done.Due == 0 && !done.Probes:
			warnings = append(warnings, "nothing waits for a retry that is not due yet")
		}
		made = answerOf(retried{Due: done.Due, More: done.More, Probes: done.Probes, AskedAt: time.Now().UTC()}, sent.warnings, warnings)
		return once.write(made)
	})
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "retry", &w, zap.Int64("due", done.Due), zap.Bool("probes", done.Probes), zap.Int("events", len(ids)))
	return made, nil
}
