package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// Config configures the subscription API.
type Config struct {
	Admin       *admin.Admin
	Destination Destination
	// Feeds are the readers of feeds. They wait only while it runs. Required.
	Feeds *Feeds
	// FeedReaders bounds how many of them read at a time, 5,000 at most; 0 means 5,000. Each
	// keeps a connection, so they need to leave some of those that the listener takes.
	FeedReaders int
	// AdminToken is the operator's token. Without it the API refuses every call.
	AdminToken string
	// Offer returns what the catalog in force offers: the same pointer until another one
	// is in force. Required.
	Offer func(context.Context) *Offer
	// Version goes into the OpenAPI document.
	Version string
	// TestTimeout bounds a test attempt; zero means 20 s.
	TestTimeout time.Duration
	// TrustedProxies are the networks whose Forwarded and X-Forwarded-For are believed.
	TrustedProxies []netip.Prefix
	// PortalURL is the public address of the portal, with a slash at its end. Without it
	// there is no call for a link to it.
	PortalURL string
}

// Destination makes requests in the way in which deliveries are made.
type Destination interface {
	// Try makes one request for the event and returns the attempt.
	Try(context.Context, outbox.Endpoint, outbox.Event) outbox.Attempt
	// Render returns the request of an event without making it.
	Render(outbox.Endpoint, outbox.Event) (outbox.Rendered, error)
	// Sign returns the request of an event as an attempt at an instant would make it.
	Sign(outbox.Endpoint, outbox.Event, time.Time) (outbox.Rendered, error)
	// CheckSecret says whether Sign has a secret of the endpoint to sign with.
	CheckSecret(outbox.Endpoint) error
	// CheckHost returns an error, for people, if walhook sends nothing to the host of a
	// URL. It does not resolve the host's name.
	CheckHost(url string) error
}

// prefixes are the two paths under which the API is served.
var prefixes = []string{"/v2", "/api/v1"}

const (
	// maxBody bounds a request's body.
	maxBody = 256 << 10
	// requestTimeout bounds how long a request waits for the outbox.
	requestTimeout = 15 * time.Second
	// openReplayPause is when to try again if too many replays or resyncs are in progress.
	openReplayPause = 30 * time.Second
	// onceRunningPause is when to try again while the first request with the same
	// Idempotency-Key runs, and onceFullPause when the account has too many keys.
	onceRunningPause = time.Second
	onceFullPause    = 10 * time.Minute
)

// subscriptions is the API behind its routes.
type subscriptions struct {
	cfg      Config
	log      *zap.Logger
	guard    *guard
	clients  clients
	limits   *limits
	testing  *testLimit
	retrying *testLimit // of calls of retry
	edits    *document
	offers   *offers
	counts   *attemptCounter

	rotations, tokens, replays, retries, resyncs, holds, tests *huma.Schema
}

// Subscriptions serves the subscription API (docs/CONTRACT.md §7) and its OpenAPI
// document.
func Subscriptions(cfg Config, log *zap.Logger) (http.Handler, error) {
	_, handler, err := newSubscriptions(cfg, log)
	return handler, err
}

func newSubscriptions(cfg Config, log *zap.Logger) (*subscriptions, http.Handler, error) {
	if cfg.TestTimeout == 0 {
		cfg.TestTimeout = 20 * time.Second
	}
	s := &subscriptions{cfg: cfg, log: log.Named("api"), guard: newGuard(cfg.AdminToken), limits: newLimits(cfg.FeedReaders), testing: newTestLimit(), retrying: newTestLimit(), counts: newAttemptCounter(cfg.Admin)}
	var err error
	if s.clients, err = newClients(cfg.TrustedProxies); err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    apiInfo(cfg.Version),
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: securitySchemes(),
			},
			Security: []map[string][]string{{"token": {}}, {"bearer": {}}},
		},
		// The second format is for huma's own problem documents, which transform replaces.
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{s.transform},
	}
	routes := huma.NewGroup(humago.New(mux, config), prefixes...)
	routes.UseMiddleware(inKazooShape, s.bounded, s.authorize, checkQuery)
	s.edits = newDocument(config.Components.Schemas)
	s.offers = &offers{now: cfg.Offer, api: config.OpenAPI, edits: s.edits}
	s.registerWebhooks(routes)
	s.registerAttempts(routes)
	s.registerCounts(routes)
	s.registerEvents(routes)
	s.registerFeed(routes)
	s.registerReplays(routes)
	s.registerRetry(routes)
	s.registerResyncs(routes)
	s.registerTest(routes)
	s.registerSecrets(routes)
	s.registerTokens(routes)
	s.registerHolds(routes)
	s.registerPortal(routes)
	s.registerEventTypes(routes)
	s.registerAudit(routes)
	completeOpenAPI(config.OpenAPI)
	mux.HandleFunc("GET /openapi.json", s.offers.serveDocument("application/openapi+json", func(o *offered) []byte { return o.json }))
	mux.HandleFunc("GET /openapi.yaml", s.offers.serveDocument("application/openapi+yaml", func(o *offered) []byte { return o.yaml }))
	mux.HandleFunc("GET /{$}", s.welcome)
	return s, s.outer(mux), nil
}

// unknownAccount returns the warning that the source has no such account; nil when it
// has one, or when the outbox does not know.
func (s *subscriptions) unknownAccount(ctx context.Context, account string) (warnings []string, err error) {
	unknown, err := s.cfg.Admin.IsUnknown(ctx, account)
	if unknown {
		warnings = []string{"account " + printable(account) + " is not in the source: check the id; this takes effect once an account with that id exists"}
	}
	return warnings, err
}

// unencodable names the fields that hold a character which the outbox's encoding does not
// have, where err is about one. It returns every other err unchanged.
func (s *subscriptions) unencodable(ctx context.Context, err error, texts map[string]string) error {
	if !outbox.IsUnencodable(err) {
		return err
	}
	wrong := faults{}
	for field, text := range texts {
		if s.cannotHold(ctx, text) {
			wrong.add(field, kindInvalid, "contains a character that the encoding of the outbox's database cannot store")
		}
	}
	if fault := wrong.err(); fault != nil {
		return fault
	}
	return err
}

func (s *subscriptions) cannotHold(ctx context.Context, text string) bool {
	can, err := s.cfg.Admin.CanHold(ctx, text)
	return err == nil && !can
}

// handled converts errors of f into answers. It logs an internal error and answers it
// without details. If a token ended while its call waited or ran, the answer reveals
// nothing, since the account's id may belong to another account by now.
func handled[I, O any](s *subscriptions, f func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err == nil || isUnknownEvent(err) {
			c := callOf(ctx)
			err = cmp.Or(s.cfg.Admin.Admits(ctx, c.caller(), c.account), err)
		}
		if err == nil {
			return out, nil
		}
		return nil, s.failureOf(ctx, err)
	}
}

func (s *subscriptions) failureOf(ctx context.Context, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	switch {
	case errors.Is(err, admin.ErrNoWebhook), errors.Is(err, admin.ErrNoEndpoint):
		return notFound("webhook not found")
	case isUnknownEvent(err):
		return notFound(err.Error())
	case errors.Is(err, admin.ErrNoRequest):
		return notFound(admin.ErrNoRequest.Error())
	case errors.Is(err, admin.ErrNoToken):
		return notFound("token not found")
	case errors.Is(err, admin.ErrUnreadable):
		return fail(http.StatusConflict, admin.ErrUnreadable.Error())
	case errors.Is(err, admin.ErrUnusableSecret):
		s.log.Warn("stored secret cannot be used", zap.String("request_id", callOf(ctx).id), zap.Error(err))
		return fail(http.StatusConflict, admin.ErrUnusableSecret.Error()+": rotate it, or set another in the account")
	case errors.Is(err, admin.ErrCallerGone):
		return fail(http.StatusUnauthorized, admin.ErrCallerGone.Error())
	case errors.Is(err, admin.ErrAccountEnded):
		return fail(http.StatusConflict, admin.ErrAccountEnded.Error())
	case errors.Is(err, admin.ErrNoHold):
		return notFound(admin.ErrNoHold.Error())
	case errors.Is(err, admin.ErrHeldByOperator):
		return fail(http.StatusConflict, "the webhook cannot be enabled: "+admin.ErrHeldByOperator.Error())
	case errors.Is(err, admin.ErrTooManyWebhooks):
		return fail(http.StatusConflict, admin.ErrTooManyWebhooks.Error()+": delete one first")
	case errors.Is(err, admin.ErrWebhookDeleted):
		return fail(http.StatusConflict, admin.ErrWebhookDeleted.Error())
	case errors.Is(err, admin.ErrNothingToSendTo):
		return fail(http.StatusConflict, admin.ErrNothingToSendTo.Error())
	case errors.Is(err, admin.ErrTooManyRequests):
		return tooMany(openReplayPause, admin.ErrTooManyRequests.Error()+": wait until one is done, or cancel one")
	case errors.Is(err, admin.ErrTooManyResyncs):
		return tooMany(openReplayPause, admin.ErrTooManyResyncs.Error()+": wait until one is done")
	case errors.Is(err, admin.ErrTooManyPortalLinks):
		return tooMany(openReplayPause, admin.ErrTooManyPortalLinks.Error())
	case errors.Is(err, admin.ErrTooManyTokens):
		return fail(http.StatusConflict, admin.ErrTooManyTokens.Error()+": delete one first")
	}
	if held, ok := errors.AsType[*outbox.HeldError](err); ok {
		return fail(http.StatusConflict, held.Error())
	}
	if none, ok := errors.AsType[*admin.NoRecordsError](err); ok {
		return fail(http.StatusConflict, none.Error())
	}
	if runs, ok := errors.AsType[*admin.ResyncRunsError](err); ok {
		return fail(http.StatusConflict, runs.Error())
	}
	if unknown, ok := errors.AsType[*admin.UnknownSchemaError](err); ok {
		return badRequest("schema", "unknown schema: want one of "+strings.Join(unknown.Known, ", "))
	}
	if state, ok := errors.AsType[*admin.StateError](err); ok {
		return fail(http.StatusConflict, state.Fix)
	}
	if f := onceFailure(ctx, err); f != nil {
		return f
	}
	if outbox.IsUnencodable(err) {
		if c := callOf(ctx); s.cannotHold(ctx, c.account) {
			return notFound("account not found")
		}
	}
	if outbox.IsUnstorable(err) {
		s.log.Warn("request contains a value that cannot be stored", zap.String("request_id", callOf(ctx).id), zap.Error(err))
		return fail(http.StatusBadRequest, "the request contains a string or number that cannot be stored")
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		s.log.Debug("request ends with its client", zap.String("request_id", callOf(ctx).id), zap.Error(err))
		return unavailable("the client closed the connection before the answer")
	}
	s.log.Error("request failed", zap.String("request_id", callOf(ctx).id), zap.Error(err))
	if ctx.Err() != nil || outbox.IsBusy(err) {
		return unavailable("the outbox did not answer in time: try again later")
	}
	return fail(http.StatusInternalServerError, "internal error: quote request_id to the operator, whose log has the reason")
}
