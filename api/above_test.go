package api

import (
	"fmt"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

// What stands in the query of a sub-account's URL may be a secret of that account, as its
// user name and password are.
func TestAbove_ATokenOfAnAccountAboveSeesNoQueryOfAURL(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('9', '7')`)
	w.exec(t, `INSERT INTO walhook.endpoint (account, url, state, secret) VALUES ('9', 'https://me:hidden@example.com/own?token=hidden', 'active', 'whsec_c2VjcmV0')`)
	above, own := w.token(t, "7", `{"data":{"include_subaccounts":true}}`), w.token(t, "9", "")
	const all = "/v2/accounts/9/webhooks"
	const address = "https://me:hidden@example.com/a?token=hidden#hidden"
	id := w.want(t, 201, own, "PUT", all, `{"data":{"name":"n","uri":"`+address+`"}}`).data(t)["id"].(string)
	byAbove, err := w.admin.FindToken(t.Context(), above)
	if err != nil {
		t.Fatal(err)
	}
	visitor := w.session(t, admin.Caller{Token: byAbove.ID, Account: "7"}, "9")
	visitor.Maker = "7"

	const masked = "https://…@example.com/a?…"
	for what, path := range map[string]string{"the list": all, "one": all + "/" + id, "its own": all + "/account"} {
		if r := w.want(t, 200, above, "GET", path, ""); strings.Contains(r.text, "hidden") || !strings.Contains(r.text, "?…") {
			t.Errorf("%s, for the account above: %s", what, r.text)
		}
		if a := w.as(t, visitor, "GET", path, ""); a.Code != 200 || strings.Contains(a.Body.String(), "hidden") {
			t.Errorf("%s, for a session of the account above: %d %s", what, a.Code, a.Body)
		}
		for who, token := range map[string]string{"the account": own, "the operator": adminToken} {
			if r := w.want(t, 200, token, "GET", path, ""); !strings.Contains(r.text, "?token=hidden") || strings.Contains(r.text, "me:hidden") {
				t.Errorf("%s, for %s: %s", what, who, r.text)
			}
		}
	}
	stored := func() string { return one[string](t, w, "SELECT url FROM walhook.endpoint WHERE webhook = $1", id) }
	before := stored()
	read := w.want(t, 200, above, "GET", all+"/"+id, "")
	if read.data(t)["uri"] != masked {
		t.Errorf("shown as %v", read.data(t)["uri"])
	}
	if tag := w.want(t, 200, own, "GET", all+"/"+id, "").header.Get("ETag"); tag != read.header.Get("ETag") {
		t.Errorf("the ETag of one state is %s and %s", tag, read.header.Get("ETag"))
	}
	// What was read goes back whole, and a part of it.
	back := w.want(t, 200, above, "PATCH", all+"/"+id, `{"data":`+dataText(t, read)+`}`, "If-Match", read.header.Get("ETag"))
	if stored() != before || back.data(t)["uri"] != masked {
		t.Errorf("sent back, it is %v, stored as %s", back.data(t)["uri"], stored())
	}
	if r := w.want(t, 200, above, "PATCH", all+"/account", `{"data":`+dataText(t, w.want(t, 200, above, "GET", all+"/account", ""))+`}`); strings.Contains(r.text, "hidden") {
		t.Errorf("the account's own, sent back: %s", r.text)
	}
	for _, c := range []struct{ sent, want string }{
		{"https://…@example.com/a?…", "https://me:hidden@example.com/a?token=hidden#hidden"},
		{"https://%E2%80%A6@example.com/a?%E2%80%A6", "https://me:hidden@example.com/a?token=hidden#hidden"},
		{"https://EXAMPLE.com:443/a?…", "https://EXAMPLE.com:443/a?token=hidden#hidden"},
		{"https://you:new@example.com/a?…", "https://you:new@example.com/a?token=hidden#hidden"},
		{"https://…@example.com/b", "https://you:new@example.com/b"},
	} {
		if r := w.want(t, 200, above, "PATCH", all+"/"+id, `{"data":{"uri":"`+c.sent+`"}}`); strings.Contains(r.text, "hidden") {
			t.Errorf("%s: %s", c.sent, r.text)
		}
		w.want(t, 200, own, "GET", all+"/"+id, "")
		if got := stored(); got != c.want {
			t.Errorf("%s is stored as %s, want %s", c.sent, got, c.want)
		}
	}
	w.want(t, 200, own, "PATCH", all+"/"+id, `{"data":{"uri":"`+address+`"}}`)
	for sent, want := range map[string]string{
		"https://…@example.com/b?…":        "another host, port or path",
		"https://example.org/a?…":          "another host, port or path",
		"https://example.com:8443/a?…":     "another host, port or path",
		"http://example.com/a?…":           "in clear text",
		"https://…@example.org/a?…":        "another host or port",
		"https://example.com.evil.test/?…": "another host",
	} {
		r := w.want(t, 400, above, "PATCH", all+"/"+id, `{"data":{"uri":"`+sent+`"}}`)
		if fault := fmt.Sprint(r.data(t)["uri"]); !strings.Contains(fault, want) || strings.Contains(r.text, "hidden") {
			t.Errorf("%s: %s", sent, r.text)
		}
	}
	w.want(t, 400, above, "PUT", all, `{"data":{"name":"n","uri":"`+masked+`"}}`)
	made := w.want(t, 201, above, "PUT", all, `{"data":{"name":"n","uri":"https://example.com/?mine=1"}}`)
	if made.data(t)["uri"] != "https://example.com/?…" {
		t.Errorf("made by the account above: %s", made.text)
	}
	if r := w.want(t, 200, above, "DELETE", all+"/"+id, ""); strings.Contains(r.text, "hidden") {
		t.Errorf("deleted by the account above: %s", r.text)
	}
	if r := w.want(t, 201, above, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://example.com/?mine=1"}}`); r.data(t)["uri"] != "https://example.com/?mine=1" {
		t.Errorf("in its own account it sees %s", r.text)
	}
}
