package portal

import (
	"net/http"
	"net/url"
	"time"
)

// resync is a request to send the present state of records, as the API shows it.
type resync struct {
	ID        int64     `json:"id"`
	Schema    string    `json:"schema"`
	Type      string    `json:"type"`
	Total     int64     `json:"total"`
	Sent      int64     `json:"sent"`
	State     string    `json:"state"`
	Reason    string    `json:"reason"`
	AskedAt   time.Time `json:"asked_at"`
	StartedAt time.Time `json:"started_at"`
	DoneAt    time.Time `json:"done_at"`
}

// Percent is how much of it is done.
func (r resync) Percent() int { return percent(r.Sent, r.Total, r.State == "done") }

// resyncPage is a webhook's resyncs, and why another one was refused.
type resyncPage struct {
	Webhook webhook
	Resyncs []resync
	Running bool
	Schemas []string
	Message string
}

func (p *Portal) resyncs(v *visit) { v.showResyncs(http.StatusOK, "") }

func (v *visit) showResyncs(status int, message string) {
	page := resyncPage{Message: message, Schemas: v.p.cfg.Offer(v.r.Context()).Schemas}
	if _, ok := v.got(v.hookPath(""), nil, &page.Webhook); !ok {
		return
	}
	if _, ok := v.got(v.hookPath("/resync"), url.Values{"page_size": {"10"}}, &page.Resyncs); !ok {
		return
	}
	for _, r := range page.Resyncs {
		page.Running = page.Running || r.State == "waiting" || r.State == "running"
	}
	v.show(status, "resync", page)
}

// resync asks for the present state of the records of a webhook, or of one schema.
func (p *Portal) resync(v *visit) {
	body := map[string]any{}
	if schema := v.r.PostFormValue("schema"); schema != "" {
		body["schema"] = schema
	}
	r, err := v.call(http.MethodPost, v.hookPath("/resync"), nil, body, nil)
	switch {
	case err != nil:
		v.unreadable(err)
	case r.OK():
		v.toHook("resync", "resync")
	case r.Status == http.StatusNotFound || r.Status == http.StatusUnauthorized:
		v.accept(r, nil)
	default:
		v.showResyncs(r.Status, r.Message)
	}
}
