package portal

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// hiddenOf returns the hidden fields of the form that posts to a path.
func hiddenOf(t *testing.T, page, path string) url.Values {
	t.Helper()
	_, rest, found := strings.Cut(page, `action="/portal/`+path+`"`)
	if !found {
		t.Fatalf("no form for %s in %s", path, page)
	}
	form, _, _ := strings.Cut(rest, "</form>")
	values := url.Values{}
	for input := range strings.SplitSeq(form, `<input type="hidden" name="`) {
		if name, rest, ok := strings.Cut(input, `" value="`); ok && !strings.ContainsAny(name, " >") {
			value, _, _ := strings.Cut(rest, `"`)
			values.Add(name, value)
		}
	}
	return values
}

// A replay sends what was counted, however often its button is pressed.
func TestReplay_SendsOnceWhatWasCounted(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 99, 99) // the tenth of them is dead, and no dead letter
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/replay"
	counted := b.submit(t, path, url.Values{"since": {"2020-01-01T00:00"}}).want(t, http.StatusOK, "There are 90 events to send again.", "Send 90 events again")
	sure := hiddenOf(t, counted.text, path)
	if sure.Get("until") != "99" || sure.Get("sure") != "yes" || sure.Get("once") == "" {
		t.Fatalf("the form is %v", sure)
	}
	w.exec(t, fillSQL, hook.Endpoint, 101, 109, 109)
	for range 2 {
		b.post(t, path, sure).want(t, http.StatusSeeOther)
	}
	if got := w.one(t, `SELECT string_agg(total || ' up to ' || until_id, ', ') FROM walhook.request`); got != "90 up to 99" {
		t.Errorf("requests: %s", got)
	}
	again := b.submit(t, path, url.Values{"since": {"2020-01-01T00:00"}})
	b.post(t, path, hiddenOf(t, again.text, path)).want(t, http.StatusSeeOther)
	if got := w.one(t, `SELECT count(*)::text FROM walhook.request`); got != "2" {
		t.Errorf("%s requests, want another for another form", got)
	}
}

// More events than are counted are not called so many, and progress has no end then.
func TestReplay_SaysAtLeast(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 10_050, 10_050)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/replay"
	counted := b.submit(t, path, url.Values{"since": {"2020-01-01T00:00"}}).want(t, http.StatusOK, "There are at least 9,", "Send all of them again")
	b.post(t, path, hiddenOf(t, counted.text, path)).want(t, http.StatusSeeOther)
	w.exec(t, `UPDATE walhook.request SET sent = 10040`)
	b.get(t, "a/7/webhooks/"+hook.ID).want(t, http.StatusOK, "10,040 so far")
}

// Whoever began to send everything again can stop it, and sees how far it came.
func TestReplay_CanBeStopped(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 99, 99)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID
	counted := b.submit(t, path+"/replay", url.Values{"since": {"2020-01-01T00:00"}})
	b.post(t, path+"/replay", hiddenOf(t, counted.text, path+"/replay")).want(t, http.StatusSeeOther)
	w.exec(t, `UPDATE walhook.request SET sent = 30`)
	stop := path + "/replay/" + w.one(t, `SELECT id::text FROM walhook.request`) + "/cancel"
	for _, page := range []string{path, path + "/events"} {
		b.get(t, page).want(t, http.StatusOK, "Sending again:", "30 of 90", `action="/portal/`+stop+`"`, "Stop")
	}
	form := hiddenOf(t, b.get(t, path).text, stop)
	if r := b.post(t, stop, form).want(t, http.StatusSeeOther); r.header.Get("Location") != Prefix+path+"?done=cancelled" {
		t.Errorf("leads to %q", r.header.Get("Location"))
	}
	b.get(t, path+"?done=cancelled").want(t, http.StatusOK, "Sending again has stopped", "Sending again ended early, after 30 events (cancelled on request)").lacks(t, stop)
	if r := b.post(t, stop, form).want(t, http.StatusSeeOther); r.header.Get("Location") != Prefix+path+"?done=not_cancelled" {
		t.Errorf("leads to %q", r.header.Get("Location"))
	}
	w.exec(t, `UPDATE walhook.request SET reason = '', sent = 90`)
	b.get(t, path).want(t, http.StatusOK, "Sent again: 90 events")
	w.exec(t, `UPDATE walhook.request SET done_at = done_at - interval '2 hours'`)
	b.get(t, path).want(t, http.StatusOK).lacks(t, "Sent again: 90")
	w.session(t, "8").submit(t, "a/8/webhooks/"+w.hook(t, "8").ID+"/replay/1/cancel", nil).want(t, http.StatusNotFound)
}

func (w *world) one(t *testing.T, sql string) (text string) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}
