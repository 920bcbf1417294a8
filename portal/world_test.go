package portal

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walhook/api"
	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const adminToken = "operator-token-of-the-tests"

// world is the portal over the API over an outbox of its own.
type world struct {
	url    string
	conn   *pgx.Conn
	admin  *admin.Admin
	portal *Portal
	logs   *observer.ObservedLogs
	answer outbox.Attempt // to every test event
	tried  []outbox.Event // the test events
	batch  string         // the webhook-id of each batch that is rendered; "" for none
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	t.Parallel()
	db := pgtest.Database(t)
	if err := outbox.Migrate(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	log := zap.New(core)
	store, err := outbox.Open(t.Context(), outbox.Config{URL: db.URL}, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w := &world{conn: db.Connect(t), admin: admin.New(store), logs: logs, answer: outbox.Attempt{Status: 200, Outcome: "delivered", Reason: "2xx", Number: 1}}
	offer := &api.Offer{Hooks: []api.Hook{{Name: "channel_create", Format: "json"}}, Schemas: []string{"dids", "users"}, EventTypes: catalog.Carrier().EventTypes}
	always := func(context.Context) *api.Offer { return offer }
	server := httptest.NewUnstartedServer(nil)
	w.url = "http://" + server.Listener.Addr().String()
	address, err := url.Parse(w.url + Prefix)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Admin: w.admin, AdminToken: adminToken, URL: address, Offer: always, Version: "test", Reasons: map[string]string{"5xx": "your server has an error"}, Causes: map[string]string{"5xx": "the receiver has an error"},
		Client: func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.1") }}
	catalogs := store.FollowCatalog(catalog.Carrier())
	cfg.Brands = func(ctx context.Context, account string) ([]admin.AccountBrand, error) {
		return w.admin.Brands(ctx, catalogs, account)
	}
	for _, f := range change {
		f(&cfg)
	}
	subscriptions, err := api.Subscriptions(api.Config{Admin: w.admin, Destination: w, Feeds: api.NewFeeds(store, log, nil), AdminToken: cfg.AdminToken, Offer: always, Version: "test", PortalURL: address.String()}, log)
	if err != nil {
		t.Fatal(err)
	}
	cfg.API = subscriptions
	if w.portal, err = New(cfg, log); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(Prefix, w.portal)
	mux.Handle("/v2/", subscriptions)
	server.Config.Handler = mux
	server.Start()
	t.Cleanup(server.Close)
	return w
}

func (w *world) CheckHost(string) error { return nil }

func (w *world) CheckSecret(outbox.Endpoint) error { return nil }

func (w *world) Render(_ outbox.Endpoint, e outbox.Event) (outbox.Rendered, error) {
	sent := outbox.Rendered{Method: http.MethodPost, ContentType: "application/json", UserAgent: "walhook/test", Body: e.Body}
	if w.batch != "" {
		sent.ID, sent.EventIDs = w.batch, e.WebhookID
	}
	return sent, nil
}

func (w *world) Sign(e outbox.Endpoint, event outbox.Event, _ time.Time) (outbox.Rendered, error) {
	return w.Render(e, event)
}

func (w *world) Try(_ context.Context, _ outbox.Endpoint, e outbox.Event) outbox.Attempt {
	w.tried = append(w.tried, e)
	return w.answer
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// browser keeps cookies and follows no redirect.
type browser struct {
	*world
	client *http.Client
}

func (w *world) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{w, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// link makes a one-time link as an operator.
func (w *world) link(t *testing.T, account string) string {
	t.Helper()
	made, err := w.admin.CreatePortalLink(t.Context(), admin.Caller{}, account, admin.Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made.Secret
}

// session is a browser inside of an account.
func (w *world) session(t *testing.T, account string) *browser {
	t.Helper()
	b := w.browser(t)
	if r := b.post(t, "enter", url.Values{"link": {w.link(t, account)}}); r.status != http.StatusSeeOther {
		t.Fatalf("not entered: %d %s", r.status, r.text)
	}
	return b
}

// operator is a browser of an operator.
func (w *world) operator(t *testing.T) *browser {
	t.Helper()
	b := w.browser(t)
	if r := b.post(t, "operator", url.Values{"token": {adminToken}}); r.status != http.StatusSeeOther {
		t.Fatalf("not entered: %d %s", r.status, r.text)
	}
	return b
}

type page struct {
	status int
	header http.Header
	text   string
}

func (b *browser) do(t *testing.T, method, path string, form url.Values, headers ...string) page {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, b.url+Prefix+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := b.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{response.StatusCode, response.Header, string(text)}
}

func (b *browser) get(t *testing.T, path string) page { return b.do(t, http.MethodGet, path, nil) }

// post sends a form without the session's token.
func (b *browser) post(t *testing.T, path string, form url.Values) page {
	return b.do(t, http.MethodPost, path, form)
}

var formTokenField = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

// submit sends a form as the browser would, with the token of the page that shows it.
func (b *browser) submit(t *testing.T, path string, form url.Values) page {
	t.Helper()
	found := formTokenField.FindStringSubmatch(b.get(t, "a/none").text)
	if found == nil {
		found = formTokenField.FindStringSubmatch(b.get(t, "nothing-here-but-the-frame").text)
	}
	if found == nil {
		t.Fatal("no page has a form")
	}
	if form == nil {
		form = url.Values{}
	}
	form.Set("form_token", found[1])
	return b.post(t, path, form)
}

func (p page) want(t *testing.T, status int, parts ...string) page {
	t.Helper()
	if p.status != status {
		t.Fatalf("%d, want %d: %s", p.status, status, p.text)
	}
	for _, part := range parts {
		if !strings.Contains(p.text, part) {
			t.Errorf("the page lacks %q: %s", part, p.text)
		}
	}
	return p
}
