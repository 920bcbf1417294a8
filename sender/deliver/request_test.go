package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/outbox"
	"walhook/outbox/address"
)

// Both clients write the same bytes for a request over HTTP/1.1.
func TestAttempt_WritesWhatNetHTTPWouldWrite(t *testing.T) {
	c := testHTTP(t)
	for _, address := range []string{
		"http://example.com", "http://example.com/", "http://example.com/hook?a=1&b=%20#fragment", "https://user:pa%20ss@example.com:8443/x%2Fy",
		"http://[::1]:8080/?", "http://bücher.example/ü", "http://example.com//two", "http://user@example.com?q",
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodGet} {
			for _, body := range []string{"", `{"type":"insert"}`} {
				t.Run(fmt.Sprintf("%s %s %d", method, address, len(body)), func(t *testing.T) {
					to, err := newTarget(&outbox.Endpoint{ID: 1, URL: address, Secrets: []string{secretA}}, c.targets.userAgent)
					if err != nil {
						t.Fatal(err)
					}
					x := &attempt{http: c, target: to, timestamp: "1700000000", signature: "v1,x"}
					x.peer = to.peer
					x.sent = namedRequest{id: "evt_1", request: request{method: method, contentType: typeForm, body: []byte(body)}}
					if method == http.MethodGet {
						x.sent.request = request{method: method, query: body}
					}
					if method == http.MethodPut {
						x.sent.eventIDs = "evt_1,evt_2"
					}
					var want bytes.Buffer
					req := x.request()
					if req.ContentLength == 0 {
						req.Body = nil
					}
					if err := req.Write(&want); err != nil {
						t.Fatal(err)
					}
					got, err := x.appendHead(nil)
					if err != nil {
						t.Fatal(err)
					}
					if got = append(got, x.sent.body...); !bytes.Equal(got, want.Bytes()) {
						t.Errorf("wrote\n%s\nwant\n%s", got, want.Bytes())
					}
				})
			}
		}
	}
}

func TestTargets_FollowTheEndpoint(t *testing.T) {
	kept := targets{userAgent: "walhook/test"}
	e := outbox.Endpoint{ID: 1, URL: "https://a.example/", Secrets: []string{secretA}}
	get := func() *target {
		t.Helper()
		got, err := kept.of(&e)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := get()
	if get() != first {
		t.Error("a target is made anew although nothing changed")
	}
	e.Secrets = []string{secretB, secretA}
	second := get()
	if second == first || len(second.signer.macs) != 2 {
		t.Error("a rotated secret does not sign")
	}
	e.URL = "https://b.example/"
	if third := get(); third.peer.address != "b.example:443" {
		t.Errorf("a new URL goes to %s", third.peer.address)
	}
	for e.ID = range int64(3 * mostTargets) {
		get()
	}
	if len(kept.kept) > mostTargets {
		t.Errorf("%d targets are kept, want at most %d", len(kept.kept), mostTargets)
	}
}

// The context of an attempt that has ended may cut its connection late, and so during the
// next attempt.
func TestConn_IsNotKeptPastTheEndOfItsContext(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	c := testHTTP(t)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	for i, want := range []int32{1, 1, 2, 2} {
		if i == 2 {
			end()
			ctx = t.Context()
		}
		if a := c.deliver(ctx, testEndpoint(server.URL), testEvent, time.Now()); a.status != 200 {
			t.Fatalf("attempt %d: %+v", i+1, a)
		}
		if n := connections.Load(); n != want {
			t.Errorf("%d connections after attempt %d, want %d", n, i+1, want)
		}
	}
}

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_c2Vjb25kLXNlY3JldC1vZi10aGUtdGVzdA=="
)

func TestSign_IsVerifiedByTheOfficialLibrary(t *testing.T) {
	body := []byte(`{"type":"update","schema":"dids","data":"{\"id\":42}"}`)
	at := time.Now()
	signer, err := newSigner([]string{secretA, secretB})
	if err != nil {
		t.Fatal(err)
	}
	signer.sign("evt_1_0", "1", []byte("what was signed before leaves no trace"))
	header := signer.sign("evt_1_1", strconv.FormatInt(at.Unix(), 10), body)
	if parts := strings.Split(header, " "); len(parts) != 2 {
		t.Fatalf("signature %q: want one per secret, separated by a space", header)
	}
	for _, secret := range []string{secretA, secretB} {
		official, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		headers := http.Header{}
		headers.Set("webhook-id", "evt_1_1")
		headers.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
		headers.Set("webhook-signature", header)
		if err := official.Verify(body, headers); err != nil {
			t.Errorf("verify: %v", err)
		}
		if err := official.Verify(append(body, ' '), headers); err == nil {
			t.Error("another body is verified too")
		}
	}
}

func TestSign_RefusesSecretsThatItCannotUseWithoutShowingThem(t *testing.T) {
	for name, secrets := range map[string][]string{
		"none":      nil,
		"no prefix": {"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
		"no base64": {"whsec_%%%"},
		"empty":     {"whsec_"},
		"second":    {secretA, "hunter2"},
	} {
		_, err := newSigner(secrets)
		if !errors.Is(err, errSecret) {
			t.Errorf("%s: error %v, want errSecret", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

const (
	recordBody = `{"type":"update","schema":"dids","data":"{\"id\":42,\"price\":1.50}"}`
	callBody   = `{"hook_event":"channel_create","account_id":"a b","timestamp":63557035175,"extra":{"x":[1]},"nothing":null}`
)

func recordEvent() *outbox.Event {
	return &outbox.Event{WebhookID: "evt_1_1", Schema: "dids", Type: "update", Body: []byte(recordBody)}
}

func callEvent(format string) *outbox.Event {
	return &outbox.Event{WebhookID: "evt_1_1", Schema: "channel_create", Type: "event", Format: format, Body: []byte(callBody)}
}

func TestRender(t *testing.T) {
	custom := []byte(`{"account_id":"crm","screen_pop":true}`)
	const callForm = "hook_event=channel_create&account_id=a+b&timestamp=63557035175&extra=%7B%22x%22%3A%5B1%5D%7D&nothing="
	const recordForm = "type=update&schema=dids&data=%7B%22id%22%3A42%2C%22price%22%3A1.50%7D"
	const merged = `{"hook_event":"channel_create","account_id":"crm","timestamp":63557035175,"extra":{"x":[1]},"nothing":null,"screen_pop":true}`
	for _, test := range []struct {
		name     string
		settings *outbox.EndpointSettings
		event    *outbox.Event
		want     request
	}{
		{"a record, plainly", nil, recordEvent(), request{"POST", typeJSON, []byte(recordBody), ""}},
		{"a record, only its retries set", &outbox.EndpointSettings{HTTPVerb: "post", Retries: new(3)}, recordEvent(), request{"POST", typeJSON, []byte(recordBody), ""}},
		{"a record, put", &outbox.EndpointSettings{HTTPVerb: "put"}, recordEvent(), request{"PUT", typeJSON, []byte(recordBody), ""}},
		{"a record as json", &outbox.EndpointSettings{HTTPVerb: "post", Format: "json"}, recordEvent(),
			request{"POST", typeJSON, []byte(`{"type":"update","schema":"dids","data":{"id":42,"price":1.50}}`), ""}},
		{"a record as a form", &outbox.EndpointSettings{HTTPVerb: "post", Format: "form"}, recordEvent(), request{"POST", typeForm, []byte(recordForm), ""}},
		{"a record by get", &outbox.EndpointSettings{HTTPVerb: "get"}, recordEvent(), request{"GET", "", nil, recordForm}},
		{"a record with custom data", &outbox.EndpointSettings{HTTPVerb: "post", CustomData: []byte(`{"tenant":7,"type":"x"}`)}, recordEvent(),
			request{"POST", typeJSON, []byte(`{"type":"x","schema":"dids","data":"{\"id\":42,\"price\":1.50}","tenant":7}`), ""}},
		{"a record whose data custom data took", &outbox.EndpointSettings{HTTPVerb: "post", Format: "json", CustomData: []byte(`{"data":"none"}`)}, recordEvent(),
			request{"POST", typeJSON, []byte(`{"type":"update","schema":"dids","data":"none"}`), ""}},
		{"a call by its hook's json", nil, callEvent("json"), request{"POST", typeJSON, []byte(callBody), ""}},
		{"a call by its hook's form", nil, callEvent("form"), request{"POST", typeForm, []byte(callForm), ""}},
		{"a call as json", &outbox.EndpointSettings{HTTPVerb: "post", Format: "json"}, callEvent("form"), request{"POST", typeJSON, []byte(callBody), ""}},
		{"a call in an envelope", &outbox.EndpointSettings{HTTPVerb: "post", Format: "envelope"}, callEvent("json"),
			request{"POST", typeJSON, []byte(`{"type":"event","schema":"channel_create","data":"` + strings.ReplaceAll(callBody, `"`, `\"`) + `"}`), ""}},
		{"a call by get", &outbox.EndpointSettings{HTTPVerb: "get", Format: "json"}, callEvent("json"), request{"GET", "", nil, callForm}},
		{"a call with custom data", &outbox.EndpointSettings{HTTPVerb: "put", CustomData: custom}, callEvent("json"), request{"PUT", typeJSON, []byte(merged), ""}},
		{"a call in an envelope, with custom data", &outbox.EndpointSettings{HTTPVerb: "post", Format: "envelope", CustomData: custom}, callEvent("form"),
			request{"POST", typeJSON, []byte(`{"type":"event","schema":"channel_create","data":"` + strings.ReplaceAll(merged, `"`, `\"`) + `"}`), ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := render(test.settings, test.event)
			if err != nil {
				t.Fatal(err)
			}
			if got.method != test.want.method || got.contentType != test.want.contentType || string(got.body) != string(test.want.body) || got.query != test.want.query {
				t.Errorf("got\n\t%s %s\n\t%s\n\t%s\nwant\n\t%s %s\n\t%s\n\t%s", got.method, got.contentType, got.body, got.query,
					test.want.method, test.want.contentType, test.want.body, test.want.query)
			}
		})
	}
	if _, err := render(&outbox.EndpointSettings{HTTPVerb: "get"}, &outbox.Event{Body: []byte("no object")}); err == nil {
		t.Error("what is no object is rendered")
	}
}

// The bodies of an endpoint without settings are those of the log, not copies.
func TestRender_TheRecordFeedIsNeitherParsedNorCopied(t *testing.T) {
	event := recordEvent()
	if allocs := testing.AllocsPerRun(10, func() {
		if r, _ := render(nil, event); &r.body[0] != &event.Body[0] {
			t.Fatal("copied")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestJoinQuery(t *testing.T) {
	for _, test := range []struct{ url, query, want string }{
		{"http://h/p", "a=1", "http://h/p?a=1"},
		{"http://h/p?", "a=1", "http://h/p?a=1"},
		{"http://h/p?k=v", "a=1", "http://h/p?k=v&a=1"},
		{"http://h/p?k=v&", "a=1", "http://h/p?k=v&a=1"},
		{"http://h/p?k=%2F&k#part", "a=1", "http://h/p?k=%2F&k&a=1"},
		{"http://h#part", "a=1", "http://h?a=1"},
		{"http://h/p?k=v#part", "", "http://h/p?k=v"},
	} {
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		if address.JoinQuery(u, test.query); u.String() != test.want {
			t.Errorf("%s and %s: %s, want %s", test.url, test.query, u, test.want)
		}
	}
}

func TestAttempt_AGetSignsTheQueryThatItAdds(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		official, err := standardwebhooks.NewWebhook(secretA)
		if err != nil {
			t.Fatal(err)
		}
		var requests atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			body, _ := io.ReadAll(r.Body)
			query, ok := strings.CutPrefix(r.RequestURI, "/hook?token=1&")
			if !ok || r.Method != "GET" || len(body) > 0 || r.ContentLength > 0 || len(r.TransferEncoding) > 0 || r.Header.Get("Content-Type") != "" {
				t.Errorf("%s %s, body %q, length %d, header %v", r.Method, r.RequestURI, body, r.ContentLength, r.Header)
			}
			if err := official.Verify([]byte(query), r.Header); err != nil {
				t.Errorf("verify: %v", err)
			}
			if got := r.URL.Query().Get("account_id"); got != "a b" {
				t.Errorf("account_id %q", got)
			}
			http.Error(w, "no such thing: "+r.RequestURI, http.StatusNotFound)
		}))
		defer server.Close()
		e := testEndpoint(server.URL + "/hook?token=1#part")
		e.Settings = &outbox.EndpointSettings{HTTPVerb: "get"}
		a := client.http(t).deliver(t.Context(), e, *callEvent("json"), time.Now())
		if a.status != 404 || strings.Contains(a.detail, "account_id") || strings.Contains(a.detail, "token") || requests.Load() != 1 {
			t.Errorf("answer %+v after %d requests", a, requests.Load())
		}
	})
}

func TestAttempt_APutCarriesTheFormThatTheEndpointAsksFor(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		official, err := standardwebhooks.NewWebhook(secretA)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if err := official.Verify(body, r.Header); err != nil {
				t.Errorf("verify: %v", err)
			}
			if r.Method != "PUT" || r.Header.Get("Content-Type") != typeForm || !strings.HasPrefix(string(body), "hook_event=channel_create&account_id=crm&") {
				t.Errorf("%s %v %s", r.Method, r.Header, body)
			}
		}))
		defer server.Close()
		e := testEndpoint(server.URL)
		e.Settings = &outbox.EndpointSettings{HTTPVerb: "put", Format: "form", CustomData: []byte(`{"account_id":"crm"}`)}
		if a := client.http(t).deliver(t.Context(), e, *callEvent("json"), time.Now()); a.status != 200 {
			t.Errorf("answer %+v", a)
		}
	})
}
