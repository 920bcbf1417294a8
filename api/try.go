package api

import (
	"context"
	"crypto/rand"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

// tried is the result of a test event.
type tried struct {
	EventID    string  `json:"event_id" doc:"the header webhook-id"`
	DurationMS float64 `json:"duration_ms" doc:"0 without an answer, which takes the same time whatever the cause"`
	Status     int     `json:"status" doc:"of HTTP; 0 when there was no answer"`
	Outcome    string  `json:"outcome" enum:"delivered,retry,pause,disable,held" doc:"the outcome that an event would have; a test changes nothing and is not retried. held is an error of the sending side"`
	Reason     string  `json:"reason"`
	Detail     string  `json:"detail,omitempty" doc:"for people: what the receiver answered, without what was sent; absent when there was no answer"`
}

func (s *subscriptions) registerTest(routes huma.API) {
	s.tests = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[testFields]())
	registerOptional(routes, withBody(slow(operation("test-webhook", http.MethodPost, "/accounts/{account_id}/webhooks/{webhook_id}/test", "Send a test event now",
		"Sends one signed request to the webhook's URL with its settings, also while it is disabled, and returns the outcome. With hook, or schema and type, it is the catalog's example of that event.")), s.tests, http.StatusOK), handled(s, s.test))
}

func (s *subscriptions) test(ctx context.Context, in *testInput) (*answer[tried], error) {
	w, err := s.webhook(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	endpoint, err := s.cfg.Admin.Endpoint(ctx, w.Endpoint)
	if err != nil {
		return nil, err
	}
	if w.DisabledBy == outbox.ByOperator {
		return nil, fail(http.StatusConflict, "an operator disabled the webhook ("+w.DisableReason+"): it gets no requests, tests included")
	}
	by := callOf(ctx).caller()
	if err := s.cfg.Admin.CheckHeld(ctx, by, w.Account, endpoint.URL); err != nil {
		return nil, err
	}
	if err := s.cfg.Admin.Admits(ctx, by, w.Account); err != nil { // an ended token sends nothing
		return nil, err
	}
	if err := s.cfg.Admin.CheckNotEnded(ctx, w.Endpoint); err != nil {
		return nil, err
	}
	if w.Delivery == admin.DeliveryPull {
		return nil, fail(http.StatusConflict, "the webhook has delivery pull: nothing is sent to it, and its events are read by its feed")
	}
	if endpoint.URL == "" {
		return nil, fail(http.StatusConflict, admin.ErrNothingToSendTo.Error())
	}
	e, warnings, err := s.askedEvent(ctx, in, &w)
	if err != nil {
		return nil, err
	}
	if wait := s.testing.take(w.Account, address.HostOf(endpoint.URL)); wait > 0 {
		return nil, tooMany(wait, "too many tests of this account or of this host: try again later")
	}
	if err := s.cfg.Admin.Audit(ctx, admin.Act{Action: admin.ActWebhookTested, Account: w.Account, Webhook: w.ID, Detail: e.WebhookID}); err != nil {
		return nil, err
	}
	made := s.cfg.Destination.Try(ctx, endpoint, e)
	s.audit(ctx, "webhook tested", &w, zap.Int("status", made.Status), zap.String("outcome", made.Outcome), zap.String("reason", made.Reason), zap.String("detail", made.Detail))
	made = made.ForAccount()
	return answerOf(tried{
		EventID: e.WebhookID, DurationMS: float64(made.Duration.Microseconds()) / 1000, Status: made.Status,
		Outcome: made.Outcome, Reason: made.Reason, Detail: made.Detail,
	}, warnings), nil
}

// testEvent returns an event in the form of the webhook's own events: an envelope for
// the record feed, fields for the others.
func (s *subscriptions) testEvent(ctx context.Context, w *admin.Webhook) outbox.Event {
	test := catalog.TestEvent{Webhook: w.ID, Account: w.Account, At: time.Now()}
	e := outbox.Event{
		Endpoint: w.Endpoint, Record: test.Record(), WebhookID: "test_" + rand.Text(),
		Schema: catalog.TestName, Type: catalog.TestName, CommittedAt: test.At,
	}
	if w.Hook == admin.HookRecords {
		e.Body = test.Envelope()
		return e
	}
	e.Format, e.Body = s.cfg.Offer(ctx).formatOf(w.Hook), test.Object()
	return e
}
