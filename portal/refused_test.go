package portal

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

func (p page) lacks(t *testing.T, parts ...string) page {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(p.text, part) {
			t.Errorf("the page has %q: %s", part, p.text)
		}
	}
	return p
}

// A button that comes too late, as on its second press, says in the user's words why it did
// nothing, on the page of the event.
func TestRetry_OfWhatDoesNotWaitSaysHowItStands(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 9, 9) // all delivered
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID
	const id = "evt_0000000000000003_1"
	r := b.submit(t, path+"/retry", url.Values{"event": {id}}).want(t, http.StatusSeeOther)
	if to := r.header.Get("Location"); to != Prefix+path+"/events/"+id+"?done=not_retried" {
		t.Errorf("leads to %q", to)
	}
	b.get(t, path+"/events/"+id+"?done=not_retried").want(t, http.StatusOK, "This does not wait for a retry any more", `class="note warn" role="status"`).lacks(t, "POST …", "event_ids")
	b.submit(t, path+"/retry", url.Values{"event": {id, "evt_0000000000000004_1"}}).want(t, http.StatusSeeOther)
	// What was never there stays an error.
	b.submit(t, path+"/retry", url.Values{"event": {"evt_00000000000000FF_1"}}).want(t, http.StatusBadRequest, "unknown to this webhook")

	w.exec(t, `DELETE FROM walhook.attempt`) // now all wait
	r = b.submit(t, path+"/replay", url.Values{"event": {id}}).want(t, http.StatusSeeOther)
	if to := r.header.Get("Location"); to != Prefix+path+"/events/"+id+"?done=not_replayed" {
		t.Errorf("leads to %q", to)
	}
	b.get(t, path+"/events/"+id+"?done=not_replayed").want(t, http.StatusOK, "so it is not sent twice")
	b.submit(t, path+"/replay", url.Values{"since": {"2020-01-01T00:00"}}).want(t, http.StatusOK, "There is nothing to send again").lacks(t, "POST …")
}

// What would be refused is not offered: to a webhook that an operator disabled its account
// can send nothing, and only an operator enables it.
func TestWebhook_OfAnOperatorsHoldOffersNothingThatIsRefused(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Brand.Support = "https://acme.example/help" })
	held, own := w.hook(t, "7"), w.hook(t, "7", func(h *admin.Webhook) { h.URL = "https://example.org/own" })
	if _, err := w.admin.DisableEndpoint(t.Context(), "7", held.ID, "abuse"); err != nil {
		t.Fatal(err)
	}
	b, operator := w.session(t, "7"), w.operator(t)
	path := "a/7/webhooks/" + held.ID
	buttons := []string{path + "/enable\"", path + "/test\"", path + "/retry\""}
	b.get(t, path).want(t, http.StatusOK, "Abuse.", "The operator of this service disabled it", "https://acme.example/help").lacks(t, buttons...)
	// The forms are refused, too, and say why.
	b.submit(t, path+"/enable", nil).want(t, http.StatusConflict, "only an operator can enable it")
	b.submit(t, path+"/test", nil).want(t, http.StatusConflict, "an operator disabled the webhook")

	operator.get(t, path).want(t, http.StatusOK, path+"/enable\"", "Its account can neither enable nor test it").lacks(t, path+"/test\"")
	operator.submit(t, path+"/enable", nil).want(t, http.StatusSeeOther)
	b.get(t, path).want(t, http.StatusOK, path+"/test\"").lacks(t, "The operator of this service disabled it")

	path = "a/7/webhooks/" + own.ID
	b.submit(t, path+"/disable", nil).want(t, http.StatusSeeOther)
	b.get(t, path).want(t, http.StatusOK, path+"/enable\"", path+"/test\"").lacks(t, "The operator of this service disabled it")
	if err := w.admin.HoldAccount(t.Context(), "7", "unpaid"); err != nil {
		t.Fatal(err)
	}
	b.get(t, path).want(t, http.StatusOK, "Unpaid.", "The account has disabled it, too.")
	if _, err := w.admin.ReleaseAccount(t.Context(), "7"); err != nil {
		t.Fatal(err)
	}
	b.get(t, path).want(t, http.StatusOK, path+"/enable\"").lacks(t, "The account has disabled it, too.")
	b.submit(t, path+"/enable", nil).want(t, http.StatusSeeOther)
}

// What may be tried again later says when, for people and for programs.
func TestTest_TooManySayWhenToTryAgain(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/test"
	for range 20 {
		r := b.submit(t, path, nil)
		if r.status == http.StatusOK {
			if r.header.Get("Retry-After") != "" {
				t.Fatalf("a test that was made has Retry-After %q", r.header.Get("Retry-After"))
			}
			continue
		}
		after := r.want(t, http.StatusTooManyRequests, "Too many tests of this account").header.Get("Retry-After")
		if after == "" {
			t.Error("no Retry-After")
		}
		r.want(t, http.StatusTooManyRequests, "Wait "+after+" seconds.")
		return
	}
	t.Fatal("no test was refused")
}

// What is wrong with a filter stands at its field.
func TestFilter_SaysWhatIsWrongAtItsField(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b, operator := w.session(t, "7"), w.operator(t)
	path := "a/7/webhooks/" + hook.ID + "/events"
	for name, query := range map[string]string{"since": "since=yesterday", "record": "record=42", "until": "since=2026-01-02&until=2026-01-01", "state": "state=lost"} {
		b.get(t, path+"?"+query).want(t, http.StatusBadRequest, `name="`+name+`"`, `aria-describedby="`+name+`-fault"`, `<p class="fault" id="`+name+`-fault">`, "Nothing is shown, because the filter is wrong.").
			lacks(t, `role="alert"`, `hx-trigger`)
	}
	b.get(t, path+"?since=yesterday&record=42").want(t, http.StatusBadRequest, "Want a date and a time, such as", "or name the schema beside it").lacks(t, "RFC 3339", "parameter")
	b.get(t, path+"?record=dids:42").want(t, http.StatusOK).lacks(t, "fault", "aria-invalid")
	b.get(t, path+"?from=zzz").want(t, http.StatusBadRequest, `role="alert"`) // no field has it
	operator.get(t, "audit?since=x&account=%00").want(t, http.StatusBadRequest, `id="since-fault"`, `id="account-fault"`).lacks(t, `role="alert"`, `id="until-fault"`)
	operator.get(t, "audit?from=zzz").want(t, http.StatusBadRequest, `role="alert"`)
}
