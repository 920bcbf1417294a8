package deliver

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/outbox"
)

// withHeaders is an endpoint with headers, sorted as the outbox gives them.
func withHeaders(url string, headers ...outbox.Header) outbox.Endpoint {
	e := testEndpoint(url)
	slices.SortFunc(headers, func(a, b outbox.Header) int { return strings.Compare(a.Name, b.Name) })
	e.Headers = headers
	return e
}

func TestHeaders_EachRequestHasThemAndNewOnesTakeEffect(t *testing.T) {
	t.Parallel()
	official, err := standardwebhooks.NewWebhook(secretA)
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, verb := range []string{"post", "put", "get"} {
			t.Run(protocol+" "+verb, func(t *testing.T) {
				t.Parallel()
				onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
					requests := make(chan *http.Request, 1)
					server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						body, _ := io.ReadAll(r.Body)
						if r.Method == http.MethodGet {
							body = []byte(r.URL.RawQuery)
						}
						if err := official.Verify(body, r.Header); err != nil {
							t.Errorf("verify: %v", err)
						}
						requests <- r
					}))
					server.EnableHTTP2 = protocol == "HTTP/2.0"
					server.StartTLS()
					t.Cleanup(server.Close)
					c := client.http(t)
					c.dialer.tls.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
					send := func(url string, headers ...outbox.Header) http.Header {
						t.Helper()
						e := withHeaders(url, headers...)
						e.Settings = &outbox.EndpointSettings{HTTPVerb: verb}
						if a := c.deliver(t.Context(), e, *recordEvent(), time.Now()); a.status != 200 {
							t.Fatalf("answer %+v", a)
						}
						r := <-requests
						if r.Proto != protocol || r.Host == "" || r.Header.Get("User-Agent") != "walhook/test" {
							t.Errorf("%s, host %q, header %v", r.Proto, r.Host, r.Header)
						}
						return r.Header
					}
					got := send(server.URL, outbox.Header{Name: "X-Api-Key", Value: "one"}, outbox.Header{Name: "authorization", Value: "Bearer b"}, outbox.Header{Name: "zz", Value: "a\tb"}, outbox.Header{Name: "A", Value: "~"})
					if got.Get("X-Api-Key") != "one" || got.Get("Authorization") != "Bearer b" || got.Get("Zz") != "a\tb" || got.Get("A") != "~" {
						t.Errorf("header %v", got)
					}
					got = send(server.URL, outbox.Header{Name: "X-Api-Key", Value: "two"})
					if got.Get("X-Api-Key") != "two" || got.Get("Authorization") != "" {
						t.Errorf("changed header %v", got)
					}
					if got = send(server.URL); got.Get("X-Api-Key") != "" {
						t.Errorf("header %v after they were removed", got)
					}
					got = send(strings.Replace(server.URL, "//", "//me:pw@", 1), outbox.Header{Name: "X-Api-Key", Value: "three"})
					if got.Get("X-Api-Key") != "three" || got.Get("Authorization") != "Basic bWU6cHc=" {
						t.Errorf("beside a password %v", got)
					}
				})
			})
		}
	}
}

// anyHeader is a header that the API takes.
func anyHeader(r *rand.Rand) outbox.Header {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for {
		var h outbox.Header
		for range 1 + r.IntN(outbox.MaxHeaderName) {
			h.Name += string(token[r.IntN(len(token))])
		}
		if r.IntN(4) == 0 {
			h.Name = []string{"webhook", "Content", "content", "webhook!", "webhook_id", "Contents", "Hos", "a", "Z", "X-Content-Length", "Cookie", "Date", "Via", "If-Match", "Range", "authorization"}[r.IntN(16)]
		}
		var value strings.Builder
		for range 1 + r.IntN(200) {
			value.WriteString([]string{"\t", " ", ":", ",", ";", `"`, "\\", "~", "%0d%0a", "Content-Length: 7", "chunked", "\\r\\n"}[r.IntN(12)])
			value.WriteByte(byte('!' + r.IntN('~'-'!'+1)))
		}
		h.Value = strings.TrimSpace(value.String())
		if outbox.HeaderNameFault(h.Name) == "" && outbox.HeaderValueFault(h.Value) == "" {
			return h
		}
	}
}

// No header that the API takes changes where a request ends, or a header of walhook's own.
func TestHeaders_NoneChangesTheFramingOfARequest(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		type message struct {
			head string
			r    *http.Request
			body []byte
			err  error
		}
		messages := make(chan message, 1)
		url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
			for {
				var head bytes.Buffer
				for !bytes.HasSuffix(head.Bytes(), []byte("\r\n\r\n")) { // strictly: CRLF alone ends a line
					b, err := r.ReadByte()
					if err != nil {
						return
					}
					head.WriteByte(b)
				}
				m := message{head: head.String()}
				if m.r, m.err = http.ReadRequest(bufio.NewReader(strings.NewReader(m.head))); m.err == nil {
					m.body = make([]byte, max(m.r.ContentLength, 0))
					_, m.err = io.ReadFull(r, m.body)
				}
				messages <- m
				if m.err != nil {
					return
				}
				if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		})
		c, random := client.http(t), rand.New(rand.NewPCG(1, 2))
		for n := range 300 {
			var headers []outbox.Header
			for range random.IntN(outbox.MaxHeaders + 1) {
				h := anyHeader(random)
				if !slices.ContainsFunc(headers, func(o outbox.Header) bool { return strings.EqualFold(o.Name, h.Name) }) {
					headers = append(headers, h)
				}
			}
			e := withHeaders(url, headers...)
			e.Settings = &outbox.EndpointSettings{HTTPVerb: []string{"post", "put", "get"}[n%3]}
			a := c.deliver(t.Context(), e, *recordEvent(), time.Now())
			m := <-messages
			want := len(headers) + 6 // Host, User-Agent, webhook-…, and of a body Content-Length and Content-Type
			if n%3 != 2 {
				want++
			} else {
				want--
			}
			if a.status != 200 || m.err != nil || len(m.r.TransferEncoding) > 0 || n%3 != 2 && string(m.body) != recordBody ||
				strings.Count(m.head, "\r\n")-2 != want || strings.Count(m.head, "\n") != strings.Count(m.head, "\r\n") {
				t.Fatalf("%q: answer %+v, %v, body %q, head %q, want %d lines", headers, a, m.err, m.body, m.head, want)
			}
			for _, h := range headers {
				if !strings.Contains(m.head, "\r\n"+h.Name+": "+h.Value+"\r\n") {
					t.Fatalf("%q is missing in %q", h, m.head)
				}
			}
			for _, own := range []string{"Host", "User-Agent", "webhook-id", "webhook-timestamp", "webhook-signature"} {
				if got := m.r.Header.Values(own); own != "Host" && len(got) != 1 {
					t.Fatalf("%s: %q in %q", own, got, m.head)
				}
			}
		}
	})
}

// The own client writes what net/http writes, byte for byte.
func TestHeaders_AreWrittenInTheOrderOfNetHTTP(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var headers []outbox.Header
		for range random.IntN(outbox.MaxHeaders + 1) {
			h := anyHeader(random)
			if !slices.ContainsFunc(headers, func(o outbox.Header) bool { return strings.EqualFold(o.Name, h.Name) }) {
				headers = append(headers, h)
			}
		}
		e := withHeaders([]string{"https://me:pw@example.com/a", "https://example.com/a"}[random.IntN(2)], headers...)
		h := testHTTP(t)
		target, err := h.targets.of(&e)
		if err != nil {
			t.Fatal(err)
		}
		x := &attempt{http: h, target: target, timestamp: "1", signature: "v1,x"}
		x.peer = target.peer
		if x.sent, err = requestOf(&e, recordEvent()); err != nil {
			t.Fatal(err)
		}
		own, err := x.appendHead(nil)
		if err != nil {
			t.Fatal(err)
		}
		var whole bytes.Buffer
		r := x.request()
		if err := r.Write(&whole); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(append(own, x.sent.body...), whole.Bytes()) {
			t.Fatalf("%q:\n%q\n%q", headers, own, whole.String())
		}
	}
}

func TestHeaders_NoValueIsKeptOfAnAnswer(t *testing.T) {
	t.Parallel()
	const bearer, password, key = "eyJhbGciOi.hunter2bearer", "hunter2 password", "k3y-5"
	basic := base64.StdEncoding.EncodeToString([]byte("me:" + password))
	for name, echo := range map[string]string{
		"verbatim": "Bearer " + bearer + " and " + key + " and " + basic, "the token": bearer, "a short key": "your key " + key + " is wrong",
		"decoded": "no user me with " + password, "as hex": fmt.Sprintf("%x", "Bearer "+bearer), "as base64": base64.StdEncoding.EncodeToString([]byte(bearer)),
		"escaped": strings.ReplaceAll(bearer, ".", "%2E"), "as JSON": fmt.Sprintf("{%q:%q}", "authorization", "Bearer "+bearer),
	} {
		endpoint := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
			if readRequest(r) == nil {
				fmt.Fprintf(conn, "HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n%s", len(echo), echo)
			}
		})
		e := withHeaders(endpoint, outbox.Header{Name: "Authorization", Value: "Bearer " + bearer}, outbox.Header{Name: "X-Basic", Value: "Basic " + basic},
			outbox.Header{Name: "X-Key", Value: key}, outbox.Header{Name: "X-Version", Value: "500"})
		a := testHTTP(t).deliver(t.Context(), e, testEvent, time.Now())
		if a.status != 500 || !strings.HasPrefix(a.detail, "HTTP 500: ") {
			t.Errorf("%s: %+v", name, a)
		}
		for _, secret := range []string{bearer, "hunter2", key, basic, fmt.Sprintf("%x", bearer), echo} {
			if strings.Contains(a.detail, secret) {
				t.Errorf("%s: %q is kept", name, a.detail)
			}
		}
	}
}

func TestRender_NamesHeadersWithoutValues(t *testing.T) {
	t.Parallel()
	h := testHTTP(t)
	sent, err := h.Render(withHeaders("https://example.com/", outbox.Header{Name: "X-Key", Value: "hunter2"}), *recordEvent())
	if err != nil || !slices.Equal(sent.Headers, []string{"X-Key"}) || strings.Contains(fmt.Sprintf("%+v", sent), "hunter2") {
		t.Errorf("%+v, %v", sent, err)
	}
}
