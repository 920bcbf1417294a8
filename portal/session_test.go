package portal

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"walhook/outbox/admin"
)

func TestLink_OpensOnceAlsoUnderConcurrentUse(t *testing.T) {
	w := newWorld(t)
	link := w.link(t, "7")
	b := w.browser(t)
	for range 3 { // a preview does not use it up
		b.get(t, "enter?link="+link).want(t, http.StatusOK, "Open", link)
	}
	w.portal.entries = nil // the limit has a test of its own
	w.portal.entries = &entryLimit{from: newEntryLimit().from}
	var entered atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, _, err := w.admin.UsePortalLink(t.Context(), link); err == nil {
				entered.Add(1)
			}
		})
	}
	all.Wait()
	if n := entered.Load(); n != 1 {
		t.Errorf("the link opened %d times", n)
	}
	b.post(t, "enter", url.Values{"link": {link}}).want(t, http.StatusForbidden, "has been used")
	late := w.link(t, "7")
	w.exec(t, `UPDATE walhook.portal_link SET expires_at = clock_timestamp() WHERE used_at IS NULL`)
	b.post(t, "enter", url.Values{"link": {late}}).want(t, http.StatusForbidden)
}

func TestLink_OnlyHashesAreStored(t *testing.T) {
	w := newWorld(t)
	link := w.link(t, "7")
	_, cookie, err := w.admin.UsePortalLink(t.Context(), link)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	const sql = `SELECT (SELECT count(*) FROM walhook.portal_link l WHERE l::text LIKE '%' || $1 || '%' OR position(convert_to($1, 'UTF8') IN hash) > 0)
		+ (SELECT count(*) FROM walhook.portal_session s WHERE s::text LIKE '%' || $2 || '%' OR position(convert_to($2, 'UTF8') IN hash) > 0)`
	if err := w.conn.QueryRow(t.Context(), sql, link, cookie).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows hold a secret; %v", n, err)
	}
	for _, entry := range w.logs.All() {
		for name, value := range entry.ContextMap() {
			if text, ok := value.(string); ok && (strings.Contains(text, link) || strings.Contains(text, cookie) || strings.Contains(text, adminToken)) {
				t.Errorf("log line %q shows a secret in %s", entry.Message, name)
			}
		}
	}
}

func TestCookie_IsForThePortalAlone(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.URL = &url.URL{Scheme: "https", Host: "hooks.example", Path: "/sub/portal/"} })
	r := w.browser(t).post(t, "enter", url.Values{"link": {w.link(t, "7")}}).want(t, http.StatusSeeOther)
	cookie := r.header.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "Secure", "SameSite=Lax", "Path=/sub/portal/", "Max-Age=431"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("cookie %q lacks %s", cookie, part)
		}
	}
	if to := r.header.Get("Location"); to != "/sub/portal/a/7" {
		t.Errorf("leads to %q", to)
	}
}

func TestSession_EndsWithItsMaker(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('8', '7'), ('9', '8')`)
	token, _, err := w.admin.CreateToken(t.Context(), admin.Token{Account: "7", Subaccounts: true}, admin.Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	by := admin.Caller{Token: token.ID, Account: "7"}
	enter := func(account string) *browser {
		t.Helper()
		link, err := w.admin.CreatePortalLink(t.Context(), by, account, admin.Once{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b := w.browser(t)
		b.post(t, "enter", url.Values{"link": {link.Secret}}).want(t, http.StatusSeeOther)
		b.get(t, "a/"+account).want(t, http.StatusOK, "Account "+account)
		return b
	}
	moved, mine, later := enter("9"), enter("8"), enter("7")
	unused, err := w.admin.CreatePortalLink(t.Context(), by, "9", admin.Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, `UPDATE walhook.account SET parent = '77' WHERE id = '9'`)
	moved.get(t, "a/9").want(t, http.StatusUnauthorized, "Your session has ended")
	moved.post(t, "enter", url.Values{"link": {unused.Secret}}).want(t, http.StatusForbidden)
	mine.get(t, "a/8").want(t, http.StatusOK)
	if _, err := w.admin.DeleteToken(t.Context(), "7", token.ID); err != nil {
		t.Fatal(err)
	}
	mine.get(t, "a/8").want(t, http.StatusUnauthorized)
	later.get(t, "a/7").want(t, http.StatusUnauthorized)
	if _, err := w.admin.CreatePortalLink(t.Context(), by, "7", admin.Once{}, nil); err == nil {
		t.Error("an ended token made a link")
	}
}

func TestSession_OfAnOperatorEndsWithTheToken(t *testing.T) {
	w := newWorld(t)
	b := w.operator(t)
	b.get(t, "fleet").want(t, http.StatusOK)
	b.get(t, "a/7").want(t, http.StatusOK)
	w.portal.cfg.AdminToken = "another-operator-token"
	b.get(t, "fleet").want(t, http.StatusUnauthorized)
	w.portal.cfg.AdminToken = ""
	b.get(t, "fleet").want(t, http.StatusUnauthorized)
	b.get(t, "operator").want(t, http.StatusOK, "No operator can enter")
	b.post(t, "operator", url.Values{"token": {""}}).want(t, http.StatusForbidden)
}

func TestSession_WorksWithoutAnOperatorsToken(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.AdminToken = "" })
	b := w.session(t, "7")
	b.get(t, "a/7").want(t, http.StatusOK, "Account 7", "There is no webhook yet")
}

func TestSession_EndsWhenItsUserLeaves(t *testing.T) {
	w := newWorld(t)
	b := w.session(t, "7")
	other := w.browser(t)
	at, err := url.Parse(w.url + Prefix)
	if err != nil {
		t.Fatal(err)
	}
	other.client.Jar.SetCookies(at, b.client.Jar.Cookies(at)) // a stolen cookie
	other.get(t, "a/7").want(t, http.StatusOK)
	b.submit(t, "leave", nil).want(t, http.StatusSeeOther)
	other.get(t, "a/7").want(t, http.StatusUnauthorized)
}

func TestEntry_GuessesAreSlowedDown(t *testing.T) {
	w := newWorld(t)
	b := w.browser(t)
	for range entryBurst / 2 {
		b.post(t, "enter", url.Values{"link": {"whlink_guess"}}).want(t, http.StatusForbidden)
		b.post(t, "operator", url.Values{"token": {"guess"}}).want(t, http.StatusForbidden)
	}
	if r := b.post(t, "operator", url.Values{"token": {"guess"}}).want(t, http.StatusTooManyRequests); r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	b.post(t, "enter", url.Values{"link": {"whlink_guess"}}).want(t, http.StatusTooManyRequests)
	// Whoever has a right one shares the address, and enters.
	b.post(t, "enter", url.Values{"link": {w.link(t, "7")}}).want(t, http.StatusSeeOther)
	w.browser(t).post(t, "operator", url.Values{"token": {adminToken}}).want(t, http.StatusSeeOther)
}
