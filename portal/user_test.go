package portal

import (
	"maps"
	"net/http"
	"net/url"
	"testing"

	"walhook/outbox/admin"
)

func TestURL_IsShownWithoutUserNameAndPassword(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://usr:pw@example.com/x?a=b": "https://…@example.com/x?a=b", "https://usr@example.com": "https://…@example.com", "https://a@b@example.com/": "https://…@example.com/", "https://usr:pw@example.com/@me": "https://…@example.com/@me",
		"https://usr:p w@example.com/": "https://…@example.com/", "https://usr:p/w@example.com/x": "https://…@example.com/x", "https://usr:p%zz@example.com/": "https://…@example.com/", "usr:pw@example.com/x": "…@example.com/x", "https:usr:pw@example.com": "…@example.com", "//usr:pw@example.com/": "//…@example.com/",
		"usr:p//w@example.com": "…@example.com", "usr:p://w@example.com": "…@example.com", "https://usr:pw@": "https://…@", "https://usr:p?w@example.com/": "https://…@example.com/", "https://usr:p#w@example.com/": "https://…@example.com/",
		"https://example.com/x": "", "https://example.com/@me": "", "https://example.com/?to=a@b": "", "https://…@example.com/x": "", "ftp://example.com": "", "": "",
	} {
		shown, hidden := withoutUser(text)
		if hidden != (want != "") || hidden && shown != want || !hidden && shown != text {
			t.Errorf("%q is shown as %q, %v", text, shown, hidden)
		}
	}
}

// A form that is wrong elsewhere does not show the password of its URL again. What is stored
// is kept for a URL with … .
func TestForm_DoesNotShowThePasswordOfItsURLAgain(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7", func(h *admin.Webhook) { h.URL = "https://usr:hunter2-stored@example.com/x" })
	b := w.session(t, "7")
	form := url.Values{"name": {"n"}, "uri": {"https://usr:hunter2-new@example.com/y"}, "hook": {"records"}, "delivery": {"realtime"}, "http_verb": {"post"}, "daily_zone": {"UTC"}, "retries": {"99"}, "once": {"mine"}}
	edit := "a/7/webhooks/" + hook.ID + "/edit"
	b.submit(t, edit, form).want(t, http.StatusBadRequest, `value="https://…@example.com/y"`, "User name and password are not shown again. Write them again, or leave … to keep those that are stored.", `<a href="#uri">URL</a>`, `<a href="#retries">`).lacks(t, "hunter2", "usr")
	b.submit(t, "a/7/webhooks/new", form).want(t, http.StatusBadRequest, `value="https://…@example.com/y"`, "User name and password are not shown again. Write them again.</p>").lacks(t, "hunter2", "usr")
	form.Set("uri", "https://…@example.com/y")
	b.submit(t, edit, form).want(t, http.StatusBadRequest).lacks(t, "not shown again", `<a href="#uri">`)
	form.Set("retries", "3")
	b.submit(t, "a/7/webhooks/new", form).want(t, http.StatusBadRequest, "none are stored")
	b.submit(t, edit, form).want(t, http.StatusSeeOther)
	if got := w.one(t, `SELECT url FROM walhook.endpoint WHERE webhook <> 'account'`); got != "https://usr:hunter2-stored@example.com/y" {
		t.Errorf("stored: %s", got)
	}
	stale := url.Values{"etag": {`"1-1"`}}
	maps.Copy(stale, form)
	stale.Set("uri", "https://usr:hunter2-new@example.com/z")
	b.submit(t, edit, stale).want(t, http.StatusPreconditionFailed, `value="https://…@example.com/z"`, "<dt>URL</dt><dd>https://…@example.com/y</dd>").lacks(t, "hunter2", "usr:")
}
