package portal

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// event is an event of a webhook, as the API lists it.
type event struct {
	EventID     string    `json:"event_id"`
	Schema      string    `json:"schema"`
	Type        string    `json:"type"`
	State       string    `json:"state"`
	CommittedAt time.Time `json:"committed_at"`
	Record      string    `json:"record"`
	Bytes       int64     `json:"bytes"`
	Replayed    bool      `json:"replayed"`
	Attempts    int       `json:"attempts"`
	Reason      string    `json:"reason"`
	NextAt      time.Time `json:"next_at"`
}

// deadLetter is an event that is not attempted any more.
type deadLetter struct {
	WebhookID   string    `json:"webhook_id"`
	Deleted     bool      `json:"webhook_deleted"`
	EventID     string    `json:"event_id"`
	Schema      string    `json:"schema"`
	Type        string    `json:"type"`
	CommittedAt time.Time `json:"committed_at"`
	DiedAt      time.Time `json:"died_at"`
	Attempts    int       `json:"attempts"`
	Reason      string    `json:"reason"`
	Bytes       int64     `json:"bytes"`
}

// replay is a request to send events again.
type replay struct {
	ID      int64     `json:"id"`
	Since   time.Time `json:"since"`
	Total   int64     `json:"total"`
	AtLeast bool      `json:"at_least"`
	Until   int64     `json:"until"`
	Sent    int64     `json:"sent"`
	State   string    `json:"state"`
	Reason  string    `json:"reason"`
	AskedAt time.Time `json:"asked_at"`
	DoneAt  time.Time `json:"done_at"`
}

// Running reports whether it goes on.
func (r replay) Running() bool { return r.State == "running" }

// Percent is how much of it is done; 0 once it has sent more than was counted.
func (r replay) Percent() int {
	if r.Sent > r.Total {
		return 0
	}
	return percent(r.Sent, r.Total, r.State == "done")
}

func percent(sent, total int64, done bool) int {
	switch {
	case done:
		return 100
	case total <= 0:
		return 0
	}
	return int(min(sent*100/total, 100))
}

const pageSize = "50"

// eventFilter are the fields of the filter of events.
var eventFilter = []string{"state", "schema", "type", "record", "contains", "since", "until"}

// inOwnWords replaces what the API says to programs.
func (p *Portal) inOwnWords(faults map[string]string, query url.Values) {
	for _, name := range []string{"since", "until"} {
		if _, err := time.Parse(time.RFC3339, query.Get(name)); err != nil && faults[name] != "" {
			faults[name] = p.pages.text("events.time_wrong")
		}
	}
	if faults["record"] != "" && !strings.Contains(query.Get("record"), ":") {
		faults["record"] = p.pages.text("events.record_wrong")
	}
	if faults["contains"] != "" {
		faults["contains"] = p.pages.text("events.contains_wrong")
	}
}

// within reports whether there are faults, and each is at one of the fields.
func within(faults map[string]string, fields []string) bool {
	for name := range faults {
		if !slices.Contains(fields, name) {
			return false
		}
	}
	return len(faults) > 0
}

// events lists the events of a webhook, newest first.
func (p *Portal) events(v *visit) {
	asked := v.r.URL.Query()
	var w webhook
	if _, ok := v.got(v.hookPath(""), nil, &w); !ok {
		return
	}
	query := url.Values{"page_size": {pageSize}}
	if from := asked.Get("from"); from != "" {
		query.Set("start_key", from)
	}
	filter := url.Values{}
	for _, name := range eventFilter {
		text := asked.Get(name)
		if strings.TrimSpace(text) == "" { // the API refuses empty parameters
			continue
		}
		if name != "record" { // the key of a record may end with a space
			text = strings.TrimSpace(text)
		}
		filter.Set(name, text)
		if name == "since" || name == "until" {
			text = sinceOf(text)
		}
		query.Set(name, text)
	}
	if record := query.Get("record"); record != "" && !strings.Contains(record, ":") && query.Has("schema") {
		query.Set("record", query.Get("schema")+":"+record) // the key alone
	}
	var list []event
	page, err := v.call(http.MethodGet, v.hookPath("/events"), query, nil, &list)
	status, message, faults := http.StatusOK, "", map[string]string{}
	if err == nil && page.Status == http.StatusBadRequest { // the filter is wrong
		status = page.Status
		for name, wrong := range page.Fields {
			faults[name] = sentence(strings.Join(wrong, "; "))
		}
		p.inOwnWords(faults, query)
		if !within(faults, eventFilter) { // such as where the page begins
			message = page.Message
		}
	} else if !v.accept(page, err) {
		return
	}
	var replays []replay
	if _, ok := v.got(v.hookPath("/replay"), url.Values{"page_size": {"3"}}, &replays); !ok {
		return
	}
	v.show(status, "events", map[string]any{
		"Message": message, "Errors": faults, "Wrong": status != http.StatusOK,
		"Webhook": w, "Events": list, "Next": page.Next, "First": asked.Get("from") == "", "Replays": replays, "Filter": filter, "Query": filter.Encode(),
		"Schemas": p.cfg.Offer(v.r.Context()).Schemas,
	})
}

// wholeEvent is an event with all that became of it.
type wholeEvent struct {
	event
	Request *sentRequest `json:"request"`
	Unsent  string       `json:"unsent"`
	Made    []attempt    `json:"attempts_made"`
}

// sentRequest is the request of an event, as the API shows it.
type sentRequest struct {
	Method  string            `json:"method"`
	Headers map[string]string `json:"headers"`
	Query   string            `json:"query"`
	Body    string            `json:"body"`
}

// recordIn returns the record inside of a body's data; "" when there is none.
func recordIn(body string) string {
	var envelope struct {
		Data *string `json:"data"`
	}
	var batch []json.RawMessage // of a webhook with batches: the event by itself
	if json.Unmarshal([]byte(body), &batch) == nil && len(batch) == 1 {
		body = string(batch[0])
	}
	if json.Unmarshal([]byte(body), &envelope) != nil || envelope.Data == nil {
		return "" // another format
	}
	return pretty(*envelope.Data)
}

// event shows one event: what was sent, and what became of each attempt.
func (p *Portal) event(v *visit) {
	var w webhook
	if _, ok := v.got(v.hookPath(""), nil, &w); !ok {
		return
	}
	var e wholeEvent
	if _, ok := v.got(v.hookPath("/events/"+url.PathEscape(v.r.PathValue("event"))), nil, &e); !ok {
		return
	}
	data := map[string]any{"Webhook": w, "Event": e, "Refresh": v.r.URL.Query().Has("refresh")}
	if e.Request != nil {
		data["Sent"] = e.shownRequest(w)
	}
	v.show(http.StatusOK, "event", data)
}

// shownRequest is what a page shows of the request of an event. It is made of the webhook's
// present settings.
type shownRequest struct {
	Body    string
	Whole   int    // the bytes of the body, where the page shows only their beginning; otherwise 0
	Record  string // "" where there is none, or where it is too long to be shown
	Curl    string // "" where it is too long for a shell
	Headers map[string]string
	Batch   bool      // the event goes in a batch, so webhook-id is the batch's
	Now     bool      // no attempt has sent it so, as far as is known
	Changed time.Time // when the webhook was changed after the newest attempt; zero if it was not
}

const (
	// shownMost bounds, in bytes, what a page shows of a body and of a record.
	shownMost = 64 << 10
	// curlMost bounds the command: Linux takes no argument of more than 128 KiB
	// (MAX_ARG_STRLEN, execve(2)).
	curlMost = 128 << 10
	// settingsLag is how long an attempt may still use the settings from before a change:
	// senders look for changes twice a second.
	settingsLag = 2 * time.Second
)

func (e *wholeEvent) shownRequest(w webhook) shownRequest {
	r := *e.Request
	s := shownRequest{Body: r.Body, Headers: r.Headers, Now: len(e.Made) == 0}
	if len(e.Made) > 0 && changedSince(w, e.Made[0].At) {
		s.Now, s.Changed = true, w.ChangedAt
	}
	if len(r.Body) > shownMost {
		s.Whole, s.Body = len(r.Body), strings.ToValidUTF8(r.Body[:shownMost], "")
	} else {
		if indented := pretty(r.Body); len(indented) <= shownMost {
			s.Body = indented
		}
		if s.Record = recordIn(r.Body); len(s.Record) > shownMost {
			s.Record = ""
		}
	}
	if _, s.Batch = r.Headers["webhook-event-ids"]; s.Batch && !e.wentIn(r.Headers["webhook-id"]) {
		s.Headers = maps.Clone(r.Headers) // the id of a batch of this event alone, which nobody sent
		delete(s.Headers, "webhook-id")
	}
	r.Headers = s.Headers
	if len(r.Body) <= curlMost {
		if s.Curl = r.curl(w.URI); len(s.Curl) > curlMost {
			s.Curl = ""
		}
	}
	return s
}

// changedSince reports whether a request at a time may have been made by other settings than
// the webhook's present ones.
func changedSince(w webhook, at time.Time) bool {
	if w.ChangedAt.Sub(w.CreatedAt) < settingsLag { // as it was made
		return w.ChangedAt.After(at)
	}
	return w.ChangedAt.After(at.Add(-settingsLag))
}

// wentIn reports whether a batch carried the event.
func (e *wholeEvent) wentIn(batch string) bool {
	return slices.ContainsFunc(e.Made, func(a attempt) bool { return a.BatchID == batch })
}

// replay sends events again: chosen ones, or all since a time. The latter counts first.
func (p *Portal) replay(v *visit) {
	_ = v.r.ParseForm() // the form's token was read from it before
	body := map[string]any{}
	if ids := v.r.PostForm["event"]; len(ids) > 0 {
		body["event_ids"] = ids
	} else if !v.r.PostForm.Has("since") { // a list in which nothing is selected
		v.showDead(http.StatusBadRequest, v.r.PostFormValue("from"), v.r.PathValue("webhook"))
		return
	} else if faults := v.wrongTimes("since"); len(faults) > 0 {
		v.showWrongTimes("since", faults)
		return
	} else {
		body["since"] = sinceOf(v.r.PostFormValue("since"))
		if until, err := strconv.ParseInt(v.r.PostFormValue("until"), 10, 64); err == nil {
			body["until"] = until // what was counted
		}
	}
	if v.r.PostFormValue("sure") == "" && body["since"] != nil {
		body["dry_run"] = true
		var counted replay
		r, err := v.call(http.MethodPost, v.hookPath("/replay"), nil, body, &counted)
		r.Warnings = nil // the page says in its own words that there is nothing
		v.answered(r, err, func(page *webhookPage) { page.Counted, page.Since = &counted, v.r.PostFormValue("since") })
		return
	}
	r, err := v.call(http.MethodPost, v.hookPath("/replay"), nil, body, nil, v.once()...)
	ids := v.r.PostForm["event"]
	done := "replay"
	if r.stands() {
		done = "not_replayed"
	}
	switch {
	case err != nil || !r.OK() && !r.stands():
		v.answered(r, err, nil)
	default:
		v.toEvents(done, ids)
	}
}

// toEvents leads to the page of the one event that was asked for, which follows it, or to
// the list. done has another text for one event.
func (v *visit) toEvents(done string, ids []string) {
	if len(ids) != 1 {
		v.toHook(done, "events")
		return
	}
	if _, there := v.p.pages.texts["done."+done+"_one"]; there {
		done += "_one"
	}
	v.toHook(done, "events", ids[0])
}

// cancelReplay ends a replay; the page then says how many events it had sent.
func (p *Portal) cancelReplay(v *visit) {
	r, err := v.call(http.MethodDelete, v.hookPath("/replay/"+url.PathEscape(v.r.PathValue("replay"))), nil, nil, nil)
	switch {
	case err == nil && r.OK() && len(r.Warnings) > 0:
		v.toHook("not_cancelled")
	case err == nil && r.OK():
		v.toHook("cancelled")
	default:
		v.answered(r, err, nil)
	}
}

// sinceOf reads what a browser sends for a date and a time, which count as UTC. The API
// says what is wrong with any other text.
func sinceOf(text string) string {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.Format(time.RFC3339)
		}
	}
	return text
}

// deadLetters lists what is not attempted any more, for all webhooks.
func (p *Portal) deadLetters(v *visit) {
	v.showDead(http.StatusOK, v.r.URL.Query().Get("from"), "")
}

// showDead shows dead letters from a start key on. unpicked is the webhook of whose none was
// selected.
func (v *visit) showDead(status int, from, unpicked string) {
	query := url.Values{"page_size": {pageSize}}
	if from != "" {
		query.Set("start_key", from)
	}
	var list []deadLetter
	page, ok := v.got("/webhooks/dead", query, &list)
	if !ok {
		return
	}
	var webhooks []webhook
	if _, ok := v.got("/webhooks", url.Values{"page_size": {maxWebhooks}}, &webhooks); !ok {
		return
	}
	type group struct {
		Webhook webhook
		Letters []deadLetter
	}
	var groups []*group
	byID := map[string]*group{}
	for _, letter := range list {
		g := byID[letter.WebhookID]
		if g == nil {
			g = &group{Webhook: webhook{ID: letter.WebhookID, Name: letter.WebhookID}}
			for _, w := range webhooks {
				if w.ID == letter.WebhookID {
					g.Webhook = w
				}
			}
			byID[letter.WebhookID] = g
			groups = append(groups, g)
		}
		g.Letters = append(g.Letters, letter)
	}
	v.show(status, "dead", map[string]any{"Groups": groups, "Next": page.Next, "From": from, "Unpicked": unpicked})
}

// randomKey is a key for a form that must not count twice.
func randomKey() string { return rand.Text() }
