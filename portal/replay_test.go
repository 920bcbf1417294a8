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

func (w *world) one(t *testing.T, sql string) (text string) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}
