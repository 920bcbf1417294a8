package portal

import (
	"net/http"
	"testing"

	"walhook/outbox/admin"
)

// A text from outside turns nothing behind it, whatever it begins and ends itself.
func TestDirection_OfOthersTextEndsWithIt(t *testing.T) {
	for text, want := range map[string]string{
		"crm":                      "crm",
		"שלום":                     "שלום", // has a direction, and turns no other text
		"a\u202eb":                 "\u2068a\u202eb\u2069",
		"a\u2069\u202eb":           "\u2068a\u202eb\u2069",
		"\u2066\u2067\u2068\u202a": "\u2068\u202a\u2069",
	} {
		if got := isolated(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
	w := newWorld(t)
	hook := w.hook(t, "7", func(a *admin.Webhook) { a.Name = "\u202egnilleb" })
	w.session(t, "7").get(t, "a/7/webhooks/"+hook.ID).want(t, http.StatusOK, "<title>\u2068\u202egnilleb\u2069 · ")
	w.session(t, "a\u202eb").get(t, "a/a%E2%80%AEb").want(t, http.StatusOK, "Account \u2068a\u202eb\u2069<")
}
