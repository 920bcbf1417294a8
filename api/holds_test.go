package api

import (
	"strings"
	"testing"
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
	if len(w.courier.tried) > 0 {
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

	if err := w.store.HoldAccount(t.Context(), "7", "abuse"); err != nil {
		t.Fatal(err)
	}
	w.want(t, 409, token, "PUT", path, `{"data":{"name":"n","uri":"https://new.example/"}}`)
	w.want(t, 409, token, "POST", path+"/"+other+"/test", "")
	w.want(t, 409, adminToken, "PATCH", path+"/"+other, `{"data":{"enabled":true}}`)
	if n, err := w.store.ReleaseAccount(t.Context(), "7"); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
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
