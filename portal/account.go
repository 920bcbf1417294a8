package portal

import (
	"net/http"
	"net/url"
	"time"
)

func (p *Portal) registerAccount(mux *http.ServeMux) {
	p.account(mux, "GET", "", p.overview)
	p.account(mux, "GET", "/webhooks/new", p.newWebhook)
	p.account(mux, "POST", "/webhooks/new", p.createWebhook)
	p.account(mux, "GET", "/webhooks/{webhook}", p.webhook)
	p.account(mux, "GET", "/webhooks/{webhook}/edit", p.editWebhook)
	p.account(mux, "POST", "/webhooks/{webhook}/edit", p.saveWebhook)
	p.account(mux, "POST", "/webhooks/{webhook}/enable", p.enable)
	p.account(mux, "POST", "/webhooks/{webhook}/disable", p.disable)
	p.account(mux, "POST", "/webhooks/{webhook}/delete", p.deleteWebhook)
	p.account(mux, "POST", "/webhooks/{webhook}/test", p.testWebhook)
	p.account(mux, "POST", "/webhooks/{webhook}/secret", p.showSecret)
	p.account(mux, "POST", "/webhooks/{webhook}/rotate", p.rotateSecret)
	p.account(mux, "GET", "/webhooks/{webhook}/events", p.events)
	p.account(mux, "GET", "/webhooks/{webhook}/events/{event}", p.event)
	p.account(mux, "POST", "/webhooks/{webhook}/replay", p.replay)
	p.account(mux, "POST", "/webhooks/{webhook}/replay/{replay}/cancel", p.cancelReplay)
	p.account(mux, "POST", "/webhooks/{webhook}/retry", p.retry)
	p.account(mux, "POST", "/webhooks/{webhook}/failed", p.sendFailed)
	p.account(mux, "GET", "/webhooks/{webhook}/resync", p.resyncs)
	p.account(mux, "POST", "/webhooks/{webhook}/resync", p.resync)
	for _, form := range []string{"enable", "disable", "delete", "test", "secret", "rotate", "replay", "retry", "failed"} {
		p.account(mux, "GET", "/webhooks/{webhook}/"+form, p.answerAgain)
	}
	p.account(mux, "GET", "/dead", p.deadLetters)
	p.account(mux, "GET", "/types", p.types)
	p.account(mux, "GET", "/types/{type}", p.eventType)
	p.account(mux, "GET", "/verify", p.verify)
}

// answerAgain leads from the address of a form's answer to the webhook: without JavaScript
// it stands in the browser, where somebody may enter it again.
func (p *Portal) answerAgain(v *visit) {
	if _, ok := v.got(v.hookPath(""), nil, nil); ok {
		v.toHook("")
	}
}

// attempt is one request to a webhook, as the API shows it.
type attempt struct {
	WebhookID  string    `json:"webhook_id"`
	EventID    string    `json:"event_id"`
	BatchID    string    `json:"batch_id"`
	Schema     string    `json:"schema"`
	Type       string    `json:"type"`
	Attempt    int       `json:"attempt"`
	At         time.Time `json:"at"`
	DurationMS float64   `json:"duration_ms"`
	Status     int       `json:"status"`
	Outcome    string    `json:"outcome"`
	Reason     string    `json:"reason"`
	Detail     string    `json:"detail"`
}

// maxWebhooks is how many webhooks a page lists; more are on the next one.
const maxWebhooks = "100"

// overview shows every webhook with its state, and the newest attempts.
func (p *Portal) overview(v *visit) {
	var list []webhook
	page, ok := v.got("/webhooks", url.Values{"page_size": {maxWebhooks}, "start_key": v.r.URL.Query()["from"]}, &list)
	if !ok {
		return
	}
	var attempts []attempt
	if _, ok := v.got("/webhooks/attempts", url.Values{"page_size": {"500"}}, &attempts); !ok {
		return
	}
	names := map[string]string{}
	for _, w := range list {
		names[w.ID] = w.Name
		if w.Own() {
			names[w.ID] = p.pages.text("own")
		}
	}
	v.show(http.StatusOK, "overview", map[string]any{
		"Webhooks": list, "Next": page.Next, "Chart": v.chart("/webhooks/attempts/counts", attempts), "Attempts": attempts[:min(len(attempts), 8)], "Names": names,
	})
}
