package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What is kept of a deleted webhook is shown to its account and the operator, as
// deleted. Nothing of it can be sent again, and it is nobody else's.
func TestDeleted_WhatIsKeptOfAWebhookStaysReachable(t *testing.T) {
	w := newWorld(t)
	token, stranger := w.token(t, "7", ""), w.token(t, "8", "")
	gone, there := w.webhook(t, token, "7", ""), w.webhook(t, token, "7", "")
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT id, id, 1, 'dids:1', 'evt_' || id, 'dids', 'update', now(), now(), '{}' FROM walhook.endpoint`)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now(), id, id, 1, 1, '5 ms', 500, 'dead', '5xx', '' FROM walhook.endpoint`)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT id, id, 'dids:1', 'evt_' || id, 'dids', 'update', now(), 1, '5xx', 2, '{}' FROM walhook.endpoint`)
	w.want(t, 200, token, "DELETE", "/v2/accounts/7/webhooks/"+gone, "")
	const all = "/v2/accounts/7/webhooks"
	for _, bearer := range []string{token, adminToken} {
		for path, want := range map[string]string{
			all + "/dead": there + " <nil>, " + gone + " true", all + "/attempts": there + " <nil>, " + gone + " true",
			all + "/" + gone + "/attempts": gone + " true", all + "/" + there + "/attempts": there + " <nil>",
			all + "/" + gone + "/events": "<nil> true", all + "/" + gone + "/replay": "", all + "/" + gone + "/resync": "",
		} {
			var got []string
			for _, row := range w.want(t, 200, bearer, "GET", path, "").list(t) {
				got = append(got, fmt.Sprint(row["webhook_id"], " ", row["webhook_deleted"]))
			}
			sorted := strings.Split(want, ", ")
			if slices.Sort(got); want == "" {
				sorted = nil
			}
			if slices.Sort(sorted); !slices.Equal(got, sorted) {
				t.Errorf("%s: %v, want %v", path, got, sorted)
			}
		}
		for _, body := range []string{`{"event_ids":["evt_1"]}`, `{"since":"2020-01-01T00:00:00Z"}`, `{"event_ids":["evt_1"],"dry_run":true}`} {
			if r := w.want(t, 409, bearer, "POST", all+"/"+gone+"/replay", `{"data":`+body+`}`); !strings.Contains(r.text, "the webhook was deleted") {
				t.Error(r.text)
			}
		}
		w.want(t, 404, bearer, "GET", all+"/"+gone, "")
		w.want(t, 404, bearer, "GET", all+"/"+gone+"/secret", "")
		w.want(t, 404, bearer, "POST", all+"/"+gone+"/test", "")
		w.want(t, 404, bearer, "POST", all+"/"+gone, `{"data":{"enabled":true}}`)
		w.want(t, 404, bearer, "DELETE", all+"/"+gone, "")
	}
	for _, end := range []string{"attempts", "events", "replay", "resync"} {
		w.want(t, 404, stranger, "GET", all+"/"+gone+"/"+end, "")
		w.want(t, 404, stranger, "GET", "/v2/accounts/8/webhooks/"+gone+"/"+end, "")
	}
	// The account has ended since: of the next one's id it is nobody's.
	w.exec(t, "UPDATE walhook.endpoint SET ended_at = now() WHERE webhook = $1", gone)
	for _, end := range []string{"attempts", "events", "replay", "resync"} {
		w.want(t, 404, token, "GET", all+"/"+gone+"/"+end, "")
	}
	for _, end := range []string{"/dead", "/attempts"} {
		if r := w.want(t, 200, token, "GET", all+end, ""); strings.Contains(r.text, gone) {
			t.Errorf("%s shows what an earlier account deleted", end)
		}
	}
}

// An id is known however many events have come since, and so is one that only the
// dead letters hold; each is found by its index.
func TestReplay_KnowsEveryEventThatIsKept(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	other := w.webhook(t, token, "7", "")
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, p.id, 1, 'dids:1', 'evt_' || n, 'dids', 'update', now(), now(), '{}' FROM generate_series(10, 25000) n, walhook.endpoint p WHERE p.webhook = $1`, id)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now(), p.id, n, 1, 1, '5 ms', 200, 'delivered', '2xx', '' FROM unnest(ARRAY[10, 24000]) n, walhook.endpoint p WHERE p.webhook = $1`, id)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT p.id, n, 'dids:1', 'evt_' || n, 'dids', 'update', now(), 1, '5xx', 2, '{}' FROM generate_series(1, 2) n, walhook.endpoint p WHERE p.webhook = $1`, id)
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT 30000, p.id, 1, 'dids:1', 'evt_other', 'dids', 'update', now(), now(), '{}' FROM walhook.endpoint p WHERE p.webhook = $1`, other)
	for _, dry := range []string{"true", "false"} {
		r := w.want(t, 202, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay",
			`{"data":{"event_ids":["evt_10","evt_24000","evt_1","evt_11","evt_10"],"dry_run":`+dry+`}}`)
		warnings := fmt.Sprint(r.body["warnings"])
		if r.data(t)["total"] != 3.0 || !strings.Contains(warnings, "1 of them are not sent again: they still wait") {
			t.Errorf("dry run %s: total %v, %s", dry, r.data(t)["total"], warnings)
		}
		r = w.want(t, 400, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay", `{"data":{"event_ids":["evt_10","evt_3","evt_other"],"dry_run":`+dry+`}}`)
		if !strings.Contains(r.text, `retention: \"evt_3\", \"evt_other\";`) {
			t.Errorf("dry run %s: %s", dry, r.text)
		}
	}
}
