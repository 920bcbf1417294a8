package api

import (
	"fmt"
	"strings"
	"testing"
)

// The answer to a replay says what will not be sent.
func TestReplay_SaysWhatItWillNotSend(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/replay"
	for n, webhookID := range []string{"evt_retry", "evt_done"} {
		w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
			SELECT $1, id, 1, 'dids:1', $2, 'dids', 'update', now(), now(), '{}' FROM walhook.endpoint WHERE webhook = $3`, n+1, webhookID, id)
	}
	w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason)
		SELECT id, 1, 'dids:1', 1, now() + interval '1h', '5xx' FROM walhook.endpoint WHERE webhook = $1`, id)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now(), id, 2, 1, 1, '1 ms', 200, 'delivered', '2xx', '' FROM walhook.endpoint WHERE webhook = $1`, id)
	for _, c := range []struct {
		name, body   string
		dry, sending int // the statuses
		total        float64
		want         []string
	}{
		{"delivered", `{"event_ids":["evt_done"]}`, 202, 202, 1, nil},
		{"in retry", `{"event_ids":["evt_retry"]}`, 202, 409, 0, []string{"1 of them are not sent again: they still wait", "POST …/retry"}},
		{"unknown", `{"event_ids":["evt_none","evt_other"]}`, 400, 400, 0, []string{`event_ids: unknown`, `"evt_none", "evt_other"`}},
		{"each", `{"event_ids":["evt_done","evt_retry","evt_none"]}`, 400, 400, 0, []string{`"evt_none"`}},
		{"two of three", `{"event_ids":["evt_done","evt_retry"]}`, 202, 202, 1, []string{"1 of them are not sent again: they still wait"}},
		{"nothing since", `{"since":"2200-01-01T00:00:00Z"}`, 202, 202, 0, []string{"none of the first 10000 events since then"}},
	} {
		for _, dry := range []string{"true", "false"} {
			status := c.sending
			if dry == "true" {
				status = c.dry
			}
			r := w.want(t, status, token, "POST", path, `{"data":`+strings.Replace(c.body, "}", `,"dry_run":`+dry+"}", 1)+`}`)
			if status == 202 && (r.data(t)["total"] != c.total || (c.want == nil) != (r.body["warnings"] == nil)) {
				t.Errorf("%s: %s", c.name, r.text)
			}
			warnings := fmt.Sprint(r.body["warnings"], r.body["message"])
			for _, want := range c.want {
				if !strings.Contains(warnings, want) {
					t.Errorf("%s: %s, want %s", c.name, warnings, want)
				}
			}
		}
	}
	if n := one[int](t, w, "SELECT count(*) FROM walhook.request"); n != 3 {
		t.Errorf("%d replays were made, want those of the three that were accepted", n)
	}
}
