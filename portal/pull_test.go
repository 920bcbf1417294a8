package portal

import (
	"net/http"
	"testing"

	"walhook/outbox/admin"
)

// The pages of a webhook that is read by its feed offer nothing of what is sent.
func TestPull_PagesOfferNothingThatIsSent(t *testing.T) {
	w := newWorld(t)
	pull, sent := w.hook(t, "7", func(h *admin.Webhook) { h.Delivery, h.URL = "pull", "" }), w.hook(t, "7")
	for n, h := range []int64{pull.Endpoint, sent.Endpoint} {
		w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
			VALUES ($2::int, $1, 1, 'dids:1', 'evt_000000000000000' || $2::int || '_1', 'dids', 'update', now(), now(), '{}')`, h, n+1)
	}
	b := w.session(t, "7")
	ofSending := []string{`id="again"`, "Send what failed again", "Send everything since a time again", "No request was made yet.", "Last success"}
	b.get(t, "a/7/webhooks/"+pull.ID).want(t, http.StatusOK, "Read by its feed", "Show the secret").lacks(t, ofSending...)
	b.get(t, "a/7/webhooks/"+sent.ID).want(t, http.StatusOK, ofSending...)
	b.get(t, "a/7/webhooks/"+pull.ID+"/events/evt_0000000000000001_1").want(t, http.StatusOK, "Body in the feed").lacks(t, "not sent yet", "curl", "As curl", "What became of it")
	b.get(t, "a/7/webhooks/"+sent.ID+"/events/evt_0000000000000002_1").want(t, http.StatusOK, "As curl", "What became of it")
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, webhook_id, schema, type, record, body, size, committed_at, attempts, reason)
		VALUES ($1, 1, 'evt_1', 'dids', 'update', 'dids:1', '{}', 2, clock_timestamp(), 1, '5xx')`, pull.Endpoint) // of before it was pulled
	b.get(t, "a/7/webhooks/"+pull.ID).want(t, http.StatusOK, "Send what failed again")
}

// The address of a form's answer, entered again, leads to the webhook.
func TestForms_TheAddressOfTheAnswerLeadsToTheWebhook(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID
	before := w.state(t)
	for _, form := range []string{"secret", "rotate", "test", "enable", "disable", "delete", "replay", "retry", "failed"} {
		if r := b.get(t, path+"/"+form).want(t, http.StatusSeeOther); r.header.Get("Location") != Prefix+path {
			t.Errorf("%s leads to %q", form, r.header.Get("Location"))
		}
		b.get(t, "a/7/webhooks/none/"+form).want(t, http.StatusNotFound)
	}
	if w.state(t) != before {
		t.Error("a GET changed something")
	}
}
