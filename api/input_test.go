package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"walhook/outbox/admin"
)

func TestInput_WhatIsWrongIsNamed(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	id := w.webhook(t, token, "7", `,"retries":3`)
	before := one[string](t, w, "SELECT json_agg(e)::text FROM walhook.endpoint e")
	for _, c := range []struct{ name, data, field string }{
		{"a type", `{"name":7}`, "name"},
		{"an empty name", `{"name":""}`, "name"},
		{"a blank name", `{"name":"  "}`, "name"},
		{"a long name", `{"name":"` + strings.Repeat("n", 129) + `"}`, "name"},
		{"a control character", `{"name":"a\u0007b"}`, "name"},
		{"a NUL", `{"name":"a\u0000b"}`, "name"},
		{"no name", `{"name":null}`, "name"},
		{"no uri", `{"uri":null}`, "uri"},
		{"a scheme", `{"uri":"ftp://example.com/"}`, "uri"},
		{"no scheme", `{"uri":"example.com"}`, "uri"},
		{"a syntax", `{"uri":"http://exa mple.com/"}`, "uri"},
		{"a port", `{"uri":"http://example.com:99999/"}`, "uri"},
		{"a long uri", `{"uri":"http://example.com/` + strings.Repeat("a", 4096) + `"}`, "uri"},
		{"a host that is not public", `{"uri":"http://blocked.example/"}`, "uri"},
		{"the uri as it is shown, of another", `{"uri":"https://…@example.com/"}`, "uri"},
		{"a verb", `{"http_verb":"delete"}`, "http_verb"},
		{"a hook", `{"hook":"channel_destory"}`, "hook"},
		{"retries below", `{"retries":-1}`, "retries"},
		{"retries above", `{"retries":11}`, "retries"},
		{"retries of a text", `{"retries":"3"}`, "retries"},
		{"retries of a fraction", `{"retries":2.5}`, "retries"},
		{"retries beyond all bounds", `{"retries":1e99}`, "retries"},
		{"enabled of a text", `{"enabled":"true"}`, "enabled"},
		{"a rate below", `{"rate_limit":-0.1}`, "rate_limit"},
		{"a rate near nothing", `{"rate_limit":1e-11}`, "rate_limit"},
		{"a rate above", `{"rate_limit":100000}`, "rate_limit"},
		{"custom data of a text", `{"custom_data":"x"}`, "custom_data"},
		{"custom data of a list", `{"custom_data":[1]}`, "custom_data"},
		{"a control character in a key", `{"custom_data":{"a\nb":1}}`, "custom_data"},
		{"a control character in a value", `{"custom_data":{"a":{"b":["c\u0000"]}}}`, "custom_data"},
		{"an empty key", `{"custom_data":{"":1}}`, "custom_data"},
		{"a long key", `{"custom_data":{"` + strings.Repeat("k", 129) + `":1}}`, "custom_data"},
		{"much custom data", `{"custom_data":{"a":"` + strings.Repeat("v", maxCustomBytes) + `"}}`, "custom_data"},
		{"deep custom data", `{"custom_data":{"a":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + `}}`, "custom_data"},
		{"a format", `{"format":"xml"}`, "format"},
		{"a CloudEvent without a body", `{"format":"cloudevents","http_verb":"get"}`, "format"},
		{"a batch below", `{"batch":-1}`, "batch"},
		{"a batch above", `{"batch":101}`, "batch"},
		{"a batch of a fraction", `{"batch":1.5}`, "batch"},
		{"a batch of a text", `{"batch":"10"}`, "batch"},
		{"a batch of another hook", `{"batch":10,"hook":"channel_create"}`, "batch"},
		{"a batch of all hooks", `{"batch":10,"hook":"all"}`, "batch"},
		{"a batch without a body", `{"batch":10,"http_verb":"get"}`, "batch"},
		{"a batch of forms", `{"batch":10,"format":"form"}`, "batch"},
		{"a batch once a day", `{"batch":10,"delivery":"daily"}`, "batch"},
		{"a batch of a feed", `{"batch":10,"delivery":"pull"}`, "batch"},
		{"types", `{"types":["create"]}`, "types[0]"},
		{"schemas", `{"schemas":[7]}`, "schemas[0]"},
		{"an empty schema", `{"schemas":[""]}`, "schemas"},
		{"a target", `{"target":"+1"}`, "target"},
		{"a target's type", `{"target":{"type":"fax","id":"1"}}`, "target.type"},
		{"a target's id", `{"target":{"type":"number"}}`, "target"},
		{"a target's control character", `{"target":{"type":"number","id":"1\r2"}}`, "target.id"},
		{"a delivery", `{"delivery":"weekly"}`, "delivery"},
		{"a time", `{"daily_at":"24:00"}`, "daily_at"},
		{"a zone", `{"daily_zone":"Europe/Berlinn"}`, "daily_zone"},
		{"this machine's zone", `{"daily_zone":"Local"}`, "daily_zone"},
		{"a path for a zone", `{"daily_zone":"../../etc/passwd"}`, "daily_zone"},
		{"data of a list", `[]`, "data"},
		{"data of null", `null`, "data"},
		{"two faults at once", `{"retries":11,"http_verb":"x"}`, "http_verb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, call := range [][2]string{{"POST", path + "/" + id}, {"PATCH", path + "/" + id}, {"PUT", path}} {
				r := w.want(t, 400, token, call[0], call[1], `{"data":`+c.data+`}`)
				fields, _ := r.body["data"].(map[string]any)
				if fields[c.field] == nil || !strings.Contains(fmt.Sprint(r.body["message"]), c.field) || r.body["error"] != "400" {
					t.Errorf("%s: %s, want %s named", call[0], r.text, c.field)
				}
			}
		})
	}
	for name, body := range map[string]string{
		"no JSON": `{"data":`, "no object": `"data"`, "no data": `{}`, "a second value": `{"data":{}} {}`, "not UTF-8": "{\"data\":{\"name\":\"\xff\"}}",
	} {
		if r := w.call(t, token, "POST", path+"/"+id, body); r.status != 400 || r.body["message"] == "" {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	w.want(t, 400, token, "POST", path+"/"+id, "", "Content-Type", "application/json")
	created := w.want(t, 400, token, "PUT", path, `{"data":{}}`)
	if fields := created.body["data"].(map[string]any); fields["name"] == nil || fields["uri"] == nil {
		t.Errorf("an empty one: %s", created.text)
	}
	if after := one[string](t, w, "SELECT json_agg(e)::text FROM walhook.endpoint e"); after != before {
		t.Error("something was changed all the same")
	}
}

func TestInput_BoundsAndTypesOfBodies(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	fits := `{"data":{"name":"n","uri":"https://example.com/"}` + strings.Repeat(" ", maxBody)
	w.want(t, 201, token, "PUT", path, fits[:maxBody-1]+"}")
	w.want(t, 413, token, "PUT", path, fits[:maxBody]+"}")
	request, err := http.NewRequestWithContext(t.Context(), "PUT", w.url+path, struct{ *strings.Reader }{strings.NewReader(fits[:maxBody] + "}")})
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Auth-Token", token) // without a Content-Length
	if r := send(t, request); r.status != 413 {
		t.Errorf("in chunks: %d %s", r.status, r.text)
	}
	const body = `{"data":{"name":"n","uri":"https://example.com/"}}`
	for contentType, status := range map[string]int{
		"application/json": 201, "application/json; charset=utf-8": 201, "APPLICATION/JSON": 201, "": 201, "application/vnd.api+json": 201,
		"application/x-www-form-urlencoded": 415, "text/plain": 415, "application/jsonp": 415, "multipart/form-data; boundary=x": 415,
	} {
		if r := w.call(t, token, "PUT", path, body, "Content-Type", contentType); r.status != status {
			t.Errorf("%q: %d %s, want %d", contentType, r.status, r.text, status)
		}
	}
	r := w.want(t, 405, token, "PUT", path+"/abc/secret", body)
	if r.header.Get("Allow") != "GET" {
		t.Errorf("Allow: %s", r.header.Get("Allow"))
	}
	w.want(t, 404, token, "GET", "/v2/accounts/7/nothing", "")
	w.want(t, 404, token, "GET", "/v3/accounts/7/webhooks", "")
	for _, query := range []string{"page_size=0", "page_size=501", "page_size=x", "start_key=!", "start_key=e30", "start_key=" + strings.Repeat("a", 300)} {
		if r := w.call(t, token, "GET", path+"?"+query, ""); r.status != 400 || r.body["status"] != "error" || !strings.Contains(r.text, strings.Split(query, "=")[0]) {
			t.Errorf("%s: %d %s", query, r.status, r.text)
		}
	}
	w.want(t, 200, token, "GET", path+"?paginate=false", "")
}

func TestInput_RequestIDsAreTakenOverWhenTheyAreSane(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	for sent, taken := range map[string]bool{"abc-123": true, "": false, "a b": false, strings.Repeat("x", 129): false, `"quoted"`: false} {
		r := w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks", "", "X-Request-Id", sent)
		if got := r.header.Get("X-Request-Id"); (got == sent) != taken || got == "" || r.body["request_id"] != got {
			t.Errorf("sent %q, answered %q and %v", sent, got, r.body["request_id"])
		}
	}
}

func TestWebhooks_NullGoesBackToTheDefaultAndTheRestStays(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks/"
	id := w.webhook(t, token, "7", `,"http_verb":"get","hook":"object","type":"did","action":"doc_edited","format":"form","retries":0,"rate_limit":2.5,`+
		`"target":{"type":"ringGroup","id":"900"},"custom_data":{"n":1.10},"delivery":"daily","daily_at":"23:59","daily_zone":"America/New_York","include_subaccounts":true`)
	same := func(r reply) string {
		d := r.data(t)
		delete(d, "changed_at")
		text, _ := json.Marshal(d)
		return string(text)
	}
	before := same(w.want(t, 200, token, "GET", path+id, ""))
	if !strings.Contains(before, `"retries":0`) || !strings.Contains(before, `"daily_at":"23:59"`) {
		t.Errorf("stored %s", before)
	}
	if got := one[string](t, w, "SELECT custom_data::text FROM walhook.endpoint WHERE webhook = $1", id); got != `{"n":1.10}` {
		t.Errorf("custom_data is stored as %s", got)
	}
	for _, body := range []string{`{"data":{}}`, `{"data":{"retiees":4}}`, `{"data":` + before + `}`} {
		if after := same(w.want(t, 200, token, "PATCH", path+id, body)); after != before {
			t.Errorf("%s changed it to\n\t%s\nfrom\n\t%s", body, after, before)
		}
	}
	plain := w.want(t, 200, token, "POST", path+id, `{"data":{"http_verb":null,"hook":null,"type":null,"action":null,"format":null,"retries":null,"rate_limit":null,`+
		`"target":null,"custom_data":null,"delivery":null,"daily_at":null,"daily_zone":null,"include_subaccounts":null,"enabled":null,"schemas":null,"types":null,"include_internal_legs":null}}`)
	fresh := w.want(t, 200, token, "GET", path+w.webhook(t, token, "7", ""), "")
	if got, want := normal(plain.text), normal(fresh.text); got != want {
		t.Errorf("all null:\n\t%s\nwant\n\t%s", got, want)
	}
}

func TestWebhooks_PasswordsAreShownNowhereAndSurviveAnEdit(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	r := w.want(t, 201, token, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://me:hunter2@example.com/a?key=1"}}`)
	if r.data(t)["uri"] != "https://…@example.com/a?key=1" {
		t.Errorf("shown %v", r.data(t)["uri"])
	}
	path := "/v2/accounts/7/webhooks/" + r.data(t)["id"].(string)
	w.want(t, 200, token, "POST", path, `{"data":{"name":"other","uri":"https://…@example.com/a?key=1"}}`)
	if got := one[string](t, w, "SELECT url FROM walhook.endpoint"); got != "https://me:hunter2@example.com/a?key=1" {
		t.Errorf("stored %s", got)
	}
	for _, entry := range w.logs.All() {
		if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "hunter2") || strings.Contains(text, "key=1") {
			t.Errorf("log line %s", text)
		}
	}
}

func TestWebhooks_TheAccountsOwnIsReadAndHeld(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	w.exec(t, `INSERT INTO walhook.endpoint (account, url, state, secret) VALUES ('7', 'https://u:hunter2@example.com/own', 'active', 'whsec_c2VjcmV0')`)
	const path = "/v2/accounts/7/webhooks/account"
	own := w.want(t, 200, token, "GET", path, "").data(t)
	if own["id"] != "account" || own["uri"] != "https://…@example.com/own" || own["hook"] != "records" {
		t.Errorf("shown %v", own)
	}
	for field, value := range map[string]string{"uri": `"https://other.example/"`, "hook": `"all"`, "http_verb": `"get"`, "format": `"json"`, "batch": `10`, "custom_data": `{"a":1}`, "delivery": `"daily"`, "schemas": `["dids"]`} {
		if r := w.want(t, 400, token, "POST", path, `{"data":{"`+field+`":`+value+`}}`); !strings.Contains(r.text, field) {
			t.Errorf("%s: %s", field, r.text)
		}
	}
	w.want(t, 409, token, "DELETE", path, "")
	w.want(t, 200, token, "POST", path, `{"data":{"name":"feed","retries":2,"rate_limit":5,"uri":"https://…@example.com/own","hook":"records"}}`)
	held := w.want(t, 200, token, "PATCH", path, `{"data":{"enabled":false}}`).data(t)
	if held["enabled"] != false || held["state"] != "disabled" || held["disable_reason"] != "disabled by the account" {
		t.Errorf("held %v", held)
	}
	if back := w.want(t, 200, token, "PATCH", path, `{"data":{"enabled":true}}`).data(t); back["state"] != "active" || back["disable_reason"] != nil {
		t.Errorf("back %v", back)
	}
	// What an operator disabled is not the account's to enable.
	if _, err := w.admin.DisableEndpoint(t.Context(), "7", "account", "abuse"); err != nil {
		t.Fatal(err)
	}
	r := w.want(t, 409, token, "POST", path, `{"data":{"enabled":true}}`)
	if !strings.Contains(r.text, "operator") {
		t.Errorf("answer %s", r.text)
	}
	w.want(t, 200, token, "POST", path, `{"data":{"name":"still mine"}}`)
	w.want(t, 200, adminToken, "POST", path, `{"data":{"enabled":true}}`)
	if got := one[string](t, w, "SELECT url || state FROM walhook.endpoint"); got != "https://u:hunter2@example.com/ownactive" {
		t.Errorf("stored %s", got)
	}
}

func TestWebhooks_ChangesAreAuditedAndSeenByThePublisher(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", `{"data":{"name":"crm"}}`)
	who := w.want(t, 200, adminToken, "GET", "/v2/accounts/7/tokens", "").list(t)[0]["id"]
	version := func() int64 { return one[int64](t, w, "SELECT version FROM walhook.webhooks_version") }
	last, revision := version(), int64(0)
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id
	for _, call := range [][3]string{{"PUT", "", "webhook created"}, {"POST", `{"data":{"name":"b"}}`, "webhook edited"}, {"PATCH", `{"data":{"enabled":false}}`, "webhook edited"}, {"DELETE", "", "webhook deleted"}} {
		if call[0] != "PUT" {
			w.want(t, 200, token, call[0], path, call[1], "X-Request-Id", "audit-"+call[0])
		}
		now := one[int64](t, w, "SELECT revision FROM walhook.endpoint")
		if v := version(); v <= last || now <= revision {
			t.Errorf("%s: version %d after %d, revision %d after %d", call[0], v, last, now, revision)
		}
		last, revision = version(), now
		lines := w.logs.FilterMessage("audit").All()
		line := lines[len(lines)-1].ContextMap()
		if line["action"] != call[2] || line["who"] != who || line["webhook"] != id || line["account"] != "7" || line["request_id"] == "" {
			t.Errorf("%s: audit line %v", call[0], line)
		}
	}
	if got := one[string](t, w, `SELECT concat(state, ' ', url, ' ', deleted_at IS NOT NULL, ' ', feed_from = 9223372036854775807) FROM walhook.endpoint`); got != "cleared  t t" {
		t.Errorf("deleted as %q", got)
	}
}

func TestWebhooks_AreBounded(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	for range admin.MaxWebhooks {
		w.webhook(t, token, "7", "")
	}
	w.want(t, 409, token, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://example.com/hook"}}`)
	w.webhook(t, adminToken, "8", "")
}

func TestTry_AnswersTheOutcomeAndIsBounded(t *testing.T) {
	w := newWorld(t)
	still := time.Now()
	w.api.testing.now = func() time.Time { return still } // a slow machine must not earn another test
	token := w.token(t, "7", "")
	for hook, body := range map[string]string{
		"records":        `{"type":"test","schema":"test","data":"{\"webhook_id\":\"`,
		"channel_create": `{"hook_event":"test","timestamp":`,
	} {
		id := w.webhook(t, token, "7", `,"hook":"`+hook+`"`)
		r := w.want(t, 200, token, "POST", "/v2/accounts/7/webhooks/"+id+"/test", "").data(t)
		e := w.destination.tried[len(w.destination.tried)-1]
		if r["outcome"] != "delivered" || r["event_id"] != e.WebhookID || !strings.HasPrefix(string(e.Body), body) || !json.Valid(e.Body) {
			t.Errorf("%s: %v %s", hook, r, e.Body)
		}
	}
	id := w.webhook(t, token, "7", "")
	for range testBurst - 2 {
		w.want(t, 200, token, "POST", "/v2/accounts/7/webhooks/"+id+"/test", "")
	}
	w.want(t, 429, token, "POST", "/v2/accounts/7/webhooks/"+id+"/test", "")
	w.exec(t, `INSERT INTO walhook.endpoint (account, state, reason, secret) VALUES ('8', 'cleared', 'no URL', 'whsec_c2VjcmV0')`)
	w.want(t, 409, adminToken, "POST", "/v2/accounts/8/webhooks/account/test", "")
	w.want(t, 409, adminToken, "POST", "/v2/accounts/8/webhooks/account/replay", `{"data":{"since":"2026-01-01T00:00:00Z"}}`)
}

// A time is one of RFC 3339, section 5.6, and nothing else that Go would parse.
func TestReplay_SinceIsATimeOfRFC3339(t *testing.T) {
	w := newWorld(t)
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, adminToken, "7", "") + "/replay"
	for since, status := range map[string]int{
		"2026-03-09T00:00:00Z": 202, "2026-03-09T00:00:00.123456789+05:30": 202, "2026-03-09T23:59:59-23:59": 202,
		"2026-03-09T00:00:00,5Z": 400, "2026-03-09T00:00:00+24:00": 400, "2026-03-09T00:00:00+01:60": 400, "2026-03-09T24:00:00Z": 400,
		"2026-03-09T00:00:00": 400, "2026-03-09 00:00:00Z": 400, "2026-03-09T0:00:00Z": 400, "2026-02-30T00:00:00Z": 400, "2026-03-09": 400,
		"1969-12-31T23:59:59Z": 400, "9999-12-31T23:59:59-01:00": 400, "": 400,
	} {
		r := w.call(t, adminToken, "POST", path, `{"data":{"dry_run":true,"since":"`+since+`"}}`)
		if r.status != status || status == 400 && !strings.Contains(r.text, `"since"`) {
			t.Errorf("%q: %d %s, want %d", since, r.status, r.text, status)
		}
	}
}

func TestInput_BoundsAreWrittenAsWholeNumbers(t *testing.T) {
	w := newWorld(t)
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, adminToken, "7", "") + "/secret/rotate"
	r := w.want(t, 400, adminToken, "POST", path, `{"data":{"overlap_seconds":2592001}}`)
	if !strings.Contains(r.text, "2592000") {
		t.Errorf("the bound is not named: %s", r.text)
	}
}
