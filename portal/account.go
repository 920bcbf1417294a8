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
	p.account(mux, "POST", "/webhooks/{webhook}/retry", p.retry)
	p.account(mux, "POST", "/webhooks/{webhook}/failed", p.sendFailed)
	p.account(mux, "GET", "/webhooks/{webhook}/resync", p.resyncs)
	p.account(mux, "POST", "/webhooks/{webhook}/resync", p.resync)
	p.account(mux, "GET", "/dead", p.deadLetters)
	p.account(mux, "GET", "/types", p.types)
	p.account(mux, "GET", "/types/{type}", p.eventType)
	p.account(mux, "GET", "/verify", p.verify)
}

// attempt is one request to a webhook, as the API shows it.
type attempt struct {
	WebhookID  string    `json:"webhook_id"`
	EventID    string    `json:"event_id"`
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
		"Webhooks": list, "Next": page.Next, "Chart": newChart(attempts, time.Now()), "Attempts": attempts[:min(len(attempts), 8)], "Names": names,
	})
}

// chart counts the newest attempts by time.
type chart struct {
	Bars             []bar
	Delivered        int
	Failed           int
	From, To         time.Time
	Span             string // the key of its name: hour, quarter, day, or newest for less than a day
	Median, Slowest  float64
	DeliveredPercent int
}

// bar is one part of the time, as heights in a picture 60 units high.
type bar struct {
	X, GoodY, GoodHeight, BadY, BadHeight int
	Good, Bad                             int
	From                                  time.Time
}

const (
	chartAttempts = 500 // as many as the API lists at once
	chartBars     = 48
	chartHeight   = 60
)

// newChart counts attempts of the last 24 hours, the newest of which come first. If
// there are more than the API lists at once, it covers the time of those; if all are of
// the last hours, it covers these.
func newChart(attempts []attempt, now time.Time) chart {
	c := chart{From: now.Add(-24 * time.Hour), To: now, Span: "day"}
	oldest := now
	for _, a := range attempts {
		if a.At.After(c.From) {
			oldest = a.At
		}
	}
	switch age := now.Sub(oldest); {
	case len(attempts) >= chartAttempts && attempts[len(attempts)-1].At.After(c.From):
		c.From, c.Span = attempts[len(attempts)-1].At, "newest"
	case len(attempts) > 0 && age < time.Hour:
		c.From, c.Span = now.Add(-time.Hour), "hour"
	case len(attempts) > 0 && age < 6*time.Hour:
		c.From, c.Span = now.Add(-6*time.Hour), "quarter"
	}
	step := max(c.To.Sub(c.From)/chartBars, 1)
	c.Bars = make([]bar, chartBars)
	for i := range c.Bars {
		c.Bars[i].X, c.Bars[i].From = i*10, c.From.Add(time.Duration(i)*step)
	}
	var times []float64
	for _, a := range attempts {
		i := int(a.At.Sub(c.From) / step)
		if a.At.Before(c.From) {
			continue
		}
		b := &c.Bars[min(max(i, 0), chartBars-1)]
		if a.Outcome == "delivered" {
			b.Good, c.Delivered = b.Good+1, c.Delivered+1
			times = append(times, a.DurationMS)
		} else {
			b.Bad, c.Failed = b.Bad+1, c.Failed+1
		}
	}
	highest := 1
	for _, b := range c.Bars {
		highest = max(highest, b.Good+b.Bad)
	}
	for i := range c.Bars {
		b := &c.Bars[i]
		b.GoodHeight, b.BadHeight = heightOf(b.Good, highest), heightOf(b.Bad, highest)
		b.GoodY = chartHeight - b.GoodHeight
		b.BadY = b.GoodY - b.BadHeight
	}
	if all := c.Delivered + c.Failed; all > 0 {
		c.DeliveredPercent = c.Delivered * 100 / all
	}
	c.Median, c.Slowest = middle(times)
	return c
}

func heightOf(n, highest int) int {
	if n == 0 {
		return 0
	}
	return max(n*(chartHeight-2)/highest, 1)
}
