package portal

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

// The form shows headers without their values, keeps what it shows, and never shows what
// was written.
func TestHeaders_TheFormKeepsWhatItShowsAndSaysWhatIsWrongAtTheRow(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7", func(h *admin.Webhook) {
		h.URL = "https://example.com/a"
		h.Headers = []admin.Header{{Name: "X-Api-Key", Value: "hunter2-key"}, {Name: "X-Tenant", Value: "hunter2-tenant"}}
	})
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID
	edit := path + "/edit"
	shown := b.get(t, edit).want(t, http.StatusOK, `value="X-Api-Key"`, `value="X-Tenant"`, `name="header_value" type="text" autocomplete="off" autocapitalize="off" spellcheck="false" value="…"`)
	shown.lacks(t, "hunter2")
	if n := strings.Count(shown.text, `name="header_name"`); n != 5 {
		t.Errorf("%d rows", n)
	}
	stored := func() (text string) {
		t.Helper()
		if err := w.conn.QueryRow(t.Context(), "SELECT coalesce((SELECT string_agg(n || ': ' || v, ', ') FROM unnest(header_names, header_values) AS h(n, v)), '') FROM walhook.endpoint WHERE id = $1", hook.Endpoint).Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	form := func(rows ...string) url.Values {
		values := url.Values{"name": {"n"}, "uri": {"https://example.com/a"}, "hook": {"records"}, "delivery": {"realtime"}, "http_verb": {"post"}, "daily_zone": {"UTC"}}
		for i, text := range rows {
			values.Add([]string{"header_name", "header_value"}[i%2], text)
		}
		return values
	}
	b.submit(t, edit, form("X-Api-Key", "…", "X-Tenant", "…", "", "", "", "", "", "")).want(t, http.StatusSeeOther)
	if got := stored(); got != "X-Api-Key: hunter2-key, X-Tenant: hunter2-tenant" {
		t.Errorf("as it was shown: %s", got)
	}
	b.submit(t, edit, form()).want(t, http.StatusSeeOther) // a form without rows
	for _, c := range []struct{ rows, want string }{
		{"X-Api-Key|…|Host|hunter2.example", "The URL names the host"},
		{"X-Api-Key|…|X Y|hunter2", "Its name is no header name"},
		{"X-Api-Key|…|X-Other|…", "none is stored under this name"},
		{"X-Api-Key|…|X-B|", "Its value is empty"},
		{"X-Api-Key|…||hunter2", "Its name is empty"},
		{"X-Api-Key|…|X-Api-Key|hunter2", "The name stands here twice"},
		{"X-Api-Key|…|x-api-key|hunter2", "is the same header as"},
		{"X-Api-Key|…|X-B|grün hunter2", "visible ASCII"},
	} {
		r := b.submit(t, edit, form(strings.Split(c.rows, "|")...)).want(t, http.StatusBadRequest, `id="header_2-fault"`, `aria-describedby="header_2-fault"`)
		r.lacks(t, "hunter2", "headers.", `class="note bad"`)
		if !strings.Contains(strings.ToLower(r.text), strings.ToLower(c.want)) {
			t.Errorf("%s: the page lacks %q", c.rows, c.want)
		}
	}
	moved := form("X-Api-Key", "…", "X-Tenant", "…")
	moved.Set("uri", "https://example.org/a")
	b.submit(t, edit, moved).want(t, http.StatusBadRequest, `id="header_1-fault"`, `id="header_2-fault"`, "another host")
	if got := stored(); got != "X-Api-Key: hunter2-key, X-Tenant: hunter2-tenant" {
		t.Errorf("after refusals: %s", got)
	}
	b.submit(t, edit, form("X-Api-Key", "…", "", "…", "X-New", "hunter2-new")).want(t, http.StatusSeeOther)
	if got := stored(); got != "X-Api-Key: hunter2-key, X-New: hunter2-new" {
		t.Errorf("one removed, one new: %s", got)
	}
	b.get(t, path).want(t, http.StatusOK, "<code>X-Api-Key: …</code>", "<code>X-New: …</code>").lacks(t, "hunter2")
	b.submit(t, edit, form("", "", "", "")).want(t, http.StatusSeeOther)
	if got := stored(); got != "" {
		t.Errorf("all removed: %s", got)
	}
	b.get(t, "a/7/webhooks/account/edit").lacks(t, "header_name")
}

// The request that an event's page shows, and "As curl", have the names alone.
func TestHeaders_OfAnEventsRequestHaveNoValue(t *testing.T) {
	s := sentRequest{Method: "POST", Headers: map[string]string{"X-Api-Key": admin.Masked}, Body: "{}"}
	if got := s.curl("https://example.com/"); !strings.Contains(got, "-H 'X-Api-Key: …'") {
		t.Errorf("curl %s", got)
	}
}
