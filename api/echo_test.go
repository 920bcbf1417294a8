package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"walhook/outbox"
)

// docs/API.md: "you may read a webhook, change it, and send it back whole".
func TestEdit_WhatWasReadOfAnyWebhookIsTakenBackUnchanged(t *testing.T) {
	w := newWorld(t)
	const all = "/v2/accounts/7/webhooks"
	own := w.token(t, "7", "")
	for _, fields := range []string{
		`"name":"push","uri":"https://me:pw@example.com/a?b=c"`,
		`"name":"pull","delivery":"pull"`,
		`"name":"pull of all","delivery":"pull","hook":"all"`,
		`"name":"pull, disabled","delivery":"pull","enabled":false`,
		`"name":"batch","uri":"https://example.com/","batch":100,"retries":0,"rate_limit":0.001,"types":["insert"],"schemas":["dids"]`,
		`"name":"cloudevents","uri":"https://example.com/","format":"cloudevents","http_verb":"put","custom_data":{"a":1.0}`,
		`"name":"headers","uri":"https://example.com/","headers":{"X-A":"1","Authorization":"Bearer x"}`,
		`"name":"disabled","uri":"https://example.com/","enabled":false`,
		`"name":"daily","uri":"https://example.com/","hook":"channel_create","delivery":"daily","daily_at":"23:59","daily_zone":"Europe/Berlin"`,
		`"name":"target","uri":"https://example.com/","hook":"all","target":{"type":"number","id":"+13125551212"},"type":"x","action":"y"`,
		`"name":"get","uri":"https://example.com/","http_verb":"get","format":"form","hook":"channel_create","include_internal_legs":true,"include_subaccounts":true`,
		`"name":"state","uri":"https://example.com/","initial_state":true`,
		`"name":"held","uri":"https://held.example/"`,
		`"name":"disabled by the operator","uri":"https://operator.example/"`,
	} {
		w.want(t, 201, own, "PUT", all, `{"data":{`+fields+`}}`)
	}
	w.want(t, 201, adminToken, "PUT", "/v2/accounts/7/holds", `{"data":{"host":"held.example","reason":"abuse"}}`)
	byOperator := one[string](t, w, "SELECT webhook FROM walhook.endpoint WHERE name = 'disabled by the operator'")
	if _, err := w.admin.DisableEndpoint(t.Context(), "7", byOperator, "abuse"); err != nil {
		t.Fatal(err)
	}
	taken := 0
	takenBack := func(account, token string) {
		t.Helper()
		for _, shown := range w.want(t, 200, token, "GET", "/v2/accounts/"+account+"/webhooks", "").list(t) {
			path := fmt.Sprintf("/v2/accounts/%s/webhooks/%s", account, shown["id"])
			for _, method := range []string{"PATCH", "POST"} {
				before := w.want(t, 200, token, "GET", path, "")
				r := w.call(t, token, method, path, `{"data":`+dataText(t, before)+`}`)
				if r.status != 200 {
					t.Errorf("%s, %v: %d %s\n%s", method, shown["name"], r.status, r.text, before.text)
					continue
				}
				was, is := before.data(t), w.want(t, 200, token, "GET", path, "").data(t)
				for _, one := range []map[string]any{was, is} {
					delete(one, "changed_at")
					delete(one, "health")
				}
				if fmt.Sprint(was) != fmt.Sprint(is) {
					t.Errorf("%s, %v: it is another one:\n%v\n%v", method, shown["name"], was, is)
				}
				taken++
			}
		}
	}
	takenBack("7", own)
	takenBack("7", adminToken)
	if taken != 56 {
		t.Errorf("%d went back, want 14 webhooks by two methods and two callers", taken)
	}
	// The account's own, in each state that its table may give it.
	for n, set := range []string{
		`'https://me:pw@example.com/?a=b', 'active', ''`, `'', 'cleared', 'no URL'`, `'ftp://example.com/x', 'unusable', 'no http'`, `'what is this', 'unusable', 'no URL'`,
	} {
		account := fmt.Sprint(20 + n)
		w.exec(t, `INSERT INTO walhook.endpoint (account, url, state, reason, secret) VALUES ('`+account+`', `+set+`, 'whsec_c2VjcmV0')`)
		taken = 0
		takenBack(account, w.token(t, account, ""))
		if taken != 2 {
			t.Errorf("account %s: %d went back", account, taken)
		}
	}
	// Without a name, or a URL, is only what has none.
	one := all + "/" + w.webhook(t, own, "7", "")
	for _, field := range []string{"name", "uri"} {
		for _, r := range []reply{
			w.want(t, 400, own, "PATCH", one, `{"data":{"`+field+`":""}}`),
			w.want(t, 400, own, "PUT", all, strings.Replace(`{"data":{"name":"n","uri":"https://example.com/"}}`, `"`+field+`":"`, `"`+field+`":"","no":"`, 1)),
		} {
			if !strings.Contains(r.text, `"expected length >= 1"`) {
				t.Errorf("an empty %s: %s", field, r.text)
			}
		}
	}
	w.want(t, 400, own, "PUT", all, `{"data":{"name":"","delivery":"pull"}}`)
	w.want(t, 201, own, "PUT", all, `{"data":{"name":"n","delivery":"pull","uri":""}}`)
	if r := w.want(t, 400, w.token(t, "20", ""), "PATCH", "/v2/accounts/20/webhooks/"+outbox.AccountWebhook, `{"data":{"uri":""}}`); !strings.Contains(r.text, "read only") {
		t.Errorf("the URL of the account table, removed: %s", r.text)
	}
}

// Between the check of a body and the edit, the source may have set the account's URL.
func TestEdit_AURLThatTheAccountTableSetsMeanwhileStays(t *testing.T) {
	w := newWorld(t)
	offer, err := w.api.offers.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wrong := faults{}
	sent := offer.edits.read([]byte(`{"data":{"uri":"","name":"n"}}`), offer.edits.edit, wrong)
	own := newWebhook("7")
	own.ID, own.URL = outbox.AccountWebhook, "https://example.com/"
	if _, err := offer.apply(sent, &own, wrong); err != nil || own.URL != "https://example.com/" || own.Name != "n" {
		t.Errorf("%+v, %v", own, err)
	}
}

// dataText is the data of an answer as it came.
func dataText(t *testing.T, r reply) string {
	t.Helper()
	var whole struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal([]byte(r.text), &whole); err != nil || len(whole.Data) == 0 {
		t.Fatalf("%s: %v", r.text, err)
	}
	return string(whole.Data)
}
