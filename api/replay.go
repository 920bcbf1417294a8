package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// replayFields select the events to send again.
type replayFields struct {
	Since    *time.Time `json:"since,omitempty" doc:"events committed since this time" example:"2026-03-09T00:00:00Z"`
	EventIDs *[]string  `json:"event_ids,omitempty" minItems:"1" maxItems:"1000" nullable:"false" doc:"events with these ids (the header webhook-id)"`
	Rate     *float64   `json:"rate,omitempty" minimum:"0.001" maximum:"10000" default:"100" doc:"events per second at most"`
	Until    *int64     `json:"until,omitempty" minimum:"1" maximum:"9007199254740991" doc:"with since: what a dry run answered as until, so that what came after it is not sent again"`
	DryRun   *bool      `json:"dry_run,omitempty" default:"false" doc:"only count the events"`
}

// replay is a request to send events again, with its progress.
type replay struct {
	ID       int64     `json:"id,omitempty" doc:"absent for a dry run"`
	Since    time.Time `json:"since,omitzero"`
	EventIDs []string  `json:"event_ids,omitempty"`
	Rate     float64   `json:"rate"`
	Total    int64     `json:"total" doc:"how many there were to send; with since of the first 10000 that were looked at"`
	AtLeast  bool      `json:"at_least,omitempty" doc:"of a dry run: there are further ones after those that were looked at"`
	Until    int64     `json:"until,omitempty" doc:"of a dry run with since: the newest event that was looked at, by its place in the event log"`
	Sent     int64     `json:"sent" doc:"number of events appended so far"`
	State    string    `json:"state" enum:"counted,running,done,ended"`
	Reason   string    `json:"reason,omitempty" doc:"why it ended early"`
	AskedAt  time.Time `json:"asked_at,omitzero"`
	DoneAt   time.Time `json:"done_at,omitzero"`
}

type cancelReplayInput struct {
	WebhookInput
	ReplayID int64 `path:"replay_id" minimum:"1" maximum:"9007199254740991" doc:"id of the replay"`
}

type replayInput struct {
	WebhookInput
	RawBody []byte
}

const defaultReplayRate = 100

func (s *subscriptions) registerReplays(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks/{webhook_id}/replay"
	s.replays = openSchema(routes.OpenAPI().Components.Schemas, reflect.TypeFor[replayFields]())
	huma.Register(routes, idempotent(expensive(withBody(operation("replay", http.MethodPost, path, "Send events again",
		"Sends delivered and dead-lettered events again; events that still wait are not sent twice: use retry for them. They keep their ids. An unknown id is a 400 that names it. The replay runs in the background."),
		s.replays, http.StatusAccepted))), handled(s, s.replay))
	huma.Register(routes, operation("list-replays", http.MethodGet, path, "List replays",
		"Newest first, with their progress."), handled(s, s.listReplays))
	huma.Register(routes, operation("cancel-replay", http.MethodDelete, path+"/{replay_id}", "Cancel a replay",
		"Ends it, and answers how many events it had sent to the event log by then: those are delivered, and the others stay as they were. One that is over stays as it is, and a warning says so."), handled(s, s.cancelReplay))
}

func (s *subscriptions) replay(ctx context.Context, in *replayInput) (*answer[replay], error) {
	return makeOnce(ctx, s, "replay "+in.WebhookID, in.RawBody, func(asked creation[replay]) (*answer[replay], error) {
		return s.replayOnce(ctx, in, asked)
	})
}

func (s *subscriptions) replayOnce(ctx context.Context, in *replayInput, once creation[replay]) (*answer[replay], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	wrong := faults{}
	sent := s.edits.read(in.RawBody, s.replays, wrong)
	asked, dry, err := replayOf(sent, wrong)
	if err != nil {
		return nil, err
	}
	asked.Endpoint, asked.By = w.Endpoint, callOf(ctx).caller()
	kept, err := s.keptEvents(ctx, &w, asked.WebhookIDs)
	if err != nil {
		return nil, err
	}
	if dry { // it creates nothing, so no answer is stored
		counted, err := s.cfg.Admin.CountReplay(ctx, asked)
		if err != nil {
			return nil, err
		}
		asked.Total = counted.Total
		shown := shownReplay(&asked)
		if shown.AtLeast = counted.More; len(kept) == 0 {
			shown.Until = counted.Until
		}
		return answerOf(shown, sent.warnings, expect(&w, &asked, kept)), nil
	}
	var made *answer[replay]
	asked, err = s.cfg.Admin.CreateRequest(ctx, asked, once.once, func(r admin.Request) ([]byte, error) {
		if len(kept) > 0 && r.Total == 0 {
			return nil, conflict("event_ids", notSent(&w, len(kept)))
		}
		made = answerOf(shownReplay(&r), sent.warnings, expect(&w, &r, kept))
		return once.write(made)
	})
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "replay", &w, zap.Int64("request", asked.ID), zap.String("since", asked.Since.UTC().Format(time.RFC3339)), zap.Int("events", len(asked.WebhookIDs)), zap.Int64("total", asked.Total))
	return made, nil
}

func (s *subscriptions) cancelReplay(ctx context.Context, in *cancelReplayInput) (*answer[replay], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	r, cancelled, err := s.cfg.Admin.CancelRequest(ctx, callOf(ctx).caller(), w.Endpoint, in.ReplayID)
	if err != nil {
		return nil, err
	}
	if !cancelled {
		return answerOf(shownReplay(&r), []string{"the replay was over already: nothing was cancelled"}), nil
	}
	s.audit(ctx, "replay cancelled", &w, zap.Int64("request", r.ID), zap.Int64("sent", r.Sent), zap.Int64("total", r.Total))
	return answerOf(shownReplay(&r)), nil
}

// namedIDs is the most ids that an answer names.
const namedIDs = 20

// keptEvents returns those of the ids that the webhook has events of, each once. It
// refuses ids that it has none of, and names them.
func (s *subscriptions) keptEvents(ctx context.Context, w *admin.Webhook, ids []string) (kept []string, err error) {
	kept, err = s.cfg.Admin.KeptEvents(ctx, w.Endpoint, ids)
	if err != nil {
		return nil, err
	}
	var unknown []string
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		if !slices.Contains(kept, id) {
			unknown = append(unknown, printable(id))
		}
	}
	if n := len(unknown); n > namedIDs {
		unknown = append(unknown[:namedIDs], fmt.Sprintf("and %d more", n-namedIDs))
	}
	if len(unknown) > 0 {
		return nil, badRequest("event_ids", "unknown to this webhook, or past retention: "+strings.Join(unknown, ", ")+"; nothing is done for the others either")
	}
	return kept, nil
}

// readAgain is how the events of a webhook are got again to which nothing is sent.
const readAgain = "nothing is sent to a webhook of delivery pull: read its feed again, with an older cursor as after, or without after from the oldest event"

// notSent says why a replay sends none, or not all, of the events that it names.
func notSent(w *admin.Webhook, n int) string {
	if w.Delivery == admin.DeliveryPull {
		return readAgain
	}
	return fmt.Sprintf("%d of them are not sent again: they still wait, or are past retention; POST …/retry sends now what waits for a retry", n)
}

// expect warns about the parts of a request that a replay cannot fulfil. kept are its
// ids.
func expect(w *admin.Webhook, asked *admin.Request, kept []string) (warnings []string) {
	if len(kept) == 0 {
		if asked.Total == 0 && w.Delivery == admin.DeliveryPull {
			return []string{"nothing to send: " + readAgain}
		}
		if asked.Total == 0 {
			warnings = append(warnings, "nothing to send: none of the first 10000 events since then has been delivered or dead-lettered; events that still wait are not sent twice; POST …/retry sends now what waits for a retry")
		}
		return warnings
	}
	if late := len(kept) - int(asked.Total); late > 0 {
		warnings = append(warnings, "event_ids: "+notSent(w, late))
	}
	if asked.Total == 0 {
		warnings = append(warnings, "nothing to send")
	}
	return warnings
}

// replayOf returns the replay that a body asks for.
func replayOf(sent fields, wrong faults) (asked admin.Request, dry bool, err error) {
	if err := wrong.err(); err != nil {
		return asked, false, err
	}
	var in replayFields
	if err := sent.into(&in); err != nil {
		return asked, false, err
	}
	asked.Rate = defaultReplayRate
	set(&asked.Rate, in.Rate)
	set(&asked.Since, in.Since)
	set(&asked.WebhookIDs, in.EventIDs)
	set(&asked.Until, in.Until)
	set(&dry, in.DryRun)
	if (in.Since == nil) == (in.EventIDs == nil) {
		wrong.add("since", kindRequired, "want either since or event_ids")
	}
	if in.Since != nil && (in.Since.UTC().Year() < 1970 || in.Since.UTC().Year() > 9999) {
		wrong.add("since", kindInvalid, "want a time between the years 1970 and 9999")
	}
	if in.Until != nil && in.Since == nil {
		wrong.add("until", kindInvalid, "goes with since, not with event_ids")
	}
	for _, id := range asked.WebhookIDs {
		if !isID(id, maxEventID) {
			wrong.add("event_ids", kindInvalid, "want ids such as evt_0000000001A2B3C4_7")
		}
	}
	return asked, dry, wrong.err()
}

// maxEventID is longer than any webhook-id, in bytes.
const maxEventID = 128

func (s *subscriptions) listReplays(ctx context.Context, in *webhookListInput) (*pageAnswer[replay], error) {
	w, err := s.kept(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	before, err := startKey[int64](in.StartKey)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Admin.Requests(ctx, w.Endpoint, before, in.PageSize+1)
	if err != nil {
		return nil, err
	}
	return paged(list, in.PageSize, shownReplay, func(r *admin.Request) any { return r.ID }), nil
}

func shownReplay(r *admin.Request) replay {
	shown := replay{
		ID: r.ID, Since: utc(r.Since), EventIDs: r.WebhookIDs, Rate: finite(r.Rate), Total: r.Total, Sent: r.Sent,
		State: "running", Reason: r.Reason, AskedAt: utc(r.AskedAt), DoneAt: utc(r.DoneAt),
	}
	switch {
	case r.ID == 0:
		shown.State = "counted"
	case r.Reason != "":
		shown.State = "ended"
	case !r.DoneAt.IsZero():
		shown.State = "done"
	}
	return shown
}
