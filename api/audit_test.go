package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/outbox/admin"
)

// Everything that changes something, reads a secret or sends a test is in the audit, with
// who did it, and nothing that is secret.
func TestAudit_HasEveryChangeAndNoSecret(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", `{"data":{"name":"crm"}}`)
	id := w.want(t, 201, token, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://user:hunter2@example.com/h4sh?key=t0ken","hook":"records"}}`, "X-Request-Id", "mine-1").data(t)["id"].(string)
	one := "/v2/accounts/7/webhooks/" + id
	w.want(t, 200, token, "PATCH", one, `{"data":{"retries":3,"uri":"https://other.example/hunter2"}}`)
	w.want(t, 200, token, "GET", one, "") // changes nothing
	secret := w.want(t, 200, token, "GET", one+"/secret", "").data(t)["secret"].(string)
	w.want(t, 200, token, "POST", one+"/secret/rotate", "")
	w.want(t, 200, token, "POST", one+"/test", "")
	w.want(t, 202, token, "POST", one+"/retry", "")
	w.want(t, 202, token, "POST", one+"/replay", `{"data":{"since":"2020-01-01T00:00:00Z"}}`)
	replays := w.want(t, 200, token, "GET", one+"/replay", "").list(t)
	cancel := fmt.Sprintf("%s/replay/%.0f", one, replays[0]["id"])
	for range 2 { // the second changes nothing
		w.want(t, 200, token, "DELETE", cancel, "")
	}
	w.want(t, 202, token, "POST", one+"/resync", "")
	link := w.want(t, 201, token, "PUT", "/v2/accounts/7/portal", "").data(t)["url"].(string)
	w.want(t, 201, adminToken, "PUT", "/v2/accounts/7/holds", `{"data":{"host":"other.example","reason":"abuse"}}`)
	w.want(t, 200, adminToken, "DELETE", "/v2/accounts/7/holds/other.example", "")
	w.want(t, 201, adminToken, "PUT", "/v2/accounts/7/holds", "")
	w.want(t, 200, adminToken, "DELETE", "/v2/accounts/7/holds", "")
	w.want(t, 200, token, "DELETE", one, "")
	tokenID := w.want(t, 200, adminToken, "GET", "/v2/accounts/7/tokens", "").list(t)[0]["id"].(string)
	w.want(t, 200, adminToken, "DELETE", "/v2/accounts/7/tokens/"+tokenID, "")
	w.want(t, 404, adminToken, "DELETE", "/v2/accounts/7/tokens/"+tokenID, "") // changes nothing

	all := w.want(t, 200, adminToken, "GET", "/v2/audit?page_size=500", "")
	var actions []string
	for _, line := range all.list(t) {
		actions = append(actions, line["action"].(string))
		actor, operators := "token "+tokenID, []string{"token created", "token deleted", "account held", "account released", "host held", "host released"}
		if slices.Contains(operators, line["action"].(string)) {
			actor = "operator"
		}
		if line["actor"] != actor || line["account_id"] != "7" || line["request_id"] == nil || time.Since(at3339(t, line["at"])) > time.Hour {
			t.Errorf("line %v, want the actor %s", line, actor)
		}
	}
	slices.Reverse(actions)
	want := []string{"token created", "webhook created", "webhook edited", "secret read", "secret rotated", "webhook tested", "retry", "replay", "replay cancelled", "resync", "portal link created",
		"host held", "host released", "account held", "account released", "webhook deleted", "token deleted"}
	if !slices.Equal(actions, want) {
		t.Errorf("actions %q,\nwant    %q", actions, want)
	}
	for _, hidden := range []string{secret, token, "hunter2", "h4sh", "t0ken", "whsec_", "whtok_", "whlink_", link} {
		if strings.Contains(all.text, hidden) {
			t.Errorf("the audit shows %s: %s", hidden, all.text)
		}
	}
	if !strings.Contains(all.text, "fields: retries, uri") || !strings.Contains(all.text, `"request_id":"mine-1"`) || !strings.Contains(all.text, "reason: abuse") {
		t.Errorf("the audit lacks what was changed: %s", all.text)
	}

	count := func(want int, query string) {
		t.Helper()
		if n := len(w.want(t, 200, adminToken, "GET", "/v2/audit?"+query, "").list(t)); n != want {
			t.Errorf("%s: %d lines, want %d", query, n, want)
		}
	}
	w.token(t, "8", "")
	count(1, "account=8")
	count(len(want), "account=7")
	count(6, "actor=operator&account=7")
	count(1, "action=account+held")
	count(1, "action=host+held")
	count(0, "until="+url.QueryEscape(time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)))
	count(len(want)+1, "since="+url.QueryEscape(time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)))
	seen := 0
	for path := "/v2/audit?page_size=5"; path != ""; {
		r := w.want(t, 200, adminToken, "GET", path, "")
		seen += len(r.list(t))
		path = ""
		if next, more := r.body["next_start_key"].(string); more {
			path = "/v2/audit?page_size=5&start_key=" + next
		}
	}
	if seen != len(want)+1 {
		t.Errorf("in pages there are %d lines, want %d", seen, len(want)+1)
	}
	w.want(t, 400, adminToken, "GET", "/v2/audit?action=nothing", "")
	w.want(t, 400, adminToken, "GET", "/v2/audit?since=yesterday", "")
	w.want(t, 400, adminToken, "GET", "/v2/audit?acount=7", "")
	w.want(t, 400, adminToken, "GET", "/v2/audit?start_key=x", "")
}

func at3339(t *testing.T, value any) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, value.(string))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// What cannot be written into the audit does not happen.
func TestAudit_IsOfTheSameTransactionAsTheChange(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	w.exec(t, `ALTER TABLE walhook.audit ADD CONSTRAINT full_disk CHECK (false) NOT VALID`)
	before := w.state(t)
	one := "/v2/accounts/7/webhooks/" + id
	for _, call := range [][4]string{
		{token, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://example.com/b"}}`},
		{token, "PATCH", one, `{"data":{"retries":3}}`}, {token, "DELETE", one, ""},
		{token, "GET", one + "/secret", ""}, {token, "POST", one + "/secret/rotate", ""}, {token, "POST", one + "/test", ""},
		{token, "POST", one + "/retry", ""}, {token, "POST", one + "/replay", `{"data":{"since":"2020-01-01T00:00:00Z"}}`}, {token, "POST", one + "/resync", ""},
		{token, "PUT", "/v2/accounts/7/portal", ""}, {adminToken, "PUT", "/v2/accounts/7/tokens", ""},
		{adminToken, "PUT", "/v2/accounts/7/holds", ""}, {adminToken, "DELETE", "/v2/accounts/7/holds", ""},
	} {
		if r := w.call(t, call[0], call[1], call[2], call[3]); r.status < 400 {
			t.Errorf("%s %s: %d %s", call[1], call[2], r.status, r.text)
		}
	}
	if after := w.state(t); after != before || len(w.destination.tried) > 0 {
		t.Errorf("something changed:\n\t%s\n\t%s, tests %v", before, after, w.destination.tried)
	}
	if n := one2(t, w); n != 0 {
		t.Errorf("%d links, resyncs and holds", n)
	}
}

func one2(t *testing.T, w *world) int {
	t.Helper()
	return one[int](t, w, `SELECT (SELECT count(*) FROM walhook.portal_link) + (SELECT count(*) FROM walhook.resync) + (SELECT count(*) FROM walhook.hold)`)
}

// To retry now changes nothing that the account has set, and so no time of a change.
func TestRetry_LeavesTheTimeOfTheLastChange(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	one := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", "")
	changed := w.want(t, 200, token, "GET", one, "").data(t)["changed_at"]
	for range 2 {
		w.want(t, 202, token, "POST", one+"/retry", "")
		if now := w.want(t, 200, token, "GET", one, "").data(t)["changed_at"]; now != changed {
			t.Errorf("changed at %v after a retry, want %v", now, changed)
		}
	}
	w.want(t, 200, token, "PATCH", one, `{"data":{"retries":3}}`)
	if now := w.want(t, 200, token, "GET", one, "").data(t)["changed_at"]; now == changed {
		t.Error("an edit leaves it, too")
	}
	list, err := w.admin.Acts(t.Context(), admin.ActFilter{Action: "retry"}, nil, 10)
	if err != nil || len(list) != 2 {
		t.Errorf("audit %v: %v", list, err)
	}
}
