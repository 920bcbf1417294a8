package portal

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

// valueOf is the value of a hidden field of a page.
func (p page) valueOf(t *testing.T, field string) string {
	t.Helper()
	found := regexp.MustCompile(`name="` + field + `" value="([^"]*)"`).FindStringSubmatch(p.text)
	if found == nil {
		t.Fatalf("no field %s: %s", field, p.text)
	}
	return strings.ReplaceAll(found[1], "&#34;", `"`)
}

// editForm is the form of a webhook as a page shows it.
func (b *browser) editForm(t *testing.T, edit string) url.Values {
	t.Helper()
	return url.Values{"name": {"n"}, "uri": {"https://example.com/hook"}, "hook": {"records"}, "delivery": {"realtime"}, "http_verb": {"post"}, "daily_zone": {"UTC"},
		"etag": {b.get(t, edit).want(t, http.StatusOK).valueOf(t, "etag")}}
}

// Somebody saves while another form is open: the second Save says so, shows what it would
// replace, and works once it is pressed again.
func TestForm_SaysThatSomebodyChangedTheWebhookAndCanSaveAgain(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7", func(h *admin.Webhook) { h.Headers = []admin.Header{{Name: "X-Api-Key", Value: "hunter2-key"}} })
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID
	edit := path + "/edit"
	first, second := b.editForm(t, edit), b.editForm(t, edit)
	first.Set("retries", "3")
	first["schemas"] = []string{"dids"}
	b.submit(t, edit, first).want(t, http.StatusSeeOther)
	second.Set("rate_limit", "5")
	second["header_name"], second["header_value"] = []string{"X-Api-Key", "X-New"}, []string{"…", "hunter2-new"}
	r := b.submit(t, edit, second).want(t, http.StatusPreconditionFailed, "changed this webhook since you opened this form", "Saving replaces what is stored now:",
		"<dt>Retries</dt><dd>3</dd>", "<dt>Schemas</dt><dd>dids</dd>", "<dt>Requests per second</dt><dd>none</dd>", "<dt>Headers of your own</dt><dd>X-Api-Key: …</dd>", `name="rate_limit" type="text" value="5"`)
	r.lacks(t, "If-Match", "ETag", "precondition", "<dt>Name</dt>", "<dt>URL</dt>", "<dt>Method</dt>", "<dt>Custom data</dt>", "hunter2")
	second.Set("etag", r.valueOf(t, "etag"))
	b.submit(t, edit, second).want(t, http.StatusSeeOther)
	if got := w.one(t, `SELECT concat(coalesce(retries::text, 'all'), ' ', rate_limit, ' ', schemas) FROM walhook.endpoint WHERE webhook <> 'account'`); got != "all 5 {}" {
		t.Errorf("stored: %s", got)
	}
	b.submit(t, edit, second).want(t, http.StatusPreconditionFailed, "changed this webhook") // the tag of before that
}

// The form of a new webhook that is sent again with other values makes no dead end.
func TestForm_SentAgainWithOtherValuesCanBeSaved(t *testing.T) {
	w := newWorld(t)
	b := w.session(t, "7")
	const path = "a/7/webhooks/new"
	form := url.Values{"name": {"one"}, "uri": {"https://example.com/1"}, "hook": {"records"}, "delivery": {"realtime"}, "http_verb": {"post"}, "daily_zone": {"UTC"}, "once": {b.get(t, path).valueOf(t, "once")}}
	made := b.submit(t, path, form).want(t, http.StatusSeeOther).header.Get("Location")
	if again := b.submit(t, path, form).want(t, http.StatusSeeOther).header.Get("Location"); again != made {
		t.Errorf("the same form made %s and %s", made, again)
	}
	form.Set("name", "two")
	r := b.submit(t, path, form).want(t, http.StatusUnprocessableEntity, "This form was sent before, and a webhook was made from it.", `value="two"`).lacks(t, "Idempotency-Key")
	if r.valueOf(t, "once") == form.Get("once") {
		t.Fatal("the form has the same key")
	}
	form.Set("once", r.valueOf(t, "once"))
	b.submit(t, path, form).want(t, http.StatusSeeOther)
	if got := w.one(t, `SELECT string_agg(name, ' ' ORDER BY id) FROM walhook.endpoint`); got != "one two" {
		t.Errorf("webhooks: %s", got)
	}
}
