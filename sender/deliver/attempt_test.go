package deliver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/internal/loopback"
	"walhook/outbox"
)

var testEvent = outbox.Event{ID: 1, WebhookID: "evt_00000000016B3748_1", Body: []byte(`{"type":"insert"}`)}

// patience is every time limit of a destination that tests make, except the one that a
// case is about: a busy machine takes seconds for what an idle one does at once.
const patience = time.Minute

// short is a time limit that a case waits for.
const short = time.Second

// limits sets the time limits that a case is about.
type limits func(*Config)

func shortHeader(c *Config)  { c.HeaderTimeout = short }
func shortTLS(c *Config)     { c.TLSTimeout = short }
func shortConnect(c *Config) { c.ConnectTimeout = short }
func shortAttempt(c *Config) { c.AttemptTimeout = 5 * short } // connecting is part of it

// tooLong is when an attempt has not been ended by the limit that a case is about, but by
// another one or not at all.
const tooLong = 5 * short

// atMost makes an attempt that has to end within a time, again if it takes longer: a busy
// machine makes one longer, and none shorter. What an attempt waits for, each waits for.
func atMost(t *testing.T, most time.Duration, attempt func()) {
	t.Helper()
	least := time.Hour
	for range 3 {
		began := time.Now()
		attempt()
		if least = min(least, time.Since(began)); least <= most {
			return
		}
	}
	t.Errorf("took %v, want %v at most", least, most)
}

// testHTTP may dial this machine.
func testHTTP(t *testing.T, about ...limits) *HTTP {
	config := Config{
		Version: "test", AttemptTimeout: 2 * patience, HeaderTimeout: patience, ConnectTimeout: patience, TLSTimeout: patience,
		AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
	for _, set := range about {
		set(&config)
	}
	c := newHTTP(config.WithDefaults())
	t.Cleanup(c.Close)
	return c
}

func testEndpoint(url string) outbox.Endpoint {
	return outbox.Endpoint{ID: 1, Revision: 1, URL: url, State: outbox.EndpointActive, Secrets: []string{secretA}}
}

// rawReceiver serves each connection with f.
func rawReceiver(t *testing.T, f func(net.Conn, *bufio.Reader)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				f(conn, bufio.NewReader(conn))
			}()
		}
	}()
	return "http://" + listener.Addr().String() + "/hook"
}

// readRequest reads one request whole.
func readRequest(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err == nil {
		_, err = io.Copy(io.Discard, req.Body)
	}
	return err
}

// drip writes s again and again, slowly, until the other side has enough.
func drip(conn net.Conn, s string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.WriteString(conn, s); err != nil {
			return
		}
	}
}

func TestAttempt_SendsTheRequestOfTheContract(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		type seen struct {
			header     http.Header
			body       []byte
			user, pass string
			uri        string
			length     int64
		}
		got := make(chan seen, 1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := seen{header: r.Header, uri: r.RequestURI, length: r.ContentLength}
			s.body, _ = io.ReadAll(r.Body)
			s.user, s.pass, _ = r.BasicAuth()
			got <- s
		}))
		defer server.Close()
		url := strings.Replace(server.URL, "http://", "http://ann:p%40ss@", 1) + "/hook?token=1"
		a := client.http(t).deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
		if a.status != 200 || a.failure != "" {
			t.Fatalf("answer %+v", a)
		}
		s := <-got
		if !bytes.Equal(s.body, testEvent.Body) || s.length != int64(len(testEvent.Body)) || s.uri != "/hook?token=1" {
			t.Errorf("body %s, length %d, uri %s", s.body, s.length, s.uri)
		}
		if s.user != "ann" || s.pass != "p@ss" {
			t.Errorf("basic auth %q %q", s.user, s.pass)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "User-Agent": "walhook/test", "Webhook-Id": testEvent.WebhookID,
			"Idempotency-Key": "", "Accept-Encoding": "",
		} {
			if s.header.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, s.header.Get(name), want)
			}
		}
		official, err := standardwebhooks.NewWebhook(secretA)
		if err != nil {
			t.Fatal(err)
		}
		if err := official.Verify(s.body, s.header); err != nil {
			t.Errorf("verify: %v", err)
		}
	})
}

func TestAttempt_ReceiversThatCannotBeReached(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		closed := loopback.Address(t)
		silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, by the kernel, and says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		secured := httptest.NewTLSServer(http.NotFoundHandler())
		defer secured.Close()
		plain := httptest.NewServer(http.NotFoundHandler())
		defer plain.Close()
		for _, c := range []struct {
			name, url string
			want      failure
			about     []limits
		}{
			{"refused", "http://" + closed + "/", failRefused, nil},
			{"no such name", "http://no-such-host.invalid/", failDNSNotFound, nil},
			{"handshake without end", "https://" + silent.Addr().String() + "/", failTimeoutTLS, []limits{shortTLS}},
			{"self-signed", secured.URL, failTLSSelfSigned, nil},
			{"TLS to a plain server", strings.Replace(plain.URL, "http:", "https:", 1), failTLSPlain, nil},
			{"private address", "http://10.0.0.1/", failBlocked, nil},
			{"no host", "http:///hook", failURL, nil},
			{"scheme", "ftp://example.com/", failURL, nil},
			{"syntax", "http://user:hunter2@exa mple/%zz", failURL, nil},
		} {
			t.Run(c.name, func(t *testing.T) {
				a := client.http(t, c.about...).deliver(t.Context(), testEndpoint(c.url), testEvent, time.Now())
				if a.failure != c.want && !(c.want == failDNSNotFound && a.failure == failDNSHere) {
					t.Errorf("failure %q (%s), want %q", a.failure, a.detail, c.want)
				}
				if strings.Contains(a.detail, "hunter2") {
					t.Errorf("the detail shows a password: %s", a.detail)
				}
			})
		}
	})
}

// net/http would repeat a GET itself when an idle connection ends.
func TestAttempt_OneAttemptIsAtMostOneRequestOnAConnectionThatCloses(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		for _, verb := range []string{"post", "get"} {
			t.Run(verb, func(t *testing.T) {
				var requests atomic.Int32
				url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
					if readRequest(r) != nil {
						return
					}
					requests.Add(1)
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					// The next request is read, and then there is no answer: it must not
					// be sent again by itself.
					if readRequest(r) == nil {
						requests.Add(1)
					}
				})
				e := testEndpoint(url)
				e.Settings = &outbox.EndpointSettings{HTTPVerb: verb}
				c := client.http(t)
				for i, want := range []failure{"", failClosed} {
					if a := c.deliver(t.Context(), e, *callEvent("json"), time.Now()); a.failure != want {
						t.Fatalf("attempt %d: %q (%s), want %q", i+1, a.failure, a.detail, want)
					}
				}
				if n := requests.Load(); n != 2 {
					t.Errorf("%d requests for 2 attempts", n)
				}
			})
		}
	})
}

// deadConn is a kept connection that the receiver has closed: what is written
// to it after the first request fails before a byte is out.
type deadConn struct {
	net.Conn
	dead atomic.Bool
}

func (c *deadConn) Write(b []byte) (int, error) {
	if c.dead.Load() {
		return 0, errors.New("write: closed")
	}
	return c.Conn.Write(b)
}

func TestAttempt_AKeptConnectionFoundClosedCostsNoAttempt(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		var requests atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
		defer server.Close()
		c := client.http(t)
		var first *deadConn
		dial := c.dialer.dial
		c.dialer.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			first = &deadConn{Conn: conn}
			return first, nil
		}
		if a := c.deliver(t.Context(), testEndpoint(server.URL), testEvent, time.Now()); a.status != 200 {
			t.Fatalf("first attempt: %+v", a)
		}
		first.dead.Store(true)
		if a := c.deliver(t.Context(), testEndpoint(server.URL), testEvent, time.Now()); a.status != 200 {
			t.Fatalf("second attempt: %+v", a)
		}
		if n := requests.Load(); n != 2 {
			t.Errorf("%d requests arrived, want 2", n)
		}
	})
}

func TestAttempt_AShutdownIsOurFault(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("the process stops")) })
		if a := client.http(t).deliver(ctx, testEndpoint(url), testEvent, time.Now()); a.failure != failShutdown {
			t.Errorf("failure %q, want %q", a.failure, failShutdown)
		}
	})
}

func TestAttempt_HTTP2(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				w.WriteHeader(http.StatusHTTPVersionNotSupported)
			}
		}))
		server.EnableHTTP2 = true
		server.StartTLS()
		defer server.Close()
		c := client.http(t)
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		c.dialer.tls.RootCAs = roots
		for range 3 {
			if a := c.deliver(t.Context(), testEndpoint(server.URL), testEvent, time.Now()); a.status != 200 {
				t.Fatalf("answer %+v", a)
			}
		}
	})
}
