package portal

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

// An operator sees who did what, filtered and page by page; what others wrote is text.
func TestAudit_ShowsWhoDidWhat(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	b.submit(t, "a/7/webhooks/"+hook.ID+"/rotate", url.Values{"overlap": {"3600"}}).want(t, http.StatusOK)
	o := w.operator(t)
	page := o.get(t, "audit").want(t, http.StatusOK, "webhook created", "secret rotated", "portal entered", `href="/portal/a/7/webhooks/`+hook.ID)
	if strings.Contains(page.text, "whsec_") {
		t.Error("the page shows a secret")
	}
	if !regexp.MustCompile(`>portal session [0-9a-f]{16}<`).MatchString(page.text) || !regexp.MustCompile(`>operator, portal session [0-9a-f]{16}<`).MatchString(page.text) {
		t.Errorf("the page does not name the sessions: %s", page.text)
	}
	if r := o.get(t, "audit?action=secret+rotated").want(t, http.StatusOK, ">secret rotated</td>"); strings.Contains(r.text, ">webhook created</td>") {
		t.Error("the filter lets another action pass")
	}
	o.get(t, "audit?account=8").want(t, http.StatusOK, "Nothing is in the audit")
	for _, wrong := range []string{"account=%00", "account=%ff", "from=x", "since=yesterday", "action=nope", "since=2026-11-30T11:45&until=2026-11-30T11:40", "since=2026-11-30T11:45&until=2026-11-30T11:45"} { // not the whole list instead
		o.get(t, "audit?"+wrong).want(t, http.StatusBadRequest, "Nothing is shown, because the filter is wrong.")
	}
	o.get(t, "audit?action=nope").want(t, http.StatusBadRequest, `<p class="fault" id="action-fault">There is no such action.`)
	o.get(t, "audit?since=2026-11-30T11:45&until=2026-11-30T11:40").want(t, http.StatusBadRequest, `<p class="fault" id="until-fault">This is not after Since`)
	o.get(t, "accounts?q=%00%ff").want(t, http.StatusOK)

	w.exec(t, `INSERT INTO walhook.audit (actor, action, account, webhook, request_id, detail) VALUES ($1, $1, $1, $1, $1, $1)`, markup)
	r := o.get(t, "audit").want(t, http.StatusOK, "&lt;script&gt;alert(1)")
	if strings.Contains(r.text, "<script>") || strings.Contains(r.text, "<img src=x") || strings.Contains(r.text, `"><`+"script") {
		t.Errorf("the page has markup of others: %s", r.text)
	}
	o.get(t, "audit?actor="+url.QueryEscape(markup)).want(t, http.StatusOK, "&lt;script&gt;alert(1)")

	for n := range 2 * auditRows {
		if err := w.admin.Audit(admin.WithActor(t.Context(), admin.Actor{Name: "many"}), admin.Act{Action: admin.ActSetup, Detail: fmt.Sprint("line ", n)}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	next := "audit?actor=many"
	for range 3 {
		r := o.get(t, next)
		for _, line := range regexp.MustCompile(`>(line \d+)<`).FindAllStringSubmatch(r.text, -1) {
			seen[line[1]] = true
		}
		found := regexp.MustCompile(`href="/portal/(audit\?[^"]+)">`).FindStringSubmatch(r.text)
		if found == nil {
			break
		}
		next = strings.ReplaceAll(found[1], "&amp;", "&")
	}
	if len(seen) != 2*auditRows {
		t.Errorf("in pages there are %d lines, want %d", len(seen), 2*auditRows)
	}
}
