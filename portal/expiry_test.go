package portal

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"walhook/outbox/admin"
)

// A link lives for 15 minutes and opens once; afterwards it says why, whoever uses it.
func TestLink_ExpiresAndOpensOnce(t *testing.T) {
	w := newWorld(t)
	made, err := w.admin.CreatePortalLink(t.Context(), admin.Caller{}, "7", admin.Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if life := time.Until(made.ExpiresAt); life > 15*time.Minute+time.Second || life < 10*time.Minute {
		t.Errorf("a link lives for %s", life)
	}
	const words = "This link has been used, has expired, or is incomplete. A link opens once, within 15 minutes."
	used := w.link(t, "7")
	w.browser(t).post(t, "enter", url.Values{"link": {used}}).want(t, http.StatusSeeOther)
	for range 2 { // by its user, or by whoever has found it
		w.browser(t).post(t, "enter", url.Values{"link": {used}}).want(t, http.StatusForbidden, words)
	}
	old := w.link(t, "7")
	w.exec(t, `UPDATE walhook.portal_link SET expires_at = expires_at - interval '15 minutes' WHERE used_at IS NULL`)
	w.browser(t).post(t, "enter", url.Values{"link": {old}}).want(t, http.StatusForbidden, words)
	for _, link := range []string{"", old[:len(old)-1], old + "x", "whlink_", "7"} {
		w.browser(t).post(t, "enter", url.Values{"link": {link}}).want(t, http.StatusForbidden, words)
	}
	if r := w.browser(t).post(t, "enter", url.Values{"link": {old}}); r.header.Get("Set-Cookie") != "" {
		t.Errorf("an expired link gave a cookie: %v", r.header)
	}
}

// A session of an account and one of an operator end after 12 hours: their pages lead to
// the words that say how to get another, and their forms change nothing.
func TestSession_EndsByItsTime(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	var longest, shortest float64
	account, operator := w.session(t, "7"), w.operator(t)
	if err := w.conn.QueryRow(t.Context(), `SELECT max(extract(epoch FROM expires_at - clock_timestamp())), min(extract(epoch FROM expires_at - clock_timestamp())) FROM walhook.portal_session`).Scan(&longest, &shortest); err != nil {
		t.Fatal(err)
	}
	if most := (12 * time.Hour).Seconds(); longest > most || shortest < most-300 {
		t.Errorf("sessions last %.0f to %.0f s, want %.0f", shortest, longest, most)
	}
	token := formTokenField.FindStringSubmatch(account.get(t, "a/7").want(t, http.StatusOK).text)[1]
	operator.get(t, "fleet").want(t, http.StatusOK)
	before := w.state(t)
	w.exec(t, `UPDATE walhook.portal_session SET expires_at = expires_at - interval '12 hours'`)
	const words = "Your session has ended. Ask for another link"
	account.get(t, "a/7").want(t, http.StatusUnauthorized, words)
	account.post(t, "a/7/webhooks/"+hook.ID+"/delete", url.Values{"form_token": {token}}).want(t, http.StatusUnauthorized, words)
	operator.get(t, "fleet").want(t, http.StatusUnauthorized, words)
	operator.get(t, "a/7").want(t, http.StatusUnauthorized, words)
	if after := w.state(t); after != before {
		t.Errorf("an ended session changed something:\n\t%s\n\t%s", before, after)
	}
}
