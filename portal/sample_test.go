package portal

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

// The page of a webhook offers the events that it may get, and sends the example of one.
func TestWebhook_SendsTheExampleOfAnEvent(t *testing.T) {
	w := newWorld(t)
	b := w.session(t, "7")
	all, some := w.hook(t, "7"), w.hook(t, "7", func(a *admin.Webhook) { a.Schemas = []string{"dids"} })
	calls := w.hook(t, "7", func(a *admin.Webhook) { a.Hook = "channel_create" })
	for id, want := range map[string]string{all.ID: "schema:dids schema:users", some.ID: "schema:dids", calls.ID: "hook:channel_create"} {
		text := b.get(t, "a/7/webhooks/"+id).text
		var offered []string
		for _, part := range strings.Split(text, `<option value="`)[1:] {
			if value, _, _ := strings.Cut(part, `"`); strings.Contains(value, ":") {
				offered = append(offered, value)
			}
		}
		if got := strings.Join(offered, " "); got != want {
			t.Errorf("offered %s, want %s", got, want)
		}
	}
	b.submit(t, "a/7/webhooks/"+some.ID+"/test", url.Values{"sample": {"schema:dids"}}).want(t, http.StatusOK, "HTTP 200")
	b.submit(t, "a/7/webhooks/"+calls.ID+"/test", url.Values{"sample": {"hook:channel_create"}}).want(t, http.StatusOK, "HTTP 200")
	b.submit(t, "a/7/webhooks/"+some.ID+"/test", nil).want(t, http.StatusOK, "HTTP 200")
	if len(w.tried) != 3 || w.tried[0].Schema != "dids" || w.tried[1].Schema != "channel_create" || w.tried[2].Schema != "test" {
		t.Errorf("sent %+v", w.tried)
	}
	b.submit(t, "a/7/webhooks/"+some.ID+"/test", url.Values{"sample": {"schema:nonsense"}}).want(t, http.StatusBadRequest, "is no schema of the catalog")
}
