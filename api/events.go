package api

import (
	"context"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
)

// event is an event of a webhook with its state.
type event struct {
	EventID     string    `json:"event_id" doc:"the header webhook-id"`
	Deleted     bool      `json:"webhook_deleted,omitempty" doc:"the webhook was deleted"`
	Schema      string    `json:"schema"`
	Type        string    `json:"type"`
	Record      string    `json:"record" doc:"schema and key of the record, such as dids:42; the events of one record are sent in order"`
	State       string    `json:"state" enum:"delivered,waiting,retry,dead,held,pull,replayed" doc:"held: nothing is sent to the webhook at present; pull: it is in the feed of a webhook to which nothing is sent; replayed: a newer entry with the same id has the state"`
	CommittedAt time.Time `json:"committed_at"`
	AppendedAt  time.Time `json:"appended_at,omitzero" doc:"to walhook's event log, in whose order the list is; absent once the event log has dropped the event of a dead letter"`
	Bytes       int64     `json:"bytes" doc:"size of its body before it is formatted"`
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

// listEventsInput filters events. Times are read by [queryTime], whose errors say more.
type listEventsInput struct {
	WebhookInput
	PageInput
	State  string `query:"state" enum:"delivered,waiting,retry,retrying,dead,held,pull,replayed" doc:"only events in this state; retrying is another name of retry"`
	Schema string `query:"schema" doc:"only events of this schema"`
	Type   string `query:"type" doc:"only events of this type, such as insert, update or delete"`
	Record string `query:"record" doc:"only events of this record, as record shows it; with schema its key is enough" example:"dids:42"`
	// The lengths are checked by filter, whose error says more.
	Contains string `query:"contains" doc:"only events whose body has this text, of 3 to 100 characters, upper and lower case as written; such a call reads many rows" example:"15550100042"`
	Since    string `query:"since" doc:"only events that were appended at this time or later" example:"2026-03-09T02:00:00Z"`
	Until    string `query:"until" doc:"only events that were appended before this time" example:"2026-03-09T05:00:00Z"`
}

// How many characters contains has: nearly every body has a shorter text.
const minContains, maxContains = 3, 100

// filter returns what the query selects; the error names every wrong parameter.
func (in *listEventsInput) filter() (admin.EventFilter, error) {
	wrong := faults{}
	f := admin.EventFilter{State: in.State, Schema: in.Schema, Type: in.Type, Record: in.Record, Contains: in.Contains}
	if f.State == "retrying" {
		f.State = admin.EventRetry
	}
	queryText("schema", f.Schema, wrong)
	queryText("type", f.Type, wrong)
	queryRecord("record", f.Record, wrong)
	queryText("contains", f.Contains, wrong)
	if n := utf8.RuneCountInString(f.Contains); f.Contains != "" && (n < minContains || n > maxContains) {
		wrong.add("contains", kindInvalid, "want a text of %d to %d characters", minContains, maxContains)
	}
	if f.Record != "" && f.Schema != "" && !strings.HasPrefix(f.Record, f.Schema+":") && f.Record != "result/"+f.Schema {
		f.Record = f.Schema + ":" + f.Record
	}
	// Results and emitted events are of no record: they are shown so.
	named := strings.HasPrefix(f.Record, "result/") || strings.HasPrefix(f.Record, "event/")
	if f.Record != "" && f.Schema == "" && !named && !strings.Contains(f.Record, ":") {
		wrong.add("record", kindInvalid, "want schema and key, such as dids:42, or the parameter schema besides it")
	}
	f.Since, f.Until = queryTime("since", in.Since, wrong), queryTime("until", in.Until, wrong)
	if len(wrong) == 0 && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		wrong.add("until", kindInvalid, "is not after since: no event is between the two")
	}
	return f, wrong.err()
}

func (s *subscriptions) registerEvents(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks"
	huma.Register(routes, expensiveWith("contains", operation("list-events", http.MethodGet, path+"/{webhook_id}/events", "List the events of a webhook",
		"Events with their state, newest first, back to the end of retention, as far as the filters select them. With filters a page may be shorter than page_size, or empty: the list ends where next_start_key is absent.")), handled(s, s.listEvents))
	huma.Register(routes, expensive(operation("read-event", http.MethodGet, path+"/{webhook_id}/events/{event_id}", "Read an event",
		"Its state, the request that walhook would make of it now, and its attempts, newest first, those of replays included.")), handled(s, s.readEvent))
	huma.Register(routes, operation("list-dead-letters", http.MethodGet, path+"/dead", "List dead letters",
		"Dead-lettered events of all webhooks of the account, the 100 that were deleted last included, newest first."), handled(s, s.listDeadLetters))
}

func (s *subscriptions) listEvents(ctx context.Context, in *listEventsInput) (*pageAnswer[event], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	filter, err := in.filter()
	if err != nil {
		return nil, err
	}
	before, err := startKey[int64](in.StartKey)
	if err != nil {
		return nil, err
	}
	list, rest, err := s.cfg.Admin.Events(ctx, w.Endpoint, filter, before, in.PageSize+1)
	if err != nil {
		return nil, s.unencodable(ctx, err, map[string]string{"schema": in.Schema, "type": in.Type, "record": in.Record})
	}
	page := paged(list, in.PageSize, func(e *admin.EventStatus) event {
		shown := shownEvent(e)
		shown.Deleted = w.Deleted
		return shown
	}, func(e *admin.EventStatus) any { return e.ID })
	if rest > 0 {
		page.Body.NextStartKey = keyText(rest)
	}
	return page, nil
}

func shownEvent(e *admin.EventStatus) event {
	return event{
		EventID: e.WebhookID, Schema: e.Schema, Type: e.Type, Record: e.Record, State: e.State, CommittedAt: utc(e.CommittedAt), AppendedAt: utc(e.AppendedAt),
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
