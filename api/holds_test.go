package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// What an operator disabled, an account neither enables nor gets round.
func TestOperatorsDisable_IsNotTheAccountsToUndo(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	id, twin := w.webhook(t, token, "7", ""), w.webhook(t, token, "7", "")
	one1 := w.want(t, 200, adminToken, "PATCH", path+"/"+id, `{"data":{"enabled":false}}`).data(t)
	if one1["state"] != "disabled" || !strings.Contains(one1["disable_reason"].(string), "operator") {
		t.Errorf("disabled as %v", one1)
	}
	if n := one[int](t, w, `SELECT count(*) FROM walhook.inbox WHERE above AND account = '7'`); n != 1 {
		t.Errorf("%d notices to the account above", n)
	}
	for _, webhook := range []string{id, twin} {
		if got := one[string](t, w, "SELECT state || ' ' || disabled_by FROM walhook.endpoint WHERE webhook = $1", webhook); got != "disabled operator" {
			t.Errorf("stored %s", got)
		}
		w.want(t, 409, token, "PATCH", path+"/"+webhook, `{"data":{"enabled":true}}`)
		w.want(t, 409, token, "PATCH", path+"/"+webhook, `{"data":{"enabled":null}}`)
		if r := w.want(t, 409, token, "POST", path+"/"+webhook+"/test", ""); !strings.Contains(r.text, "operator") {
			t.Error(r.text)
		}
		w.want(t, 200, token, "PATCH", path+"/"+webhook, `{"data":{"enabled":false}}`)
		w.want(t, 200, token, "PATCH", path+"/"+webhook, `{"data":{"name":"other","uri":"https://elsewhere.example/"}}`)
		if got := one[string](t, w, "SELECT disabled_by FROM walhook.endpoint WHERE webhook = $1", webhook); got != "operator" {
			t.Errorf("after an edit of the URL: %s", got)
		}
		w.want(t, 200, token, "DELETE", path+"/"+webhook, "")
	}
	if len(w.destination.tried) > 0 {
		t.Error("something was sent")
	}
	other := w.want(t, 201, token, "PUT", path, `{"data":{"name":"n","uri":"https://other.example/"}}`).data(t)["id"].(string)
	for _, uri := range []string{"https://example.com/hook", "http://EXAMPLE.com:8443/x", "https://example.com./", "https://u:p@ｅxample。com/"} {
		for _, call := range [][2]string{{"PUT", path}, {"PATCH", path + "/" + other}} {
			if r := w.want(t, 409, token, call[0], call[1], `{"data":{"name":"n","uri":"`+uri+`"}}`); !strings.Contains(r.text, "operator") {
				t.Errorf("%s: %s", uri, r.text)
			}
		}
	}
	w.webhook(t, adminToken, "8", "") // another account

	if err := w.admin.HoldAccount(t.Context(), "7", "abuse"); err != nil {
		t.Fatal(err)
	}
	w.want(t, 409, token, "PUT", path, `{"data":{"name":"n","uri":"https://new.example/"}}`)
	w.want(t, 409, token, "POST", path+"/"+other+"/test", "")
	w.want(t, 409, adminToken, "PATCH", path+"/"+other, `{"data":{"enabled":true}}`)
	if r, err := w.admin.ReleaseAccount(t.Context(), "7"); r.Enabled != 1 || err != nil {
		t.Errorf("released %+v, %v", r, err)
	}
	w.webhook(t, token, "7", "")

	// The account's own word stays its own when the operator edits something else.
	w.want(t, 200, token, "PATCH", path+"/"+other, `{"data":{"enabled":false}}`)
	w.want(t, 200, adminToken, "PATCH", path+"/"+other, `{"data":{"name":"x"}}`)
	w.want(t, 200, token, "PATCH", path+"/"+other, `{"data":{"enabled":true}}`)
	w.want(t, 200, token, "PATCH", path+"/"+other, `{"data":{"enabled":false}}`)
	w.want(t, 200, adminToken, "PATCH", path+"/"+other, `{"data":{"enabled":false}}`)
	w.want(t, 409, token, "PATCH", path+"/"+other, `{"data":{"enabled":true}}`)
	w.want(t, 200, adminToken, "PATCH", path+"/"+other, `{"data":{"enabled":true}}`)
}

// An operator holds hosts and accounts by the API, lists and ends holds.
func TestHolds_AreTheOperatorsByTheAPI(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const holds, webhooks = "/v2/accounts/7/holds", "/v2/accounts/7/webhooks"
	id := w.webhook(t, token, "7", "")
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		w.want(t, 403, token, method, holds, "")
	}
	w.want(t, 403, token, "DELETE", holds+"/example.com", "")
	made := w.want(t, 201, adminToken, "PUT", holds, `{"data":{"host":"https://U@EXAMPLE.com.:81/x","reason":"abuse"}}`).data(t)
	if made["host"] != "example.com" || made["disabled"] != 1.0 || made["reason"] != "abuse" {
		t.Errorf("held %v", made)
	}
	if one := w.want(t, 200, token, "GET", webhooks+"/"+id, "").data(t); one["state"] != "disabled" || one["disable_reason"] != "abuse" {
		t.Errorf("the webhook is %v", one)
	}
	w.want(t, 201, adminToken, "PUT", holds, `{"data":{"host":"0x7f.1"}}`)
	for _, bad := range []string{`{"data":{"host":"http://%zz"}}`, `{"data":{"host":""}}`, `{"data":{"reason":""}}`, `{"data":{"reason":"a\u001bb"}}`, `{"data":{"host":7}}`} {
		w.want(t, 400, adminToken, "PUT", holds, bad)
	}
	page := w.want(t, 200, adminToken, "GET", holds+"?page_size=1", "")
	if l := page.list(t); len(l) != 1 || l[0]["host"] != "127.0.0.1" || l[0]["account_id"] != "7" || l[0]["held_at"] == nil {
		t.Errorf("first page %s", page.text)
	}
	page = w.want(t, 200, adminToken, "GET", holds+"?page_size=1&start_key="+page.body["next_start_key"].(string), "")
	if l := page.list(t); len(l) != 1 || l[0]["host"] != "example.com" || page.body["next_start_key"] != nil {
		t.Errorf("second page %s", page.text)
	}
	w.want(t, 404, adminToken, "DELETE", holds+"/other.example", "")
	if r := w.want(t, 200, adminToken, "DELETE", holds+"/EXAMPLE.com.", "").data(t); r["enabled"] != 1.0 {
		t.Errorf("released %v", r)
	}
	w.want(t, 201, adminToken, "PUT", holds, "")
	if one := w.want(t, 200, token, "GET", webhooks+"/"+id, "").data(t); one["state"] != "disabled" || one["disable_reason"] != reasonHeld {
		t.Errorf("in a held account the webhook is %v", one)
	}
	w.want(t, 409, token, "PUT", webhooks, `{"data":{"name":"n","uri":"https://new.example/"}}`)
	w.want(t, 409, token, "POST", webhooks+"/"+id+"/test", "")
	if r := w.want(t, 200, adminToken, "DELETE", holds, "").data(t); r["enabled"] != 1.0 {
		t.Errorf("released %v", r)
	}
	w.webhook(t, token, "7", "")
}

// The end of a hold gives back what the account had disabled, and the API shows that before.
// A webhook that is sent back as it was shown says nothing about it.
func TestHolds_GiveBackWhatTheAccountDisabled(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const holds, webhooks = "/v2/accounts/7/holds", "/v2/accounts/7/webhooks/"
	before, during, edited := w.webhook(t, token, "7", ""), w.webhook(t, token, "7", ""), w.webhook(t, token, "7", "")
	w.want(t, 200, token, "PATCH", webhooks+before, `{"data":{"enabled":false}}`)
	back := func(by, id, name string) {
		t.Helper()
		whole := w.want(t, 200, by, "GET", webhooks+id, "").data(t)
		whole["name"] = name
		body, err := json.Marshal(map[string]any{"data": whole})
		if err != nil {
			t.Fatal(err)
		}
		if r := w.want(t, 200, by, "POST", webhooks+id, string(body)); r.data(t)["name"] != name || r.body["warnings"] != nil {
			t.Errorf("sent back: %s", r.text)
		}
	}
	back(adminToken, before, "renamed by the operator")
	if one := w.want(t, 200, token, "GET", webhooks+before, "").data(t); one["disabled_by"] != "account" {
		t.Errorf("renamed by the operator it is %v", one)
	}
	if made := w.want(t, 201, adminToken, "PUT", holds, "").data(t); made["disabled"] != 3.0 {
		t.Errorf("held %v", made)
	}
	w.want(t, 200, token, "PATCH", webhooks+during, `{"data":{"enabled":false}}`)
	back(token, edited, "renamed by the account")
	for _, id := range []string{before, during} {
		if one := w.want(t, 200, token, "GET", webhooks+id, "").data(t); one["disabled_by"] != "operator" || one["also_disabled_by"] != "account" || one["also_disable_reason"] != "disabled by the account" {
			t.Errorf("held it is %v", one)
		}
	}
	w.want(t, 409, token, "PATCH", webhooks+during, `{"data":{"enabled":true}}`)
	if r := w.want(t, 200, adminToken, "DELETE", holds, "").data(t); r["enabled"] != 1.0 || r["still_disabled"] != 2.0 {
		t.Errorf("released %v", r)
	}
	for id, want := range map[string]any{before: "account", during: "account", edited: nil} {
		if one := w.want(t, 200, token, "GET", webhooks+id, "").data(t); one["disabled_by"] != want || one["also_disabled_by"] != nil {
			t.Errorf("released it is %v, want it disabled by %v", one, want)
		}
	}
}

// The token of an account above, and a moved webhook, lead nowhere else.
func TestOperatorsDisable_CannotBeBypassedThroughSubaccounts(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('8', '7'), ('9', '7')`)
	token := w.token(t, "7", `{"data":{"include_subaccounts":true}}`)
	own, below := w.webhook(t, token, "7", ""), w.webhook(t, token, "8", "")
	children := w.token(t, "9", "")
	w.want(t, 201, children, "PUT", "/v2/accounts/9/webhooks", `{"data":{"name":"n","uri":"https://example.com/nine"}}`)
	w.want(t, 200, adminToken, "PATCH", "/v2/accounts/7/webhooks/"+own, `{"data":{"enabled":false}}`)
	w.want(t, 200, token, "PATCH", "/v2/accounts/7/webhooks/"+own, `{"data":{"uri":"https://second.example/"}}`)
	w.want(t, 200, token, "DELETE", "/v2/accounts/7/webhooks/"+own, "")
	for _, account := range []string{"7", "8", "9"} {
		for _, uri := range []string{"https://example.com/x", "http://u:p@EXAMPLE.COM.:8443/", "https://ｅxample。com/", "https://second.example/"} {
			if r := w.want(t, 409, token, "PUT", "/v2/accounts/"+account+"/webhooks", `{"data":{"name":"n","uri":"`+uri+`"}}`); !strings.Contains(r.text, "operator") {
				t.Error(r.text)
			}
		}
	}
	w.want(t, 409, token, "POST", "/v2/accounts/8/webhooks/"+below+"/test", "")
	w.want(t, 409, token, "PATCH", "/v2/accounts/8/webhooks/"+below, `{"data":{"enabled":true}}`)
	list := w.want(t, 200, children, "GET", "/v2/accounts/9/webhooks", "").list(t)
	nine := list[0]["id"].(string)
	w.want(t, 409, token, "POST", "/v2/accounts/9/webhooks/"+nine+"/test", "")
	if len(w.destination.tried) > 0 {
		t.Error("something was sent")
	}
	w.want(t, 200, children, "POST", "/v2/accounts/9/webhooks/"+nine+"/test", "") // its own, which nobody holds
	w.append(t, nine, 1)
	for call, body := range map[string]string{"/replay": `{"data":{"since":"2020-01-01T00:00:00Z"}}`, "/resync": "", "/retry": ""} {
		if r := w.call(t, token, "POST", "/v2/accounts/9/webhooks/"+nine+call, body); r.status != 409 || !strings.Contains(r.text, "operator") {
			t.Errorf("%s by the held account above: %d %s", call, r.status, r.text)
		}
		if r := w.call(t, children, "POST", "/v2/accounts/9/webhooks/"+nine+call, body); r.status >= 300 {
			t.Errorf("%s by its own account: %d %s", call, r.status, r.text)
		}
	}
	for _, call := range [][2]string{{"POST", "/replay"}, {"POST", "/secret/rotate"}} {
		body := `{"data":{}}`
		if call[1] == "/replay" {
			body = `{"data":{"since":"2020-01-01T00:00:00Z"}}`
		}
		w.call(t, token, call[0], "/v2/accounts/8/webhooks/"+below+call[1], body)
		if got := one[string](t, w, "SELECT state || disabled_by FROM walhook.endpoint WHERE webhook = $1", below); got != "disabledoperator" {
			t.Errorf("after %s: %s", call[1], got)
		}
	}
}

// A call that waited for its turn while its token ended is told nothing.
func TestToken_ThatEndsWhileItsCallWaitsGetsNothing(t *testing.T) {
	w := newWorld(t)
	still := time.Now()
	w.api.limits.now = func() time.Time { return still } // a slow machine must not use up the account's time
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	for _, route := range w.routes(t) {
		if strings.Contains(route[1], "/tokens") || strings.Contains(route[1], "/holds") || strings.Contains(route[1], "/audit") {
			continue // the operator's
		}
		leave, _ := w.api.limits.enter(t.Context(), expensiveCall, "7")
		also := []func(){leave}
		for range ordinaryCall.account.running {
			leave, _ := w.api.limits.enter(t.Context(), ordinaryCall, "7")
			also = append(also, leave)
		}
		for range receiverCall.account.running {
			leave, _ := w.api.limits.enter(t.Context(), receiverCall, "7")
			also = append(also, leave)
		}
		done := make(chan reply, 1)
		go func() {
			done <- w.call(t, token, route[0], at(route[1], "7", id, ""), `{"data":{"name":"theft","uri":"https://thief.example/","since":"2026-01-01T00:00:00Z"}}`)
		}()
		waits := func() bool {
			for _, k := range []*kind{ordinaryCall, expensiveCall, receiverCall} {
				if w.api.limits.inside(queueKey{k, "7"}) > k.account.running {
					return true
				}
			}
			return false
		}
		for !waits() {
			select {
			case r := <-done:
				t.Fatalf("%v did not wait: %d %s", route, r.status, r.text)
			default:
			}
		}
		// Its account ends, and another has the id.
		w.exec(t, `CREATE TABLE kept AS SELECT * FROM walhook.token`)
		w.exec(t, `DELETE FROM walhook.token`)
		for _, leave := range also {
			leave()
		}
		if r := <-done; r.status != 401 || strings.Contains(r.text, "example.com") || strings.Contains(r.text, "whsec_") {
			t.Errorf("%v: %d %s", route, r.status, r.text)
		}
		w.exec(t, `INSERT INTO walhook.token SELECT * FROM kept`)
		w.exec(t, `DROP TABLE kept`)
	}
	if got := one[string](t, w, "SELECT string_agg(name || url || state, ' ') FROM walhook.endpoint"); got != "nhttps://example.com/hookactive" {
		t.Errorf("changed: %s", got)
	}
	if len(w.destination.tried) > 0 {
		t.Error("something was sent")
	}
}

// The same request with the same key holds once, and gets the first answer.
func TestHolds_TheSameKeyHoldsOnce(t *testing.T) {
	w := newWorld(t)
	w.webhook(t, adminToken, "7", "")
	hold := func(status int, body string) reply {
		return w.want(t, status, adminToken, "PUT", "/v2/accounts/7/holds", body, "Idempotency-Key", "hold-1")
	}
	first := hold(201, `{"data":{"reason":"abuse"}}`)
	w.want(t, 200, adminToken, "DELETE", "/v2/accounts/7/holds", "")
	again := hold(201, `{"data": {"reason": "abuse"}}`)
	if first.text != again.text || again.header.Get("Idempotent-Replayed") != "true" || first.data(t)["disabled"] != float64(1) {
		t.Errorf("first %s, again %s", first.text, again.text)
	}
	hold(422, `{"data":{"reason":"unpaid"}}`)
	if n := one[int](t, w, `SELECT count(*) FROM walhook.hold`); n != 0 {
		t.Errorf("%d holds, want none: the request was answered before", n)
	}
	if n := one[int](t, w, `SELECT count(*) FROM walhook.audit WHERE action = 'account held'`); n != 1 {
		t.Errorf("%d lines in the audit, want 1", n)
	}
}
