package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// webhook is a webhook as the API shows it.
type webhook struct {
	ID                  string          `json:"id" doc:"account for the account's own webhook URL"`
	Name                string          `json:"name"`
	URI                 string          `json:"uri" doc:"user name and password are not shown, and the query not to a token of a parent account: … stands for each. Empty where there is none"`
	HTTPVerb            string          `json:"http_verb"`
	Hook                string          `json:"hook"`
	Type                string          `json:"type,omitempty"`
	Action              string          `json:"action,omitempty"`
	Schemas             []string        `json:"schemas,omitempty"`
	Types               []string        `json:"types,omitempty"`
	Target              *webhookTarget  `json:"target,omitempty"`
	Format              string          `json:"format,omitempty"`
	Retries             *int            `json:"retries,omitempty" doc:"absent means the whole schedule"`
	RateLimit           float64         `json:"rate_limit,omitempty"`
	Batch               int             `json:"batch,omitempty" doc:"the most events that one request carries, as a JSON array; absent means one, and no array"`
	CustomData          json.RawMessage `json:"custom_data,omitempty"`
	Headers             headerValues    `json:"headers,omitempty" doc:"static headers of each request; … stands for each value"`
	Enabled             bool            `json:"enabled"`
	State               string          `json:"state" enum:"active,disabled,cleared,unusable"`
	DisableReason       string          `json:"disable_reason,omitempty" doc:"why nothing is sent"`
	DisabledBy          string          `json:"disabled_by,omitempty" enum:"account,operator,walhook" doc:"who disabled it; what an operator disabled, only an operator enables"`
	AlsoDisabledBy      string          `json:"also_disabled_by,omitempty" enum:"account,walhook" doc:"who has it disabled, too: it stays so when the operator's disable or hold ends"`
	AlsoDisableReason   string          `json:"also_disable_reason,omitempty"`
	HeldSince           *time.Time      `json:"held_since,omitempty" doc:"the time since which walhook cannot send: in state unusable disable_reason says why, otherwise held_reason"`
	HeldReason          string          `json:"held_reason,omitempty"`
	IncludeSubaccounts  bool            `json:"include_subaccounts"`
	IncludeInternalLegs bool            `json:"include_internal_legs"`
	InitialState        bool            `json:"initial_state,omitempty"`
	Delivery            string          `json:"delivery"`
	DailyAt             string          `json:"daily_at,omitempty"`
	DailyZone           string          `json:"daily_zone,omitempty"`
	Endpoint            int64           `json:"endpoint" doc:"its number in the operator's log and commands"`
	CreatedAt           time.Time       `json:"created_at"`
	ChangedAt           time.Time       `json:"changed_at"`
	Health              *health         `json:"health,omitempty"`
}

// shown is a webhook as the caller of a call is shown it.
func (c *call) shown(w *admin.Webhook) webhook {
	s := webhook{
		ID: w.ID, Endpoint: w.Endpoint, Name: w.Name, URI: w.ShownURLTo(c.caller()), HTTPVerb: w.HTTPVerb, Hook: w.Hook,
		Type: w.ObjectType, Action: w.ObjectAction, Schemas: w.Schemas, Types: w.Types, Format: w.Format,
		Retries: w.Retries, RateLimit: finite(w.RateLimit), Batch: w.Batch, CustomData: w.CustomData,
		Enabled: w.Enabled, State: string(w.State), DisableReason: w.DisableReason, DisabledBy: w.DisabledBy,
		AlsoDisabledBy: w.AlsoDisabledBy, AlsoDisableReason: w.AlsoDisableReason,
		IncludeSubaccounts: w.IncludeSubaccounts, IncludeInternalLegs: w.IncludeInternalLegs,
		InitialState: w.InitialState, Delivery: w.Delivery, CreatedAt: utc(w.CreatedAt), ChangedAt: utc(w.ChangedAt),
	}
	if !w.HeldSince.IsZero() {
		s.HeldSince, s.HeldReason = new(w.HeldSince.UTC()), w.HeldReason
	}
	for _, name := range w.HeaderNames() {
		if s.Headers == nil {
			s.Headers = headerValues{}
		}
		s.Headers[name] = admin.Masked
	}
	if w.Target != "" {
		s.Target = &webhookTarget{Type: w.Target, ID: w.TargetID}
	}
	if w.Delivery == "daily" {
		minutes := int(w.DailyAt / time.Minute)
		s.DailyAt, s.DailyZone = fmt.Sprintf("%02d:%02d", minutes/60, minutes%60), w.DailyZone
	}
	return s
}

// AccountInput names the account of a call.
type AccountInput struct {
	AccountID string `path:"account_id" doc:"the account"`
}

// WebhookInput names the webhook of a call.
type WebhookInput struct {
	AccountInput
	WebhookID string `path:"webhook_id" doc:"the webhook's id; account is the account's own webhook URL"`
}

// PageInput asks for a part of a list.
type PageInput struct {
	PageSize int    `query:"page_size" minimum:"1" maximum:"500" default:"50" doc:"items per page"`
	StartKey string `query:"start_key" maxLength:"256" doc:"next_start_key of the previous page"`
}

type (
	createWebhookInput struct {
		AccountInput
		RawBody []byte
	}
	editWebhookInput struct {
		WebhookInput
		RawBody []byte
	}
)

func (s *subscriptions) registerWebhooks(routes huma.API) {
	const path = "/accounts/{account_id}/webhooks"
	const one = path + "/{webhook_id}"
	huma.Register(routes, operation("list-webhooks", http.MethodGet, path, "List the webhooks",
		"They include the account's own webhook URL, with the id account. disable_reason says why a webhook is disabled."), handled(s, s.listWebhooks))
	huma.Register(routes, tagged(idempotent(withBody(operation("create-webhook", http.MethodPut, path, "Create a webhook",
		"It gets what is committed from then on, and with initial_state first all present records."), s.edits.create, http.StatusCreated))), handled(s, s.createWebhook))
	huma.Register(routes, tagged(operation("read-webhook", http.MethodGet, one, "Read a webhook", "")), handled(s, s.readWebhook))
	for _, method := range []string{http.MethodPost, http.MethodPatch} {
		id := map[string]string{http.MethodPost: "edit-webhook", http.MethodPatch: "patch-webhook"}[method]
		huma.Register(routes, tagged(conditional(withBody(operation(id, method, one, "Edit a webhook",
			"Fields that are not sent stay as they are; null goes back to the default. With enabled true, one that was disabled is sent what was held."),
			s.edits.edit, http.StatusOK))), handled(s, s.editWebhook))
	}
	huma.Register(routes, conditional(operation("delete-webhook", http.MethodDelete, one, "Delete a webhook",
		"What was not delivered is not sent any more.")), handled(s, s.deleteWebhook))
}

func (s *subscriptions) listWebhooks(ctx context.Context, in *accountListInput) (*pageAnswer[webhook], error) {
	after, err := startKey[int64](in.StartKey)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Admin.Webhooks(ctx, in.AccountID, after, in.PageSize+1)
	if err != nil {
		return nil, err
	}
	page := paged(list, in.PageSize, callOf(ctx).shown, func(w *admin.Webhook) any { return w.Endpoint })
	return page, s.showHealth(ctx, page.Body.Data, healthInLists)
}

func (s *subscriptions) createWebhook(ctx context.Context, in *createWebhookInput) (*answer[webhook], error) {
	return makeOnce(ctx, s, "create-webhook", in.RawBody, func(asked creation[webhook]) (*answer[webhook], error) {
		return s.createWebhookOnce(ctx, in, asked)
	})
}

func (s *subscriptions) createWebhookOnce(ctx context.Context, in *createWebhookInput, asked creation[webhook]) (*answer[webhook], error) {
	offer, err := s.offers.current(ctx)
	if err != nil {
		return nil, err
	}
	wrong := faults{}
	sent := offer.edits.read(in.RawBody, offer.edits.create, wrong)
	if !sent.whole {
		return nil, wrong.err()
	}
	w := newWebhook(in.AccountID)
	s.checkURI(sent, &w, wrong)
	idle, err := offer.apply(sent, &w, wrong)
	if err != nil {
		return nil, err
	}
	unknown, err := s.unknownAccount(ctx, in.AccountID)
	if err != nil {
		return nil, err
	}
	w.By = callOf(ctx).caller()
	asking := w
	if names := withHeaderNames([]string{"headers"}, sent); len(w.Headers) > 0 {
		ctx = admin.WithDetail(ctx, names[0])
	}
	var made *answer[webhook]
	w, err = s.cfg.Admin.CreateWebhook(ctx, w, asked.once, func(w admin.Webhook) ([]byte, error) {
		made = answerOf(callOf(ctx).shown(&w), sent.warnings, idle, unknown)
		made.Body.Data.Health = shownHealth(nil)
		return asked.write(made)
	})
	if err != nil {
		return nil, s.unencodable(ctx, err, storedTexts(&asking))
	}
	s.audit(ctx, "webhook created", &w, auditFields(&w)...)
	callOf(ctx).withETag(&w)
	return made, nil
}

// storedTexts are the fields of a webhook that hold a client's text, as it sent it.
func storedTexts(w *admin.Webhook) map[string]string {
	return map[string]string{
		"name": w.Name, "type": w.ObjectType, "action": w.ObjectAction, "target.id": w.TargetID, "schemas": strings.Join(w.Schemas, ","),
	}
}

func (s *subscriptions) readWebhook(ctx context.Context, in *WebhookInput) (*answer[webhook], error) {
	w, err := s.webhook(ctx, in)
	if err != nil {
		return nil, err
	}
	callOf(ctx).withETag(&w)
	read := answerOf(callOf(ctx).shown(&w))
	return read, s.showHealthOf(ctx, &read.Body.Data)
}

// webhook finds the webhook of a call.
func (s *subscriptions) webhook(ctx context.Context, in *WebhookInput) (admin.Webhook, error) {
	if !isOurID(in.WebhookID) {
		return admin.Webhook{}, admin.ErrNoWebhook
	}
	return s.cfg.Admin.Webhook(ctx, in.AccountID, in.WebhookID)
}

// kept finds the webhook of a call, also a deleted one, for lists of the past.
func (s *subscriptions) kept(ctx context.Context, in *WebhookInput) (admin.Webhook, error) {
	if !isOurID(in.WebhookID) {
		return admin.Webhook{}, admin.ErrNoWebhook
	}
	return s.cfg.Admin.KeptWebhook(ctx, in.AccountID, in.WebhookID)
}

// isOurID reports whether a part of a path can be an id that walhook made, which is ASCII.
func isOurID(id string) bool {
	return isID(id, maxWebhookID) && !strings.ContainsFunc(id, func(r rune) bool { return r > '~' })
}

// maxWebhookID is longer than any id of a webhook, in bytes.
const maxWebhookID = 64

func (s *subscriptions) editWebhook(ctx context.Context, in *editWebhookInput) (*answer[webhook], error) {
	before, err := s.webhook(ctx, &in.WebhookInput)
	if err != nil {
		return nil, err
	}
	match, err := conditionOf(callOf(ctx).match)
	if err == nil {
		err = match.check(&before) // before the body (RFC 9110, section 13.2.1)
	}
	if err != nil {
		return nil, err
	}
	offer, err := s.offers.current(ctx)
	if err != nil {
		return nil, err
	}
	wrong := faults{}
	sent := offer.edits.read(in.RawBody, offer.edits.edit, wrong)
	if !sent.whole {
		return nil, wrong.err()
	}
	s.checkURI(sent, &before, wrong) // before the webhook is locked
	var idle []string
	var asking admin.Webhook
	var changed []string
	w, err := s.cfg.Admin.EditWebhook(ctx, callOf(ctx).caller(), in.AccountID, in.WebhookID, func(w *admin.Webhook) (err error) {
		if err := match.check(w); err != nil { // again, since now the webhook is locked
			return err
		}
		was := *w
		idle, err = offer.apply(sent, w, wrong)
		changed = withHeaderNames(callOf(ctx).changedFields(sent.names(), &was, w), sent)
		w.Edited = "no field is changed"
		if len(changed) > 0 {
			w.Edited = "fields: " + strings.Join(changed, ", ")
		}
		asking = *w
		return err
	})
	if err != nil {
		return nil, s.unencodable(ctx, err, storedTexts(&asking))
	}
	s.audit(ctx, "webhook edited", &w, append(auditFields(&w), zap.Strings("fields", changed))...)
	callOf(ctx).withETag(&w)
	edited := answerOf(callOf(ctx).shown(&w), sent.warnings, idle)
	return edited, s.showHealthOf(ctx, &edited.Body.Data)
}

// changedFields are those of the fields that differ between two states of a webhook, sorted.
// A client may send all of them back, as the form of the portal does.
func (c *call) changedFields(names []string, before, after *admin.Webhook) (changed []string) {
	was, is := c.fieldTexts(before), c.fieldTexts(after)
	for _, name := range slices.Sorted(slices.Values(names)) {
		if was[name] != is[name] {
			changed = append(changed, name)
		}
	}
	return changed
}

// fieldTexts returns the fields of a webhook by name, also what is shown masked and what is
// shown only for a daily delivery. What is empty has none.
func (c *call) fieldTexts(w *admin.Webhook) map[string]string {
	daily := *w
	daily.Delivery = "daily"
	all := c.shown(&daily)
	all.Delivery, all.URI, all.Headers = w.Delivery, w.URL, headerValues{}
	for _, h := range w.Headers {
		all.Headers[h.Name] = h.Value
	}
	values := map[string]json.RawMessage{}
	if text, err := json.Marshal(all); err != nil || json.Unmarshal(text, &values) != nil {
		return nil // what the API shows can be written
	}
	texts := map[string]string{}
	for name, value := range values {
		texts[name] = string(value)
	}
	return texts
}

func (s *subscriptions) deleteWebhook(ctx context.Context, in *WebhookInput) (*answer[webhook], error) {
	if in.WebhookID == outbox.AccountWebhook {
		if _, err := s.webhook(ctx, in); err != nil {
			return nil, err
		}
		return nil, fail(http.StatusConflict, "the account's own webhook cannot be deleted: clear its URL in the account table, or set enabled to false to hold its events")
	}
	if !isOurID(in.WebhookID) {
		return nil, admin.ErrNoWebhook
	}
	match, err := conditionOf(callOf(ctx).match)
	if err != nil {
		return nil, err
	}
	w, err := s.cfg.Admin.DeleteWebhook(ctx, callOf(ctx).caller(), in.AccountID, in.WebhookID, match.check)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "webhook deleted", &w, auditFields(&w)...)
	return answerOf(callOf(ctx).shown(&w)), nil
}

// auditFields describe a webhook for the audit, without secrets.
func auditFields(w *admin.Webhook) []zap.Field {
	host := ""
	if u, err := url.Parse(w.URL); err == nil && u.Host != "" {
		host = u.Scheme + "://" + u.Host + u.EscapedPath()
	}
	return []zap.Field{zap.String("uri", host), zap.String("hook", w.Hook), zap.String("state", string(w.State))}
}
