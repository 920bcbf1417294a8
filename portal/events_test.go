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

// The page of an event leads to the others of its record, whatever characters its key has.
func TestEvents_OfARecordWhoseKeyHasControlCharacters(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 50, 50)
	w.exec(t, `UPDATE walhook.event SET record = E'dids:a\r\n\t\x1b[2Jb' WHERE id IN (3, 5)`)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events"
	r := b.get(t, path+"/evt_0000000000000003_1").want(t, http.StatusOK, "Events of this record")
	link := cutBetween(t, r.text, `href="/portal/`+path+`?record=`, `"`)
	b.get(t, path+"?record="+link).want(t, http.StatusOK, "evt_0000000000000003_1", "evt_0000000000000005_1").lacks(t, "evt_0000000000000004_1", `aria-invalid`)
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

// What an event's page shows is made by the webhook's present settings. It says so where
// they are not those of the attempts, and only there.
func TestEvent_ThePageSaysWhenTheWebhookChangedSince(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 3, 3)
	w.exec(t, `DELETE FROM walhook.attempt WHERE event_id = 3`)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events/evt_000000000000000"
	for _, c := range []struct {
		name, event, changed, attempted, says string
	}{
		{"as it was made", "1", "0 s", "1 s", ""},
		{"changed before", "1", "60 s", "65 s", ""},
		{"changed after", "1", "60 s", "55 s", "The webhook was changed at"},
		{"changed when it was sent", "1", "60 s", "61 s", "The webhook was changed at"},
		{"changed at once, after", "1", "1 s", "0 s", "The webhook was changed at"},
		{"not sent", "3", "0 s", "0 s", "This was not sent yet"},
	} {
		w.exec(t, `UPDATE walhook.endpoint SET created_at = a.at - $2::text::interval, changed_at = a.at - $2::text::interval + $1::text::interval
			FROM (SELECT min(at) AS at FROM walhook.attempt WHERE event_id = 1) a`, c.changed, c.attempted)
		r := b.get(t, path+c.event+"_1").want(t, http.StatusOK, "signature covers the bytes", c.says)
		if then := strings.Contains(r.text, "Body as sent"); then != (c.says == "") || then == strings.Contains(r.text, "Body as it is sent now") || then == strings.Contains(r.text, `id="now"`) {
			t.Errorf("%s: the body counts as sent: %v: %s", c.name, then, r.text)
		}
	}
}

// A batch of one event alone, which nobody sent, has no id on the page; one that was sent has.
func TestEvent_ThePageInventsNoBatch(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.batch = "batch_0123456789abcdef0123456789abcdef"
	w.exec(t, fillSQL, hook.Endpoint, 1, 1, 1)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events/evt_0000000000000001_1"
	r := b.get(t, path).want(t, http.StatusOK, "It is sent in a batch", "<dt>webhook-event-ids</dt>", "webhook-event-ids: evt_")
	if strings.Contains(r.text, w.batch) || strings.Contains(r.text, "webhook-id:") {
		t.Errorf("the page shows a batch that nobody sent: %s", r.text)
	}
	w.exec(t, `UPDATE walhook.attempt SET batch = $1`, w.batch)
	b.get(t, path).want(t, http.StatusOK, "<dt>webhook-id</dt><dd>"+w.batch, "webhook-id: "+w.batch)
}

// The page of an event stays small however large its body, says what it leaves out, and is
// refreshed without the body.
func TestEvent_ThePageOfALargeBodyIsBounded(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 1, 1)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events/evt_0000000000000001_1"
	const cut, long, record = "The API has the whole of it", "too long for the command line", `id="record"`
	for _, c := range []struct {
		name   string
		sql    string // the body
		shows  []string
		leaves []string
	}{
		{"small", `'{"data":"{\"n\":1}"}'`, []string{record, `id="curl"`}, []string{cut, long}},
		{"just shown", `repeat('y', 65536)`, []string{strings.Repeat("y", 65536) + "</pre>", `id="curl"`}, []string{cut, long, record}},
		{"indented it is too long", `'[' || repeat('1,', 30000) || '1]'`, []string{`>[` + strings.Repeat("1,", 30000) + `1]</pre>`, `id="curl"`}, []string{cut, long, record}},
		{"cut", `repeat('yä', 22000)`, []string{"The first 65.5 kB of 66.0 kB", cut, "/v2/accounts/7/webhooks/" + hook.ID + "/events/evt_0000000000000001_1", `id="curl"`}, []string{long, record, `data-copy="body"`}},
		{"too long for a shell", `repeat('y', 131000)`, []string{cut, long}, []string{`id="curl"`}},
		{"huge", `'{"data":"' || repeat('<', 12000000) || '"}'`, []string{"of 12.0 MB", cut, long}, []string{`id="curl"`, record, `data-copy="curl"`}},
	} {
		w.exec(t, `UPDATE walhook.event SET body = convert_to(`+c.sql+`, 'UTF8')`)
		r := b.get(t, path).want(t, http.StatusOK, c.shows...)
		for _, part := range c.leaves {
			if strings.Contains(r.text, part) {
				t.Errorf("%s: the page has %q", c.name, part)
			}
		}
		if len(r.text) > 512<<10 {
			t.Errorf("%s: the page has %d bytes", c.name, len(r.text))
		}
		refresh := cutBetween(t, r.text, `id="live" hx-get="/portal/`, `"`)
		if again := b.get(t, refresh).want(t, http.StatusOK, `id="live"`, `id="standing"`, "HTTP 200"); len(again.text) > 16<<10 {
			t.Errorf("%s: a refresh has %d bytes", c.name, len(again.text))
		}
	}
}
