package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const adminToken = "operator-token-of-the-tests"

// world is the API over an outbox of its own.
type world struct {
	url         string
	db          *pgtest.DB
	handler     http.Handler
	conn        *pgx.Conn
	admin       *admin.Admin
	store       *outbox.Store
	feeds       *Feeds
	stop        func() // ends the feeds
	destination *fixedDestination
	// publisherKnows is the revision of a webhook with which events are appended; 0 for the
	// present one.
	publisherKnows int64
	// withAppend is a statement that is committed with what is appended next.
	withAppend string
	api        *subscriptions
	logs       *observer.ObservedLogs
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	t.Parallel()
	return newWorldIn(t, pgtest.Database(t), change...)
}

func newWorldIn(t *testing.T, db *pgtest.DB, change ...func(*Config)) *world {
	t.Helper()
	return newWorldChecking(t, db, 50*time.Millisecond, change...)
}

// newWorldChecking looks at the readers of feeds after each interval.
func newWorldChecking(t *testing.T, db *pgtest.DB, every time.Duration, change ...func(*Config)) *world {
	t.Helper()
	if err := outbox.Migrate(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	w := &world{db: db, conn: db.Connect(t), destination: &fixedDestination{}, logs: logs}
	store, err := outbox.Open(t.Context(), outbox.Config{URL: db.URL}, zap.New(core), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.admin = admin.New(store)
	w.feeds = NewFeeds(store, zap.New(core), nil)
	w.feeds.checkEvery, w.feeds.writeTimeout = every, 500*time.Millisecond
	ran := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() { ran <- w.feeds.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	w.stop, w.store = stop, store
	w.url = w.serve(t, zap.New(core), change...)
	return w
}

var testOffer = &Offer{
	Hooks:   []Hook{{"channel_create", "json"}, {"channel_destroy", ""}, {"InboundCall", "form"}, {"notifications", "json"}, {"object", "json"}},
	Schemas: []string{"dids", "users"}, EventTypes: catalog.Carrier().EventTypes,
}

func always(offer *Offer) func(context.Context) *Offer {
	return func(context.Context) *Offer { return offer }
}

func (w *world) serve(t *testing.T, log *zap.Logger, change ...func(*Config)) string {
	t.Helper()
	cfg := Config{Admin: w.admin, Destination: w.destination, Feeds: w.feeds, AdminToken: adminToken, Offer: always(testOffer), Version: "test", PortalURL: "https://portal.example/portal/"}
	for _, f := range change {
		f(&cfg)
	}
	api, handler, err := newSubscriptions(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	w.api, w.handler = api, handler
	server := httptest.NewServer(Handler(nil, prometheus.NewRegistry(), handler))
	t.Cleanup(server.Close)
	return server.URL
}

// fixedDestination refuses the hosts that are named so. What real ones make of
// addresses is tested where they are, and end to end by internal/endtoend.
type fixedDestination struct {
	tried []outbox.Event

	mu         sync.Mutex
	signedWith map[string]string // by webhook-id; guarded by mu
	unreadable atomic.Bool       // no secret can be read
}

type blockedHost struct{}

func (blockedHost) Error() string       { return "address 10.0.0.1 is not public" }
func (blockedHost) BlockedHost() string { return "the host leads to an address that is not public" }

func (c *fixedDestination) CheckHost(url string) error {
	if strings.Contains(url, "blocked.example") {
		return blockedHost{}
	}
	return nil
}

func (c *fixedDestination) Render(_ outbox.Endpoint, e outbox.Event) (outbox.Rendered, error) {
	return outbox.Rendered{Method: "POST", ContentType: "application/json", UserAgent: "walhook/test", Body: e.Body}, nil
}

func (c *fixedDestination) CheckSecret(outbox.Endpoint) error {
	if c.unreadable.Load() {
		return errors.New("no secret can be read")
	}
	return nil
}

func (c *fixedDestination) Sign(p outbox.Endpoint, e outbox.Event, at time.Time) (outbox.Rendered, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.signedWith == nil {
		c.signedWith = map[string]string{}
	}
	c.signedWith[e.WebhookID] = p.Secrets[0]
	return outbox.Rendered{Method: "POST", ContentType: "application/json", UserAgent: "walhook/test", Body: e.Body,
		Timestamp: strconv.FormatInt(at.Unix(), 10), Signature: "v1," + e.WebhookID}, nil
}

func (c *fixedDestination) Try(_ context.Context, _ outbox.Endpoint, e outbox.Event) outbox.Attempt {
	c.tried = append(c.tried, e)
	return outbox.Attempt{Status: 200, Outcome: "delivered", Reason: "2xx", Number: 1}
}

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func (r reply) data(t *testing.T) map[string]any {
	t.Helper()
	data, ok := r.body["data"].(map[string]any)
	if !ok {
		t.Fatalf("no data: %d %s", r.status, r.text)
	}
	return data
}

func (r reply) list(t *testing.T) []map[string]any {
	t.Helper()
	data, ok := r.body["data"].([]any)
	if !ok {
		t.Fatalf("no list: %d %s", r.status, r.text)
	}
	var list []map[string]any
	for _, one := range data {
		list = append(list, one.(map[string]any))
	}
	return list
}

// call sends a request with a token, and a JSON body where there is one.
func (w *world) call(t *testing.T, token, method, path, body string, headers ...string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("X-Auth-Token", token)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Del(headers[i])
		if headers[i+1] != "" {
			request.Header.Set(headers[i], headers[i+1])
		}
	}
	return send(t, request)
}

func send(t *testing.T, request *http.Request) reply {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: response.StatusCode, header: response.Header, text: string(text)}
	if bytes.HasPrefix(text, []byte("{")) {
		if err := json.Unmarshal(text, &r.body); err != nil {
			t.Fatalf("answer %s: %v", text, err)
		}
	}
	return r
}

// want calls and wants a status.
func (w *world) want(t *testing.T, status int, token, method, path, body string, headers ...string) reply {
	t.Helper()
	r := w.call(t, token, method, path, body, headers...)
	if r.status != status {
		t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, r.status, r.text, status)
	}
	return r
}

// token makes a token of an account.
func (w *world) token(t *testing.T, account, body string) string {
	t.Helper()
	r := w.want(t, http.StatusCreated, adminToken, http.MethodPut, "/v2/accounts/"+account+"/tokens", body)
	token, _ := r.data(t)["token"].(string)
	if !strings.HasPrefix(token, "whtok_") {
		t.Fatalf("no token: %s", r.text)
	}
	return token
}

// webhook makes a webhook and says its id.
func (w *world) webhook(t *testing.T, token, account, fields string) string {
	t.Helper()
	r := w.want(t, http.StatusCreated, token, http.MethodPut, "/v2/accounts/"+account+"/webhooks", `{"data":{"name":"n","uri":"https://example.com/hook"`+fields+`}}`)
	return r.data(t)["id"].(string)
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func one[T any](t *testing.T, w *world, sql string, args ...any) (value T) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}
