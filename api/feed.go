package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// feedEvent is an event of a feed: the request that a push of it makes.
type feedEvent struct {
	EventID     string            `json:"event_id" doc:"the header webhook-id"`
	Cursor      string            `json:"cursor" doc:"the parameter after that continues behind this event"`
	Schema      string            `json:"schema"`
	Type        string            `json:"type"`
	Record      string            `json:"record" doc:"schema and key of the record, such as dids:42"`
	CommittedAt time.Time         `json:"committed_at"`
	Method      string            `json:"method"`
	Headers     map[string]string `json:"headers" doc:"those of a push, signed now: hand them on with the body as they are"`
	Query       string            `json:"query,omitempty" doc:"what a GET adds to the query of the URL; the signature covers it in place of a body"`
	Body        string            `json:"body" doc:"byte for byte; verify the signature over it before parsing"`
	Unsent      string            `json:"unsent,omitempty" doc:"why there is no request: then method, headers and body are empty"`
}

// feedPage is a page of a feed.
type feedPage struct {
	Data      []feedEvent `json:"data" nullable:"false"`
	Status    string      `json:"status" enum:"success"`
	RequestID string      `json:"request_id" doc:"names the request in the operator's log"`
	Cursor    string      `json:"cursor" doc:"the parameter after of the next call, also of a page without events; keep it"`
	More      bool        `json:"more" doc:"there may be more events without a wait"`
}

func (p feedPage) withRequestID(id string) any {
	p.Status, p.RequestID = "success", id
	if p.Data == nil {
		p.Data = []feedEvent{}
	}
	return p
}

// mayBeGone marks an operation that a 410 may answer.
const mayBeGone = "gone"

// feedInput asks for a part of a feed.
type feedInput struct {
	WebhookInput
	After string `query:"after" maxLength:"64" doc:"the cursor of the previous page or event; without it the feed begins with the oldest event that is kept"`
	Last  string `query:"last" pattern:"^[0-9]{1,4}$" doc:"in place of after: begin before so many of the newest events, at most 1000; 0 begins with the next event"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"events of a page at most"`
	Wait  int    `query:"wait" minimum:"0" maximum:"60" default:"0" doc:"seconds to wait for an event where there is none"`
	// Of a stream.
	Accept      string `header:"Accept" hidden:"true"`
	LastEventID string `header:"Last-Event-ID" maxLength:"64" doc:"of a stream: the cursor to continue behind, in place of after and last; browsers send it by themselves"`
}

const (
	// mostLast is the most events that a feed can begin back from its end.
	mostLast = 1000
	// feedBytes bounds the bodies of a page, but for its first event.
	feedBytes = 1 << 20
)

func (s *subscriptions) registerFeed(routes huma.API) {
	op := marked(operation("read-feed", http.MethodGet, "/accounts/{account_id}/webhooks/{webhook_id}/feed", "Read the feed of a webhook",
		"The webhook's events in the order of the event log, with the ids, bodies and headers of a push. With wait, an answer comes as soon as there are events. With Accept: text/event-stream it is a stream of server-sent events without end: id is the cursor, data an event as in a page. A cursor stays valid through restarts, failovers and replays, until retention has dropped what follows it: then the answer is a 410 that names the oldest cursor."),
		mayBeGone, true)
	op = marked(op, callKind, feedCall)
	page := s.edits.registry.Schema(reflect.TypeFor[feedPage](), true, "")
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
		jsonType: {Schema: page}, streamType: {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	huma.Register(routes, op, handled(s, s.readFeed))
}

// feedReader is a reader of one webhook's feed, and where it is.
type feedReader struct {
	by       admin.Caller
	payer    string // whose limits count
	account  string
	webhook  string
	endpoint outbox.Endpoint
	query    outbox.FeedQuery
	at       place // once a cursor said so, or a page was read

	// revision is the endpoint's, for who looks at all readers.
	revision atomic.Int64

	// Of one that waits.
	waiter   *outbox.FeedWaiter
	changed  chan struct{} // capacity 1: look whether it may still read
	caughtUp bool          // what follows comes from the waiter
}

func (s *subscriptions) readFeed(ctx context.Context, in *feedInput) (*feedAnswer, error) {
	reader, err := s.feedReader(ctx, in)
	if err != nil {
		return nil, err
	}
	page, err := s.turnPage(ctx, reader)
	if err != nil {
		return nil, err
	}
	if wantsStream(in.Accept) {
		return s.streamAnswer(reader, page), nil
	}
	if in.Wait > 0 && len(page.Events) == 0 && !page.More {
		if page, err = s.wait(ctx, reader, time.Duration(in.Wait)*time.Second); err != nil {
			return nil, err
		}
	}
	return s.pageAnswer(ctx, s.shownPage(reader, &page)), nil
}

// feedReader checks what a call asks for, and whether it may have it.
func (s *subscriptions) feedReader(ctx context.Context, in *feedInput) (*feedReader, error) {
	c := callOf(ctx)
	r := &feedReader{by: c.caller(), payer: c.payer, account: in.AccountID, webhook: in.WebhookID,
		query: outbox.FeedQuery{After: outbox.FeedFromOldest, Limit: in.Limit, MaxBytes: feedBytes}}
	if err := s.openFeed(ctx, r); err != nil {
		return nil, err
	}
	after := in.After
	if wantsStream(in.Accept) && in.LastEventID != "" { // a client that connects again asks for the same URL
		after, in.Last = in.LastEventID, ""
	}
	switch {
	case after != "" && in.Last != "":
		return nil, badRequest("last", "goes without after: a feed begins at a cursor, or before its last events")
	case in.Last != "":
		r.query.After = outbox.FeedFromLast
		var err error
		if r.query.Last, err = strconv.Atoi(in.Last); err != nil || r.query.Last > mostLast {
			return nil, badRequest("last", fmt.Sprintf("want 0 to %d", mostLast))
		}
	case after != "":
		var ok bool
		if r.at, ok = placeOf(after, r.endpoint.ID); !ok {
			return nil, badRequest("after", "is not a cursor of this webhook's feed: use the cursor of an answer as it is, or leave after out to begin with the oldest event")
		}
		r.query.After = r.at.event
	}
	return r, nil
}

// openFeed reads the webhook of a reader, and checks whether its feed may be read.
func (s *subscriptions) openFeed(ctx context.Context, r *feedReader) error {
	w, err := s.webhook(ctx, &WebhookInput{AccountInput{r.account}, r.webhook})
	if err != nil {
		return err
	}
	if r.endpoint.ID != 0 && r.endpoint.ID != w.Endpoint {
		return admin.ErrNoWebhook // the account ended, and another one has its id
	}
	switch {
	case w.DisabledBy == outbox.ByOperator:
		return fail(http.StatusConflict, "an operator disabled the webhook ("+w.DisableReason+"): its feed is closed")
	case w.Delivery == admin.DeliveryPull && !w.Enabled:
		return fail(http.StatusConflict, "the webhook is disabled: its events are kept, and its feed is open again once enabled is true")
	}
	endpoint, err := s.cfg.Admin.Endpoint(ctx, w.Endpoint)
	if err != nil {
		return err
	}
	if err := s.cfg.Admin.CheckHeld(ctx, r.by, w.Account, endpoint.URL); err != nil {
		return err
	}
	if err := s.cfg.Destination.CheckSecret(endpoint); err != nil {
		// As a push does, the feed waits: an event that it passed over would never come.
		return unavailable("the webhook's signing secret cannot be read here, so that its feed waits and passes over nothing: ask again later, and if that lasts, rotate the secret")
	}
	r.endpoint = endpoint
	r.revision.Store(endpoint.Revision)
	r.query.Endpoint, r.query.FeedFrom = endpoint.ID, endpoint.FeedFrom
	return nil
}

// nextPage reads what follows the reader's place, and moves it on.
func (s *subscriptions) nextPage(ctx context.Context, r *feedReader) (outbox.FeedPage, error) {
	page, err := s.cfg.Admin.Feed(ctx, r.query)
	if err != nil {
		return page, err
	}
	if r.query.After >= 0 {
		if holds, newer := page.Log.Holds(r.at.event, r.at.timeline); !holds {
			return page, goneCursor(place{page.Log.Oldest, page.Log.Timeline}.cursor(r.endpoint.ID), newer)
		}
		if page.Cut {
			return page, cutCursor(place{min(r.query.FeedFrom-1, page.Log.Newest), page.Log.Timeline}.cursor(r.endpoint.ID))
		}
	}
	r.at = place{page.Upto, page.Log.Timeline}
	r.query.After = page.Upto
	return page, nil
}

// goneCursor is the answer to a cursor that the event log cannot go on from.
func goneCursor(oldest string, newer bool) *failure {
	text := "retention has dropped events after this cursor: the oldest that is kept follows the cursor " + oldest + "; what is missing can be sent as present state by a resync"
	if newer {
		text = "the outbox was restored from a copy that is older than this cursor: continue after the cursor " + oldest + ", and expect events that you have seen"
	}
	return &failure{status: http.StatusGone, message: text, oldest: oldest}
}

// cutCursor is the answer to a cursor from before the webhook's URL was cleared, after which
// there were events.
func cutCursor(oldest string) *failure {
	return &failure{status: http.StatusGone, oldest: oldest,
		message: "the webhook's URL was cleared after this cursor, which ended its feed: the present one follows the cursor " + oldest + "; what is missing can be sent as present state by a resync"}
}

// shownPage renders and signs a page.
func (s *subscriptions) shownPage(r *feedReader, page *outbox.FeedPage) feedPage {
	shown := feedPage{Cursor: r.at.cursor(r.endpoint.ID), More: page.More}
	for i := range page.Events {
		shown.Data = append(shown.Data, s.shownFeedEvent(&r.endpoint, &page.Events[i], page.Log.Timeline))
	}
	return shown
}

// shownFeedEvent is an event as a push of it would be made now.
func (s *subscriptions) shownFeedEvent(endpoint *outbox.Endpoint, e *outbox.Event, timeline string) feedEvent {
	shown := feedEvent{
		EventID: e.WebhookID, Cursor: place{e.ID, timeline}.cursor(endpoint.ID), Schema: e.Schema, Type: e.Type, Record: e.Record, CommittedAt: utc(e.CommittedAt),
		Headers: map[string]string{},
	}
	sent, err := s.cfg.Destination.Sign(*endpoint, *e, time.Now())
	if err != nil {
		shown.Unsent = "the event cannot be rendered by the webhook's present settings: change format or custom_data"
		return shown
	}
	shown.Method, shown.Query, shown.Body = sent.Method, sent.Query, string(sent.Body)
	shown.Headers = map[string]string{
		"User-Agent": sent.UserAgent, "webhook-id": e.WebhookID, "webhook-timestamp": sent.Timestamp, "webhook-signature": sent.Signature,
	}
	if sent.ContentType != "" {
		shown.Headers["Content-Type"] = sent.ContentType
	}
	return shown
}
