package portal

import (
	"html"
	"net/http"
	"strings"
	"testing"
)

// A page of a rare filter that finds nothing among the events that it looks at says so,
// and leads on by itself; the last one says that nothing matches.
func TestEvents_TheSearchForARareRecordGoesOn(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 10_050, 10_050)
	w.exec(t, `UPDATE walhook.event SET record = 'dids:rare' WHERE id = 3`)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events"
	r := b.get(t, path+"?record=rare&schema=dids").want(t, http.StatusOK, "None of the newer events matches", `hx-trigger="load delay:200ms"`)
	_, rest, found := strings.Cut(r.text, `hx-get="/portal/`+path+`?from=`)
	if !found {
		t.Fatalf("the page does not go on: %s", r.text)
	}
	rest, _, _ = strings.Cut(rest, `"`)
	b.get(t, path+"?from="+strings.ReplaceAll(rest, "&amp;", "&")).want(t, http.StatusOK, "dids:rare", "evt_0000000000000003_1")
	b.get(t, path+"?record=dids:none&since=2100-01-01T00:00").want(t, http.StatusOK, "No event matches the filter")
}

// What the body holds leads to its event, and the field stays with all that leads on.
func TestEvents_AreFoundByATextInTheirBody(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 10_150, 10_150)
	w.exec(t, `UPDATE walhook.event SET body = convert_to('{"data":"{\"name\":\"A & 1\\\"5550100042\"}"}', 'UTF8') WHERE id BETWEEN 3 AND 60`)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events"
	r := b.get(t, path+"?contains=+A+%26+1%225550100042+").want(t, http.StatusOK, "None of the newer events matches", `value="A &amp; 1&#34;5550100042"`,
		`id="live" hx-get="/portal/`+path+`?contains=A&#43;%26&#43;1%225550100042"`)
	rest := cutBetween(t, r.text, `class="empty" hx-get="/portal/`+path, `"`)
	r = b.get(t, path+rest).want(t, http.StatusOK, "dids:60<", "dids:11<", "Older")
	_, pager, _ := strings.Cut(r.text, "Newest")
	rest = cutBetween(t, pager, `href="/portal/`+path, `"`)
	b.get(t, path+rest).want(t, http.StatusOK, "dids:10<", "dids:3<", `value="A &amp; 1&#34;5550100042"`)
	b.get(t, path+"?contains=15&state=dead").want(t, http.StatusBadRequest, "3 to 100 characters, such as the digits", `id="contains-fault"`, `value="15"`)
	b.get(t, path+"?contains=+").want(t, http.StatusOK, "evt_00000000000027a6_1")
}

func cutBetween(t *testing.T, text, before, after string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, before)
	if !found {
		t.Fatalf("%s is not in %s", before, text)
	}
	rest, _, _ = strings.Cut(rest, after)
	return html.UnescapeString(rest)
}

// An attempt that a batch carried names it, under the webhook-id that the receiver got; one
// of a request of its own names none.
func TestEvents_AnAttemptNamesItsBatch(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 2, 2)
	const batch = "batch_0123456789abcdef0123456789abcdef"
	w.exec(t, `UPDATE walhook.attempt SET batch = $1 WHERE event_id = 2`, batch)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events/evt_000000000000000"
	b.get(t, path+"2_1").want(t, http.StatusOK, `Sent in the batch <span class="mono">`+batch+`</span>`)
	if r := b.get(t, path+"1_1").want(t, http.StatusOK, "HTTP 200"); strings.Contains(r.text, "batch") {
		t.Errorf("an attempt of one event names a batch: %s", r.text)
	}
}
