package portal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// hook makes a webhook of an account.
func (w *world) hook(t *testing.T, account string, change ...func(*admin.Webhook)) admin.Webhook {
	t.Helper()
	asked := admin.Webhook{Account: account, Name: "crm", URL: "https://example.com/hook", Enabled: true, HTTPVerb: "post", Hook: admin.HookRecords,
		Delivery: "realtime", DailyZone: "UTC", State: outbox.EndpointActive}
	for _, f := range change {
		f(&asked)
	}
	made, err := w.admin.CreateWebhook(t.Context(), asked, admin.Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// at fills the parameters of a route in.
func at(path, account, webhook string) string {
	return strings.NewReplacer("{account}", account, "{webhook}", webhook, "{event}", "evt_0000000000000001_1", "{replay}", "1", "{schema}", "dids", "{type}", "dids").Replace(path)
}

func (w *world) state(t *testing.T) (text string) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), `SELECT concat((SELECT json_agg(e ORDER BY id) FROM walhook.endpoint e),
		(SELECT json_agg(r) FROM walhook.request r), (SELECT count(*) FROM walhook.portal_link))`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// Every route is tried, so that a new one cannot be forgotten.
func TestTenancy_AnotherAccountIsNotThere(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('9', '7'), ('7', '5')`)
	mine, theirs, below := w.hook(t, "7"), w.hook(t, "70", func(a *admin.Webhook) { a.Name = "hidden-name" }), w.hook(t, "9", func(a *admin.Webhook) { a.Name = "hidden-name" })
	b, stranger := w.session(t, "7"), w.browser(t)
	before := w.state(t)
	if len(w.portal.routes) < 24 {
		t.Fatalf("%d routes", len(w.portal.routes))
	}
	form := func() url.Values {
		return url.Values{"name": {"theft"}, "uri": {"https://thief.example/"}, "since": {"2026-01-01T00:00"}, "sure": {"yes"}, "event": {"evt_0000000000000001_1"}}
	}
	for _, route := range w.portal.routes {
		inside := strings.HasPrefix(route.path, "a/")
		try := func(what string, b *browser, path string, statuses ...int) {
			t.Helper()
			var r page
			if route.method == http.MethodPost && b != stranger {
				r = b.submit(t, path, form())
			} else {
				r = b.do(t, route.method, path, form())
			}
			if !slices.Contains(statuses, r.status) || strings.Contains(r.text, "hidden-name") || aSecret.MatchString(r.text) {
				t.Errorf("%s: %s %s: %d %s", what, route.method, path, r.status, r.text)
			}
		}
		switch {
		case inside:
			try("no session", stranger, at(route.path, "7", mine.ID), http.StatusUnauthorized)
			try("another account", b, at(route.path, "70", theirs.ID), http.StatusNotFound)
			try("another account's own webhook", b, at(route.path, "70", "account"), http.StatusNotFound)
			try("a sub-account", b, at(route.path, "9", below.ID), http.StatusNotFound)
			try("the parent account", b, at(route.path, "5", "account"), http.StatusNotFound)
			try("what cannot be an account", b, at(route.path, "7%00", mine.ID), http.StatusNotFound)
			if strings.Contains(route.path, "{webhook}") {
				try("my account, another's webhook", b, at(route.path, "7", theirs.ID), http.StatusNotFound)
			}
		case slices.Contains([]string{"", "enter", "operator", "leave"}, route.path):
		default:
			try("for operators", b, at(route.path, "7", mine.ID), http.StatusNotFound)
			try("for operators, no session", stranger, at(route.path, "7", mine.ID), http.StatusUnauthorized)
		}
	}
	if after := w.state(t); after != before {
		t.Errorf("somebody got through:\n\t%s\n\t%s", before, after)
	}
	b.get(t, "a/7").want(t, http.StatusOK, "crm")
	w.operator(t).get(t, "a/70").want(t, http.StatusOK, "hidden-name")
}

// A browser holds one session. At an address of another account the page says whose it is,
// whether or not anything is there.
func TestTenancy_TheAddressOfAnotherAccountNamesTheSession(t *testing.T) {
	w := newWorld(t)
	mine, theirs := w.hook(t, "7"), w.hook(t, "70")
	b := w.session(t, "7")
	const says = "This browser is signed in to account 7,"
	there := b.get(t, "a/70/webhooks/"+theirs.ID).want(t, http.StatusNotFound, says)
	for _, path := range []string{"a/70/webhooks/none", "a/none", "a/70/webhooks/" + theirs.ID + "/events", "a/7%00"} {
		if r := b.get(t, path).want(t, http.StatusNotFound, says); r.text != there.text {
			t.Errorf("%s differs from a page that exists: %s", path, r.text)
		}
	}
	if r := b.get(t, "a/7/webhooks/"+theirs.ID).want(t, http.StatusNotFound); strings.Contains(r.text, says) {
		t.Errorf("the session's own account: %s", r.text)
	}
	if r := w.browser(t).get(t, "a/70").want(t, http.StatusUnauthorized); strings.Contains(r.text, "signed in") {
		t.Errorf("without a session: %s", r.text)
	}
	b.get(t, "a/7/webhooks/"+mine.ID).want(t, http.StatusOK)
}

func TestForm_OfAnotherSiteIsRefused(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b, other := w.session(t, "7"), w.session(t, "7")
	tokenOfOther := formTokenField.FindStringSubmatch(other.get(t, "a/7").text)[1]
	before := w.state(t)
	for _, route := range w.portal.routes {
		if route.method != http.MethodPost || route.path == "enter" || route.path == "operator" {
			continue
		}
		path := at(route.path, "7", hook.ID)
		b.post(t, path, url.Values{}).want(t, http.StatusForbidden)
		b.post(t, path, url.Values{"form_token": {"wrong"}}).want(t, http.StatusForbidden)
		b.post(t, path, url.Values{"form_token": {tokenOfOther}}).want(t, http.StatusForbidden)
		mine := formTokenField.FindStringSubmatch(b.get(t, "a/7").text)[1]
		for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
			b.do(t, http.MethodPost, path, url.Values{"form_token": {mine}}, headers...).want(t, http.StatusForbidden)
		}
	}
	if after := w.state(t); after != before {
		t.Errorf("something changed:\n\t%s\n\t%s", before, after)
	}
	// A GET changes nothing either.
	for _, route := range w.portal.routes {
		if route.method == http.MethodGet {
			b.get(t, at(route.path, "7", hook.ID))
		}
	}
	if after := w.state(t); after != before {
		t.Errorf("a GET changed something:\n\t%s\n\t%s", before, after)
	}
}

// aSecret is a signing secret, and not the words about its form.
var aSecret = regexp.MustCompile(`whsec_[A-Za-z0-9+/]{16}`)

const markup = `<script>alert(1)</script><img src=x onerror=alert(2)>"'` + "`"

func TestMarkup_OfOthersIsText(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7", func(a *admin.Webhook) {
		a.Name, a.URL = markup, "https://example.com/"+`"><script>alert(3)</script>`
		custom, _ := json.Marshal(map[string]string{"x": markup})
		a.CustomData = custom
		a.Schemas = []string{markup}
	})
	w.exec(t, `INSERT INTO walhook.attempt (endpoint, event_id, revision, number, outcome, status, reason, detail, duration, at)
		VALUES ($1, 1, 1, 1, 'retry', 500, '5xx', $2, '10 ms', clock_timestamp())`, hook.Endpoint, markup)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, webhook_id, schema, type, record, body, size, committed_at, attempts, reason)
		VALUES ($1, 1, 'evt_0000000000000001_1', $2, $2, $2, convert_to($3, 'UTF8'), 9, clock_timestamp(), 1, $2)`, hook.Endpoint, markup, `{"type":"`+`<script>alert(4)</script>"}`)
	w.answer = outbox.Attempt{Status: 500, Outcome: "retry", Reason: "5xx", Detail: "HTTP 500: " + markup, Number: 1}
	b := w.session(t, "7")
	check := func(what string, r page) {
		t.Helper()
		for _, bad := range []string{"<script>", "<img src=x", "onerror=alert(2)>", `"><script`} {
			if strings.Contains(r.text, bad) {
				t.Errorf("%s shows %s: %s", what, bad, r.text)
			}
		}
	}
	shown := 0
	for _, route := range w.portal.routes {
		if route.method != http.MethodGet {
			continue
		}
		r := b.get(t, at(route.path, "7", hook.ID))
		check(route.path, r)
		if strings.Contains(r.text, "&lt;script&gt;") {
			shown++
		}
	}
	if shown < 4 {
		t.Errorf("only %d pages show the markup", shown)
	}
	check("a test", b.submit(t, "a/7/webhooks/"+hook.ID+"/test", nil).want(t, http.StatusOK, "&lt;script&gt;alert(1)"))
	check("a form", b.submit(t, "a/7/webhooks/"+hook.ID+"/edit", url.Values{"name": {markup}, "uri": {markup}, "custom_data": {markup}, "hook": {markup}}).want(t, http.StatusBadRequest, "&lt;script&gt;"))
	check("a link", b.get(t, "enter?link="+url.QueryEscape(markup)).want(t, http.StatusOK, "&lt;script&gt;"))
	check("a key of what was done", b.get(t, "a/7?done="+url.QueryEscape(markup)))
	check("a search", w.operator(t).get(t, "accounts?q="+url.QueryEscape(markup)).want(t, http.StatusOK, "&lt;script&gt;"))
}

var inline = regexp.MustCompile(`(?i)<script(?: [^>]*)?>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:|<script[^>]+src="(?:https?:)?//|<link[^>]+href="(?:https?:)?//|hx-on`)

func TestPolicy_ForbidsInlineAndForeignCode(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	for who, b := range map[string]*browser{"an account": w.session(t, "7"), "an operator": w.operator(t), "a stranger": w.browser(t)} {
		for _, route := range append(slices.Clone(w.portal.routes), route{"GET", "static/app.css"}, route{"GET", "nothing"}) {
			if route.method != http.MethodGet {
				continue
			}
			r := b.get(t, at(route.path, "7", hook.ID))
			policy := r.header.Get("Content-Security-Policy")
			for _, part := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
				if !strings.Contains(policy, part) {
					t.Errorf("%s: the policy %q lacks %q", route.path, policy, part)
				}
			}
			if strings.Contains(policy, "unsafe") || r.header.Get("X-Content-Type-Options") != "nosniff" || r.header.Get("Referrer-Policy") != "same-origin" {
				t.Errorf("%s: headers %v", route.path, r.header)
			}
			if found := inline.FindString(r.text); found != "" && !strings.HasPrefix(route.path, "static/") {
				t.Errorf("%s, %s has %q", who, route.path, found)
			}
			if len(r.text) > 100<<10 {
				t.Errorf("%s has %d bytes", route.path, len(r.text))
			}
		}
	}
}

// The address of a link's page is sent to its own host at most: the page asks no other host
// for anything, and what it links to is the portal, or gets no referrer.
func TestLink_IsShownToNoOtherHost(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Brand.Support = "https://support.example/help" })
	link := w.link(t, "7")
	r := w.browser(t).get(t, "enter?link="+link).want(t, http.StatusOK, "https://support.example/help")
	if policy := r.header.Get("Referrer-Policy"); policy != "same-origin" {
		t.Errorf("the policy of referrers is %q", policy)
	}
	for _, tag := range regexp.MustCompile(`<[^>]+(?:href|src|srcset|action|hx-get|hx-post)="(?:[a-z]+:)?//[^>]*>`).FindAllString(r.text, -1) {
		if !strings.Contains(tag, `rel="noreferrer noopener"`) {
			t.Errorf("the page of a link has %s", tag)
		}
	}
}

func TestRedirect_LeadsNowhereElse(t *testing.T) {
	w := newWorld(t)
	b := w.browser(t)
	enter := b.post(t, "enter?next=https://evil.example&done=//evil.example", url.Values{"link": {w.link(t, "7")}, "next": {"//evil.example"}, "to": {"https://evil.example"}})
	if to := enter.header.Get("Location"); to != "/portal/a/7" {
		t.Errorf("entering leads to %q", to)
	}
	for _, path := range []string{"/evil.example", "//evil.example/%2e%2e", `\evil.example`, "%5cevil.example", "a//evil.example", "?done=//evil.example"} {
		if to := b.get(t, path).header.Get("Location"); to != "" && !strings.HasPrefix(to, "/portal") {
			t.Errorf("%s leads to %q", path, to)
		}
	}
	evil := w.session(t, "//evil.example")
	if to := evil.get(t, "").header.Get("Location"); to != "/portal/a/%2F%2Fevil.example" {
		t.Errorf("an account with slashes leads to %q", to)
	}
}

func TestHTMX_IsTheFileThatItsReadmeNames(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("static/htmx.min.js")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("static/README.md")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(file)
	if !strings.Contains(string(readme), hex.EncodeToString(sum[:])) {
		t.Errorf("its SHA-256 is %x", sum)
	}
}

func TestSecret_IsShownOnlyWhenAskedFor(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	b := w.session(t, "7")
	for _, route := range w.portal.routes {
		if route.method == http.MethodGet {
			if r := b.get(t, at(route.path, "7", hook.ID)); aSecret.MatchString(r.text) {
				t.Errorf("%s shows a secret", route.path)
			}
		}
	}
	b.submit(t, "a/7/webhooks/"+hook.ID+"/secret", nil).want(t, http.StatusOK, "whsec_")
	b.submit(t, "a/7/webhooks/"+hook.ID+"/rotate", url.Values{"overlap_seconds": {"3600"}}).want(t, http.StatusOK, "whsec_", "until")
	found := false
	for _, entry := range w.logs.FilterMessage("audit").All() {
		found = found || entry.ContextMap()["action"] == "secret read" && strings.HasPrefix(entry.ContextMap()["who"].(string), "portal session ")
	}
	if !found {
		t.Error("the audit does not say who read the secret")
	}
}
