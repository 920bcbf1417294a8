package portal

import (
	"net/http"
	"net/url"
	"testing"
)

// A form that is wrong says so at its top, and leads to each field that is.
func TestForm_LeadsFromItsTopToWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	edit := "a/7/webhooks/" + hook.ID + "/edit"
	b.get(t, edit).want(t, http.StatusOK).lacks(t, "Nothing is saved yet")
	form := url.Values{"name": {"n"}, "uri": {"ftp://example.com"}, "hook": {"records"}, "types": {"insert", "move"}, "retries": {"many"}, "rate_limit": {"x"}, "batch": {"1e"}, "delivery": {"realtime"}, "http_verb": {"post"}, "daily_zone": {"UTC"}}
	b.submit(t, edit, form).want(t, http.StatusBadRequest, "Nothing is saved yet",
		`<a href="#uri">URL</a>`, `<a href="#types-fault">Changes</a>`, `<a href="#retries">Retries</a>`, `<a href="#rate_limit">Requests per second</a>`, `<a href="#batch">Events per request</a>`,
		`id="uri"`, `id="types-fault"`, `id="retries"`, "Write a number in digits, or leave it empty.").lacks(t, "xpected integer", "xpected number", `href="#name"`, `class="note bad" role="alert"`)
	form = url.Values{"name": {"n"}, "uri": {"https://example.com/"}, "hook": {"records"}, "custom_data": {"site: Chicago"}, "header_name": {"", "X-A"}, "header_value": {"v", "v"}}
	b.submit(t, edit, form).want(t, http.StatusBadRequest, "This is not JSON.", `<a href="#custom_data">Custom data</a>`, `<a href="#header_1-fault">Headers of your own</a>`, `id="header_1-fault"`)
}

// Descriptions that say the same of every name are not read nineteen times.
func TestTypes_AlikeDescriptionsAreNames(t *testing.T) {
	t.Parallel()
	of := func(about ...string) (list []eventType) {
		for i := 0; i < len(about); i += 2 {
			list = append(list, eventType{Name: about[i], Description: about[i+1]})
		}
		return list
	}
	for name, c := range map[string]struct {
		list []eventType
		want bool
	}{
		"alike":        {of("dids", "A record of dids.", "users", "A record of users."), true},
		"one of words": {of("dids", "A record of dids.", "users", "Who may log in."), false},
		"only one":     {of("result", "The result."), false},
		"none":         {nil, false},
	} {
		if got := alike(c.list); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
