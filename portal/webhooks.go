package portal

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hookPath is the address of the page's webhook in the API.
func (v *visit) hookPath(more string) string {
	return "/webhooks/" + url.PathEscape(v.r.PathValue("webhook")) + more
}

// toHook leads to a page of the webhook.
func (v *visit) toHook(done string, more ...string) {
	v.redirectSaying(done, append([]string{"a", v.account, "webhooks", v.r.PathValue("webhook")}, more...)...)
}

// signingSecret is what the API shows of a secret.
type signingSecret struct {
	Secret        string    `json:"secret"`
	Previous      string    `json:"previous_secret"`
	PreviousUntil time.Time `json:"previous_until"`
}

// tried is the outcome of a test event.
type tried struct {
	EventID    string  `json:"event_id"`
	DurationMS float64 `json:"duration_ms"`
	Status     int     `json:"status"`
	Outcome    string  `json:"outcome"`
	Reason     string  `json:"reason"`
	Detail     string  `json:"detail"`
}

// webhookPage is a webhook with what was asked about it.
type webhookPage struct {
	Webhook  webhook
	Attempts []attempt
	Chart    chart
	Tried    *tried
	Secret   *signingSecret
	Rotated  bool
	Repeated bool // the secret was replaced before, by the same form
	Counted  *replay
	Failed   *failed
	Replays  []replay // those that run, and those that ended lately
	Since    string
	Once     string   // of a form that is to be sent again as it was
	Samples  []sample // events whose example can be sent
	Message  string   // why something was refused
	Times    *times   // of a form that were wrong
	Warnings []string
}

// replayShown is how long a replay that is over stays on the page.
const replayShown = time.Hour

func (p *Portal) webhook(v *visit) { v.showWebhook(http.StatusOK, webhookPage{}) }

// showWebhook shows a webhook, and in it the answer to a form.
func (v *visit) showWebhook(status int, page webhookPage) {
	if _, ok := v.got(v.hookPath(""), nil, &page.Webhook); !ok {
		return
	}
	if _, ok := v.got(v.hookPath("/attempts"), url.Values{"page_size": {"500"}}, &page.Attempts); !ok {
		return
	}
	var replays []replay
	if _, ok := v.got(v.hookPath("/replay"), url.Values{"page_size": {"5"}}, &replays); !ok {
		return
	}
	for _, r := range replays {
		if r.Running() || time.Since(r.DoneAt) < replayShown {
			page.Replays = append(page.Replays, r)
		}
	}
	page.Samples = v.samplesFor(&page.Webhook)
	page.Chart = v.chart(v.hookPath("/attempts/counts"), page.Attempts)
	page.Attempts = page.Attempts[:min(len(page.Attempts), 10)]
	v.show(status, "webhook", page)
}

// answered shows the answer to a form on the webhook's page: what was refused, or show.
func (v *visit) answered(r reply, err error, show func(*webhookPage)) {
	page := webhookPage{Warnings: r.Warnings}
	switch {
	case err != nil:
		v.unreadable(err)
		return
	case r.Status == http.StatusNotFound || r.Status == http.StatusUnauthorized:
		v.accept(r, nil)
		return
	case !r.OK():
		page.Message = r.Message
		if r.running() {
			page.Once = v.r.PostFormValue("once")
		}
		v.showWebhook(r.Status, page)
		return
	}
	show(&page)
	v.showWebhook(http.StatusOK, page)
}

func (p *Portal) testWebhook(v *visit) {
	var result tried
	var body any
	if kind, name, ok := strings.Cut(v.r.PostFormValue("sample"), ":"); ok {
		body = map[string]any{kind: name}
	}
	r, err := v.call(http.MethodPost, v.hookPath("/test"), nil, body, &result)
	v.answered(r, err, func(page *webhookPage) { page.Tried = &result })
}

// sample is an event of the catalog, as the API names it in a request for a test.
type sample struct{ Kind, Name string }

// samplesFor are the events that a webhook may get by its hook and its schemas.
func (v *visit) samplesFor(w *webhook) (samples []sample) {
	offer := v.p.cfg.Offer(v.r.Context())
	if w.Hook == "records" {
		names := w.Schemas
		if len(names) == 0 {
			names = offer.Schemas
		}
		for _, name := range names {
			samples = append(samples, sample{"schema", name})
		}
		return samples
	}
	for _, hook := range offer.Hooks {
		if hook.Name == w.Hook && hook.Format != "" {
			return []sample{{"hook", hook.Name}}
		}
		if hook.Format != "" { // "" is of a group
			samples = append(samples, sample{"hook", hook.Name})
		}
	}
	return samples
}

func (p *Portal) showSecret(v *visit) {
	var secret signingSecret
	r, err := v.call(http.MethodGet, v.hookPath("/secret"), nil, nil, &secret)
	v.answered(r, err, func(page *webhookPage) { page.Secret = &secret })
}

// rotateSecret replaces the secret, once for a form however often it is sent: a reload must
// not replace what was copied. The choice of an overlap is the form's.
func (p *Portal) rotateSecret(v *visit) {
	overlap, err := strconv.Atoi(v.r.PostFormValue("overlap_seconds"))
	if err != nil {
		overlap = 24 * 60 * 60
	}
	var secret signingSecret
	r, err := v.call(http.MethodPost, v.hookPath("/secret/rotate"), nil, map[string]any{"overlap_seconds": overlap}, &secret, v.once()...)
	if err == nil && r.OK() && r.Repeated { // another replacement may have come since
		secret = signingSecret{}
		if r, err = v.call(http.MethodGet, v.hookPath("/secret"), nil, nil, &secret); err == nil && r.OK() {
			r.Repeated = true
		}
	}
	if r.running() {
		r.Message = v.p.pages.text("once.running")
	}
	v.answered(r, err, func(page *webhookPage) { page.Secret, page.Rotated, page.Repeated = &secret, !r.Repeated, r.Repeated })
}

func (p *Portal) enable(v *visit)  { v.setEnabled(true, "enabled") }
func (p *Portal) disable(v *visit) { v.setEnabled(false, "disabled") }

func (v *visit) setEnabled(enabled bool, done string) {
	r, err := v.call(http.MethodPatch, v.hookPath(""), nil, map[string]any{"enabled": enabled}, nil)
	if err == nil && r.OK() {
		v.toHook(done)
		return
	}
	v.answered(r, err, nil)
}

func (p *Portal) deleteWebhook(v *visit) {
	r, err := v.call(http.MethodDelete, v.hookPath(""), nil, nil, nil)
	if err == nil && r.OK() {
		v.redirectSaying("deleted", "a", v.account)
		return
	}
	v.answered(r, err, nil)
}

// formPage is the form of a webhook, with what is wrong at each field.
type formPage struct {
	New         bool
	Own         bool // the account's own webhook: its URL and filters are the account table's
	ID          string
	ETag        string
	Once        string // the key that makes a form sent twice create one webhook
	Values      url.Values
	Faults      map[string][]string
	Message     string
	Hooks       []string
	SchemaNames []string
	Webhook     webhook // that is edited
	Stale       bool    // somebody changed the webhook since the form was shown
	Replaces    []stored
}

func (f formPage) Value(name string) string { return f.Values.Get(name) }
func (f formPage) Is(name, value string) bool {
	return slices.Contains(f.Values[name], value)
}
func (f formPage) Fault(name string) string { return sentence(strings.Join(f.Faults[name], "; ")) }

func (v *visit) showForm(status int, f formPage) {
	offer := v.p.cfg.Offer(v.r.Context())
	for _, hook := range offer.Hooks {
		f.Hooks = append(f.Hooks, hook.Name)
	}
	f.SchemaNames = offer.Schemas
	f.hideUser(v.p.pages)
	if !f.New {
		r, ok := v.got(v.hookPath(""), nil, &f.Webhook)
		if !ok {
			return
		}
		if f.Stale { // whoever saves now has seen what is stored
			f.ETag, f.Replaces = r.ETag, f.replaces(v.p.pages)
		}
	}
	v.show(status, "form", f)
}

func (p *Portal) newWebhook(v *visit) {
	values := url.Values{"hook": {"records"}, "delivery": {"realtime"}, "http_verb": {"post"}, "daily_zone": {"UTC"}}
	asked := v.r.URL.Query() // of the page of an event
	if hook := asked.Get("hook"); hook != "" {
		values.Set("hook", hook)
	}
	values["schemas"] = asked["schema"]
	v.showForm(http.StatusOK, formPage{New: true, Once: randomKey(), Values: values})
}

func (p *Portal) createWebhook(v *visit) {
	f := formPage{New: true, Once: v.r.PostFormValue("once")}
	body := f.read(v.r, v.p.pages)
	var made webhook
	r, err := v.save(&f, http.MethodPut, "/webhooks", body, &made, "Idempotency-Key", f.Once)
	if err == nil && r.OK() {
		v.redirectSaying("created", "a", v.account, "webhooks", made.ID)
	}
}

func (p *Portal) editWebhook(v *visit) {
	var w webhook
	r, ok := v.got(v.hookPath(""), nil, &w)
	if !ok {
		return
	}
	v.showForm(http.StatusOK, formPage{ID: w.ID, Own: w.Own(), ETag: r.ETag, Values: valuesOf(w)})
}

func (p *Portal) saveWebhook(v *visit) {
	id := v.r.PathValue("webhook")
	f := formPage{ID: id, Own: id == "account", ETag: v.r.PostFormValue("etag")}
	body := f.read(v.r, v.p.pages)
	var match []string
	if f.ETag != "" {
		match = []string{"If-Match", f.ETag}
	}
	r, err := v.save(&f, http.MethodPatch, v.hookPath(""), body, nil, match...)
	if err == nil && r.OK() {
		v.toHook("saved")
	}
}

// save sends a form to the API, and shows it again with what is wrong.
func (v *visit) save(f *formPage, method, path string, body map[string]any, out any, headers ...string) (reply, error) {
	if len(f.Faults) > 0 {
		v.showForm(http.StatusBadRequest, *f)
		return reply{}, nil
	}
	r, err := v.call(method, path, nil, body, out, headers...)
	switch {
	case err != nil:
		v.unreadable(err)
	case r.Status == http.StatusNotFound || r.Status == http.StatusUnauthorized:
		v.accept(r, nil)
	case r.Status == http.StatusPreconditionFailed:
		f.Stale = true
		v.showForm(r.Status, *f)
	case f.New && r.Status == http.StatusUnprocessableEntity: // the form's key was used for other values
		f.Once, f.Message = randomKey(), v.p.pages.text("form.sent_before")
		v.showForm(r.Status, *f)
	case r.running():
		f.Message = v.p.pages.text("once.running")
		v.showForm(r.Status, *f)
	case !r.OK():
		f.Faults = r.Fields
		v.p.pages.inFormWords(f.Faults)
		if len(f.Faults) == 0 || r.Status != http.StatusBadRequest {
			f.Message = r.Message
		}
		for field := range f.Faults { // a field that the form does not have
			if !slices.Contains(formFields, field) && !isHeadersField(field) {
				f.Message = r.Message
			}
		}
		v.showForm(r.Status, *f)
	}
	return r, err
}

// formFields are the fields of the form that show what is wrong with them.
var formFields = []string{"name", "uri", "http_verb", "hook", "type", "action", "schemas", "types", "format", "retries", "rate_limit", "batch", "custom_data",
	"include_subaccounts", "include_internal_legs", "initial_state", "delivery", "daily_at", "daily_zone"}

// read makes the API's fields of a form. A webhook of the account's own URL has few.
func (f *formPage) read(r *http.Request, words *pages) map[string]any {
	_ = r.ParseForm() // the form's token was read from it before
	f.Values, f.Faults = r.PostForm, map[string][]string{}
	body := map[string]any{"retries": number(f.Value("retries")), "rate_limit": number(f.Value("rate_limit")), "initial_state": f.Value("initial_state") != ""}
	if f.Own {
		return body
	}
	for _, name := range []string{"name", "uri", "http_verb", "hook", "type", "action", "delivery", "daily_zone"} {
		body[name] = f.Value(name)
	}
	if f.Value("delivery") == "pull" && f.Value("uri") == "" {
		delete(body, "uri") // it has none
	}
	for _, name := range []string{"format", "daily_at"} { // empty is the default
		body[name] = nil
		if f.Value(name) != "" {
			body[name] = f.Value(name)
		}
	}
	for _, name := range []string{"schemas", "types"} {
		body[name] = append([]string{}, f.Values[name]...)
	}
	for _, name := range []string{"include_subaccounts", "include_internal_legs"} {
		body[name] = f.Value(name) != ""
	}
	f.readHeaders(body, words)
	body["batch"] = number(f.Value("batch"))
	body["custom_data"] = nil
	if text := strings.TrimSpace(f.Value("custom_data")); text != "" {
		if !json.Valid([]byte(text)) {
			f.Faults["custom_data"] = []string{words.text("form.json")}
		} else {
			body["custom_data"] = json.RawMessage(text)
		}
	}
	return body
}

// number returns the number that a text holds, the text if it is none, so that the API
// says what is wrong, and nil for an empty one.
func number(text string) any {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil && json.Valid([]byte(text)) {
		return n
	}
	return text
}

// valuesOf fills the form from a webhook.
func valuesOf(w webhook) url.Values {
	values := url.Values{
		"name": {w.Name}, "uri": {w.URI}, "http_verb": {w.HTTPVerb}, "hook": {w.Hook}, "type": {w.Type}, "action": {w.Action}, "schemas": w.Schemas,
		"types": w.Types, "format": {w.Format}, "delivery": {w.Delivery}, "daily_at": {w.DailyAt}, "daily_zone": {w.DailyZone},
	}
	if w.DailyZone == "" {
		values.Set("daily_zone", "UTC")
	}
	if w.Retries != nil {
		values.Set("retries", strconv.Itoa(*w.Retries))
	}
	if w.RateLimit != 0 {
		values.Set("rate_limit", strconv.FormatFloat(w.RateLimit, 'g', -1, 64))
	}
	if w.Batch != 0 {
		values.Set("batch", strconv.Itoa(w.Batch))
	}
	if len(w.CustomData) > 0 && !bytes.Equal(w.CustomData, []byte("null")) {
		values.Set("custom_data", pretty(string(w.CustomData)))
	}
	setHeaders(values, w.Headers)
	for name, set := range map[string]bool{"include_subaccounts": w.IncludeSubaccounts, "include_internal_legs": w.IncludeInternalLegs, "initial_state": w.InitialState} {
		if set {
			values.Set(name, "on")
		}
	}
	return values
}
