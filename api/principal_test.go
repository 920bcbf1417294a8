package api

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

// as calls the API within the process.
func (w *world) as(t *testing.T, p Principal, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(As(t.Context(), p), method, path, bytes.NewBufferString(body))
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, request)
	return answer
}

// session is a principal of an account's session of the portal.
func (w *world) session(t *testing.T, by admin.Caller, account string) Principal {
	t.Helper()
	link, err := w.admin.CreatePortalLink(t.Context(), by, account, admin.Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := w.admin.UsePortalLink(t.Context(), link.Secret)
	if err != nil {
		t.Fatal(err)
	}
	return Principal{Session: s.ID, Account: account, Name: "portal session " + s.ID}
}

// A session gets through every route to its own account alone, whether there is an
// operator's token or not.
func TestPrincipal_IsForItsOwnAccountAlone(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.AdminToken = "" })
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('9', '7')`)
	p := w.session(t, admin.Caller{}, "7")
	if a := w.as(t, p, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://example.com/"}}`); a.Code != 201 {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	for _, other := range []string{"9", "70"} {
		if a := w.as(t, p, "GET", "/v2/accounts/"+other+"/webhooks", ""); a.Code != 404 {
			t.Errorf("account %s: %d %s", other, a.Code, a.Body)
		}
	}
	for _, wrong := range []Principal{{}, {Account: "7"}, {Session: p.Session}, {Account: "7", Session: "nonsense"}, {Account: "9", Session: p.Session}} {
		account := wrong.Account
		if account == "" {
			account = "7"
		}
		if a := w.as(t, wrong, "GET", "/v2/accounts/"+account+"/webhooks", ""); a.Code < 400 || strings.Contains(a.Body.String(), "example.com") {
			t.Errorf("%+v: %d %s", wrong, a.Code, a.Body)
		}
	}
	for _, path := range []string{"/v2/accounts/7/tokens", "/v2/accounts/7/portal"} {
		if a := w.as(t, p, "PUT", path, `{"data":{}}`); a.Code != 403 {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
	w.want(t, 403, "", "GET", "/v2/accounts/7/webhooks", "") // from outside all is as before
	if err := w.admin.EndPortalSession(t.Context(), p.Session); err != nil {
		t.Fatal(err)
	}
	if a := w.as(t, p, "GET", "/v2/accounts/7/webhooks", ""); a.Code != 401 {
		t.Errorf("after its end: %d %s", a.Code, a.Body)
	}
}

func TestPortalLink_IsMadeByWhoeverMayActForTheAccount(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('9', '7')`)
	for who, token := range map[string]string{"the operator": adminToken, "the account": w.token(t, "9", ""), "the one above": w.token(t, "7", `{"data":{"include_subaccounts":true}}`)} {
		made := w.want(t, http.StatusCreated, token, "PUT", "/v2/accounts/9/portal", "").data(t)
		secret, found := strings.CutPrefix(made["url"].(string), "https://portal.example/portal/enter?link=")
		if !found || made["expires_at"] == nil {
			t.Fatalf("%s got %v", who, made)
		}
		if s, _, err := w.admin.UsePortalLink(t.Context(), secret); err != nil || s.Account != "9" || s.Operator {
			t.Errorf("%s: session %+v, %v", who, s, err)
		}
	}
	for range 100 {
		w.exec(t, `INSERT INTO walhook.portal_link (hash, account, expires_at) VALUES (sha256(random()::text::bytea), '9', clock_timestamp() + interval '1 minute')`)
	}
	w.want(t, http.StatusTooManyRequests, adminToken, "PUT", "/v2/accounts/9/portal", "")
	w.exec(t, `INSERT INTO walhook.ended_account (account) VALUES ('70')`)
	w.want(t, http.StatusConflict, adminToken, "PUT", "/v2/accounts/70/portal", "")
	off := newWorldIn(t, w.db, func(c *Config) { c.PortalURL = "" })
	off.want(t, http.StatusNotFound, adminToken, "PUT", "/v2/accounts/9/portal", "")
}
