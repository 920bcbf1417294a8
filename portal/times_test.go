package portal

import (
	"net/http"
	"net/url"
	"testing"
)

// A time that is missing or wrong is named at its field, in the user's words.
func TestTimes_WhatIsWrongStandsAtTheField(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID
	const missing, wrong, order = "Write a date and a time, such as 2026-03-09 05:00.", "Want a date and a time, such as 2026-03-09 05:00.", "This is not after Since, so nothing is between the two."
	for _, c := range []struct{ form, since, until, field, want string }{
		{"/replay", "", "", "since_since", missing},
		{"/replay", "yesterday", "", "since_since", wrong},
		{"/replay", "0001-01-01T00:00", "", "since_since", wrong},
		{"/failed", "", "", "failed_since", missing},
		{"/failed", "yesterday", "", "failed_since", wrong},
		{"/failed", "2026-11-30T12:00", "soon", "failed_until", wrong},
		{"/failed", "2026-11-30T12:00", "2026-11-30T11:00", "failed_until", order},
		{"/failed", "2026-11-30T12:00", "2026-11-30T12:00", "failed_until", order},
	} {
		r := b.submit(t, path+c.form, url.Values{"since": {c.since}, "until": {c.until}}).want(t, http.StatusBadRequest, "Nothing is sent yet. Please look at:",
			`<a href="#`+c.field+`">`, `id="`+c.field+`"`, `aria-describedby="`+c.field+`-fault"`, `<p class="fault" id="`+c.field+`-fault">`+c.want+`</p>`)
		r.lacks(t, "RFC 3339", "date-time", "since: ", "until: ")
		if c.until != "" {
			r.want(t, http.StatusBadRequest, `value="`+c.until+`"`)
		}
	}
	b.submit(t, path+"/replay", url.Values{"since": {""}}).want(t, http.StatusBadRequest, "<details open><summary>Send everything since a time again")
	b.submit(t, path+"/failed", url.Values{"since": {"2026-11-30T11:00"}, "until": {"2026-11-30T12:00"}}).want(t, http.StatusOK, "Nothing failed in this time")
	b.get(t, path).want(t, http.StatusOK).lacks(t, "-fault", "Please look at", "<details open>")
}

// "Send selected again" with nothing selected says so, and selects nothing by itself.
func TestDeadLetters_NothingSelectedIsSaid(t *testing.T) {
	w := newWorld(t)
	hook, other := w.hook(t, "7"), w.hook(t, "7")
	for _, h := range []int64{hook.Endpoint, other.Endpoint} {
		w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, webhook_id, schema, type, record, body, size, committed_at, attempts, reason)
			SELECT $1, n, 'evt_' || n, 'dids', 'update', 'dids:1', '{}', 2, clock_timestamp(), 1, '5xx' FROM generate_series(1, 2) n`, h)
	}
	b := w.session(t, "7")
	b.get(t, "a/7/dead").want(t, http.StatusOK, ` checked aria-label="Select evt_1"`).lacks(t, "nothing is selected", "pick-fault")
	r := b.submit(t, "a/7/webhooks/"+hook.ID+"/replay", url.Values{"once": {"x"}}).want(t, http.StatusBadRequest, "Nothing is sent, because nothing is selected.", `<p class="fault" id="pick-fault">Select at least one event.</p>`,
		`value="evt_1" aria-describedby="pick-fault" aria-label="Select evt_1"`, `value="evt_1" checked aria-label="Select evt_1"`)
	r.lacks(t, "RFC 3339", "event_ids")
	if got := w.one(t, `SELECT count(*)::text FROM walhook.request`); got != "0" {
		t.Errorf("%s replays", got)
	}
}
