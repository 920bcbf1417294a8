package endtoend

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// operatorWorld is a walhook whose accounts have no URL, unless a test sets one. It allows
// no private network.
type operatorWorld struct {
	db      *pgtest.DB
	address string
	process *childProcess
	run     []string // the command of process
}

const feedOperator = "the operator of the feeds' test"

func newOperatorWorld(t *testing.T, flags ...string) *operatorWorld {
	t.Helper()
	w := &operatorWorld{db: pgtest.Database(t), address: loopback.Address(t)}
	w.db.Exec(t, carrier.Tables)
	w.db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'seven'), (8, 'eight'), (9, 'nine')`)
	w.run = append([]string{"run", "--source", w.db.URL, "--slot", "feeds_" + w.db.Name, "--setup", "--listen", w.address,
		"--admin-token", feedOperator, "--retry-schedule", "100ms,100ms,100ms,1h"}, flags...)
	w.start(t)
	return w
}

func (w *operatorWorld) start(t *testing.T) {
	t.Helper()
	w.process = startChild(t, w.run...)
	awaitReady(t, w.address)
}

func (w *operatorWorld) feeds(t *testing.T, args ...string) string {
	t.Helper()
	return mustRun(t, append([]string{"feeds"}, append(args, "--outbox", w.db.URL)...)...)
}

// feed is what 'feeds show' says of a feed.
func (w *operatorWorld) feed(t *testing.T, name string) map[string]any {
	t.Helper()
	var shown map[string]any
	if err := json.Unmarshal([]byte(w.feeds(t, "show", name, "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	return shown
}

// feedReceiver keeps what a feed over HTTP gets.
type feedReceiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	got    []string // account, type and body, in the order of arrival
	header []http.Header
	bodies [][]byte
}

func newFeedReceiver(t *testing.T) *feedReceiver {
	r := &feedReceiver{status: 200}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.status == 200 {
			r.got = append(r.got, request.Header.Get("walhook-account")+" "+string(body))
			r.header, r.bodies = append(r.header, request.Header), append(r.bodies, body)
		}
		w.WriteHeader(r.status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *feedReceiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *feedReceiver) arrivals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// want waits for arrivals from the n-th on, each of which begins as given, in any order.
func (r *feedReceiver) want(t *testing.T, from int, prefixes ...string) {
	t.Helper()
	eventually(t, patience, func() bool { return len(r.arrivals()) >= from+len(prefixes) })
	got := r.arrivals()[from:]
	for _, prefix := range prefixes {
		if !slices.ContainsFunc(got, func(one string) bool { return strings.HasPrefix(one, prefix) }) {
			t.Errorf("%s did not arrive: %q", prefix, got)
		}
	}
	if len(got) != len(prefixes) {
		t.Errorf("%d arrived, want %d: %q", len(got), len(prefixes), got)
	}
}

// A feed gets the events of every account, signed, with the account beside them, whether the
// account has an endpoint or not. It may be in a private network. No account sees it.
func TestOperatorFeed_GetsEveryAccountsEvents(t *testing.T) {
	t.Parallel()
	w := newOperatorWorld(t)
	receiver := newFeedReceiver(t)
	w.feeds(t, "add", "billing", "--url", receiver.URL+"/in")
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '71'), (2, 8, '81')`)
	w.db.Exec(t, `UPDATE dids SET user_id = 8 WHERE id = 1`) // a move
	w.db.Exec(t, `INSERT INTO async_results (user_id, schema, type, status) VALUES (9, 'sms_enablement', 'update', 'done')`)
	receiver.want(t, 0,
		`7 {"type":"insert","schema":"dids","data":"{\"id\":1,`, `8 {"type":"insert","schema":"dids","data":"{\"id\":2,`,
		`7 {"type":"delete","schema":"dids","data":"{\"id\":1,`, `8 {"type":"insert","schema":"dids","data":"{\"id\":1,`,
		`9 {"type":"update","schema":"sms_enablement","status":"done","verbose":""}`)
	var of1 []string
	for _, one := range receiver.arrivals() {
		if strings.Contains(one, `{\"id\":1,`) {
			of1 = append(of1, one[:strings.Index(one, `,"schema"`)])
		}
	}
	if want := []string{`7 {"type":"insert"`, `7 {"type":"delete"`, `8 {"type":"insert"`}; !slices.Equal(of1, want) {
		t.Errorf("the record arrived as %q, want %q", of1, want)
	}

	secret := w.feeds(t, "secret", "billing")
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	receiver.mu.Lock()
	for i := range receiver.bodies {
		if err := verifier.Verify(receiver.bodies[i], receiver.header[i]); err != nil {
			t.Errorf("%s: %v", receiver.bodies[i], err)
		}
	}
	receiver.mu.Unlock()

	// What a URL of an account holds is the account's alone.
	w.db.Exec(t, `UPDATE users SET web_hook_url = 'https://me:mine@h.example/in?key=mine' WHERE id = 9`)
	eventually(t, patience, func() bool { return len(receiver.arrivals()) >= 6 })
	if last := receiver.arrivals()[5]; strings.Contains(last, "mine") || !strings.HasPrefix(last, `9 {"type":"update","schema":"users"`) {
		t.Errorf("the feed got %s", last)
	}

	// An account's own URL is not allowed there; the feed's is.
	w.db.Exec(t, fmt.Sprintf(`UPDATE users SET web_hook_url = '%s/in' WHERE id = 8`, receiver.URL))
	eventually(t, patience, func() bool { return len(receiver.arrivals()) >= 7 })
	eventually(t, patience, func() bool {
		return strings.Contains(mustRun(t, "endpoints", "--json", "--outbox", w.db.URL), `"state": "unusable"`)
	})

	// Nobody but an operator sees it.
	id, _ := w.feed(t, "billing")["webhook"].(string)
	for _, account := range []string{"7", "8", "9"} {
		api := apiClient{"http://" + w.address + "/v2/accounts/" + account, feedOperator}
		token := data(t, api.call(t, 201, "PUT", "/tokens", `{"data":{}}`))["token"].(string)
		api.token = token
		for path, status := range map[string]int{"/webhooks/" + id: 404, "/webhooks/" + id + "/events": 404, "/webhooks/" + id + "/secret": 404, "/webhooks/" + id + "/attempts": 404, "/webhooks": 200, "/webhooks/attempts": 200, "/webhooks/dead": 200} {
			if answer := fmt.Sprint(api.call(t, status, "GET", path, "")); status == 200 && strings.Contains(answer, id) {
				t.Errorf("account %s, GET %s: %s", account, path, answer)
			}
		}
	}
	for _, path := range []string{"/v2/accounts//webhooks", "/v2/accounts/%20/webhooks/" + id, "/v2/accounts/./webhooks/" + id} {
		request, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+w.address+path, nil)
		request.Header.Set("X-Auth-Token", feedOperator)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if strings.Contains(string(body), "billing") {
			t.Errorf("GET %s: %d %s", path, response.StatusCode, body)
		}
	}
}

// A feed's filters, its retries, dead letters and replay are those of every endpoint; it is
// held while disabled, and gets nothing once it is removed. The end of all accounts does not
// end it.
func TestOperatorFeed_IsAnEndpointLikeAnyOther(t *testing.T) {
	t.Parallel()
	w := newOperatorWorld(t)
	all, some := newFeedReceiver(t), newFeedReceiver(t)
	w.feeds(t, "add", "all", "--url", all.URL, "--hook", "all")
	w.feeds(t, "add", "some", "--url", some.URL, "--schemas", "dids,e911", "--types", "insert")
	if out, err := walhook(t, "feeds", "add", "all", "--url", all.URL, "--outbox", w.db.URL); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a second feed of a name: %s %v", out, err)
	}
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '71')`)
	w.db.Exec(t, `UPDATE dids SET number = '72' WHERE id = 1`)
	w.db.Exec(t, `INSERT INTO call_flows (id, user_id, flow_name) VALUES (1, 8, 'f')`)
	some.want(t, 0, `7 {"type":"insert","schema":"dids"`)
	all.want(t, 0, `7 {"type":"insert","schema":"dids"`, `7 {"type":"update","schema":"dids"`, `8 {"type":"insert","schema":"call_flows"`,
		`7 {"hook_event":"object"`, `7 {"hook_event":"object"`, `8 {"hook_event":"object"`, `7 {"account_id":7,"event_object":"customer"`)

	// A failing receiver: what comes later waits behind it, and nothing is lost.
	some.answer(500)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (2, 9, '91')`)
	eventually(t, patience, func() bool { n, _ := w.feed(t, "some")["retries"].(float64); return n > 0 })
	some.answer(200)
	some.want(t, 1, `9 {"type":"insert","schema":"dids"`)

	// Held, then sent; and sent again, with its account.
	w.feeds(t, "disable", "some", "--reason", "the test")
	eventually(t, patience, func() bool { // it reaches a sender of another process within about half a second
		return strings.Contains(w.process.log(), `"state":"disabled","reason":"the test"`)
	})
	if state := w.feed(t, "some")["state"]; state != "disabled" {
		t.Errorf("disabled, its state is %v", state)
	}
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (3, 8, '83')`)
	eventually(t, patience, func() bool { // once the other has it, this one would
		return slices.ContainsFunc(all.arrivals(), func(one string) bool { return strings.HasPrefix(one, `8 {"type":"insert","schema":"dids"`) })
	})
	if got := some.arrivals(); len(got) != 2 {
		t.Errorf("disabled, it got %q", got)
	}
	w.feeds(t, "enable", "some")
	some.want(t, 2, `8 {"type":"insert","schema":"dids"`)
	mustRun(t, "replay", "--endpoint", fmt.Sprint(w.feed(t, "some")["endpoint"]), "--since", "1h", "--outbox", w.db.URL)
	some.want(t, 3, `7 {"type":"insert","schema":"dids"`, `9 {"type":"insert","schema":"dids"`, `8 {"type":"insert","schema":"dids"`)

	w.feeds(t, "change", "some", "--types", "all", "--schemas", "users")
	w.db.Exec(t, `TRUNCATE users CASCADE`)
	w.db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'another')`)
	some.want(t, 6, `7 {"type":"insert","schema":"users"`)
	if ended := w.feed(t, "some")["ended_at"]; ended != nil {
		t.Errorf("it ended with the accounts, at %v", ended)
	}
	w.feeds(t, "remove", "some")
	if shown := w.feeds(t); strings.Contains(shown, "some") || !strings.Contains(shown, "all") {
		t.Errorf("feeds lists\n%s", shown)
	}
	w.db.Exec(t, `INSERT INTO users (id, username) VALUES (10, 'ten')`)
	eventually(t, patience, func() bool { // once the other has it, this one would
		return slices.ContainsFunc(all.arrivals(), func(one string) bool { return strings.HasPrefix(one, `10 {"type":"insert","schema":"users"`) })
	})
	if got := some.arrivals(); len(got) != 7 {
		t.Errorf("removed, it got %q", got[7:])
	}
	// The name is free again.
	w.feeds(t, "add", "some", "--url", some.URL)
}
