package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/outbox"
)

// A request over HTTP/1.1 is the same bytes whoever writes it.
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
					x := &attempt{http: c, target: to, id: "evt_1", timestamp: "1700000000", signature: "v1,x"}
					x.peer = to.peer
					x.sent = request{method: method, contentType: typeForm, body: []byte(body)}
					if method == http.MethodGet {
						x.sent = request{method: method, query: body}
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

// The context of an attempt that is over may still cut its connection: late,
// and so in the middle of the next attempt.
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
