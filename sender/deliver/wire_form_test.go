package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/outbox"
)

// seen is a request as the server received it.
type seen struct {
	dialled, sni, host, uri, query string
	length                         int64
	encoding                       []string
	body                           string
	protocol                       string
}

// anywhere is a server at every name's address; its certificate is for names.
func anywhere(t *testing.T, client clientKind, http2 bool, names ...string) (c *HTTP, last func() seen) {
	t.Helper()
	var mu sync.Mutex
	var got seen // guarded by mu
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got.host, got.uri, got.query, got.length, got.encoding, got.body, got.protocol = r.Host, r.RequestURI, r.URL.RawQuery, r.ContentLength, r.TransferEncoding, body.String(), r.Proto
		got.sni = r.TLS.ServerName
	}))
	ca := newAuthority(t)
	template := &x509.Certificate{}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	server.EnableHTTP2 = http2
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(template)}}
	server.StartTLS()
	t.Cleanup(server.Close)
	c = ca.trust(client.http(t))
	dial := c.dialer.net.DialContext
	c.dialer.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		got.dialled = address
		mu.Unlock()
		return dial(ctx, network, server.Listener.Addr().String())
	}
	return c, func() seen {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

func TestAttempt_AHostIsOneNameInEveryPlace(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for _, http2 := range []bool{false, true} {
			for want, hosts := range map[string][]string{
				"xn--bcher-kva.example": {"bücher.example", "BÜCHER.Example", "bu\u0308cher.example", "ｂücher．example", "bücher。example", "bücher.example.", "XN--BCHER-KVA.example"},
				"xn--strae-oqa.example": {"straße.example"},
				"plain_name.example":    {"Plain_Name.EXAMPLE."},
			} {
				for i, host := range hosts {
					c, last := anywhere(t, client, http2, want)
					e := testEndpoint("https://" + host + ":8443/hook")
					e.ID = int64(i + 1)
					a := c.deliver(t.Context(), e, testEvent, time.Now())
					got := last()
					if a.status != 200 || got.dialled != want+":8443" || got.sni != want || got.host != want+":8443" {
						t.Errorf("HTTP/2 %v, %s: status %d %q (%s); dialled %s, SNI %s, Host %s", http2, host, a.status, a.failure, a.detail, got.dialled, got.sni, got.host)
					}
					if http2 != (got.protocol == "HTTP/2.0") {
						t.Errorf("spoke %s", got.protocol)
					}
				}
			}
		}
		c, last := anywhere(t, client, true, "127.0.0.1")
		if a := c.deliver(t.Context(), testEndpoint("https://0x7f.1/hook"), testEvent, time.Now()); a.status != 200 || last().host != "127.0.0.1" {
			t.Errorf("%+v %+v", a, last())
		}
	})
}

func TestAttempt_AURLIsSentAsRFC3986WantsIt(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		get := &outbox.EndpointSettings{HTTPVerb: "get"}
		event := testEvent
		event.Body = []byte(`{"type":"insert","schema":"dids","data":"{\"name\":\"ä&=?#%+ 😀\"}"}`)
		const added = "type=insert&schema=dids&data=%7B%22name%22%3A%22%C3%A4%26%3D%3F%23%25%2B+%F0%9F%98%80%22%7D"
		for _, http2 := range []bool{false, true} {
			for url, want := range map[string]string{
				"/ä?q=ü&r=a\"<>{}|\\^`b&s=100%&t=%41 x": "/%C3%A4?q=%C3%BC&r=a%22%3C%3E%7B%7D%7C%5C%5E%60b&s=100%25&t=%41%20x",
				"/hook?a=1&b=2#frag ment":               "/hook?a=1&b=2",
				"":                                      "/",
				"/?":                                    "/?",
				"/a=1&#x":                               "/a=1&",
				"/x?a=1&":                               "/x?a=1&",
			} {
				for _, settings := range []*outbox.EndpointSettings{nil, get} {
					c, last := anywhere(t, client, http2, "h.example")
					e := testEndpoint("https://h.example" + url)
					e.Settings = settings
					a := c.deliver(t.Context(), e, event, time.Now())
					uri := want
					if settings == get {
						switch {
						case !strings.Contains(want, "?"):
							uri += "?"
						case !strings.HasSuffix(want, "?") && !strings.HasSuffix(want, "&"):
							uri += "&"
						}
						uri += added
					}
					if got := last(); a.status != 200 || got.uri != uri {
						t.Errorf("HTTP/2 %v, %s: status %d %q (%s), asked for\n%s, want\n%s", http2, url, a.status, a.failure, a.detail, got.uri, uri)
					}
				}
			}
		}
	})
}

func TestAttempt_GETHasNoBodyAndEndsWithItsHeader(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		e := testEndpoint("https://h.example/hook?a=1")
		e.Settings = &outbox.EndpointSettings{HTTPVerb: "get"}
		for _, http2 := range []bool{false, true} {
			c, last := anywhere(t, client, http2, "h.example")
			a := c.deliver(t.Context(), e, testEvent, time.Now())
			if got := last(); a.status != 200 || got.length != 0 || got.encoding != nil || got.body != "" || !strings.HasPrefix(got.query, "a=1&type=") {
				t.Errorf("HTTP/2 %v: %+v %+v", http2, a, got)
			}
		}

		// By its frames: the header has END_STREAM, and nothing follows.
		ca := newAuthority(t)
		flags := make(chan byte, 1)
		url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, func(conn *tls.Conn) {
			c := http2Conn{conn}
			preface := make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
			if _, err := conn.Read(preface); err != nil || c.frame(frameSettings, 0, 0) != nil {
				return
			}
			for {
				kind, f, stream, err := c.next()
				if err != nil {
					return
				}
				switch kind {
				case frameHeaders:
					flags <- f
					c.frame(frameHeaders, flagEndHeaders|flagEndStream, stream, 0x88)
				case frameData:
					t.Error("a GET has a body")
				}
			}
		})
		c := ca.trust(client.http(t))
		e.URL = url
		if a := c.deliver(t.Context(), e, testEvent, time.Now()); a.status != 200 {
			t.Fatalf("%+v", a)
		}
		if f := <-flags; f&flagEndStream == 0 {
			t.Errorf("the header of a GET has the flags %#x, want END_STREAM", f)
		}
	})
}

// net/http repeats a refused request if it can get its body again; a GET has none.
func TestAttempt_GETIsMadeOnceWhenItIsNotTaken(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for name, refuse := range map[string]func(c http2Conn, stream uint32){
			"REFUSED_STREAM": func(c http2Conn, s uint32) { c.frame(frameReset, 0, s, code(7)...) },
			"GOAWAY":         func(c http2Conn, _ uint32) { c.frame(frameGoAway, 0, 0, code(0, 0)...) },
		} {
			receiver := &http2Receiver{at: frameHeaders, f: refuse}
			ca := newAuthority(t)
			url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
			c := ca.trust(client.http(t))
			e := testEndpoint(url)
			e.Settings = &outbox.EndpointSettings{HTTPVerb: "get"}
			a := c.deliver(t.Context(), e, testEvent, time.Now())
			if n := receiver.requests.Load(); a.failure != failHTTP2NotTaken || n != 1 {
				t.Errorf("%s: %q (%s) after %d requests, want one", name, a.failure, a.detail, n)
			}
		}
	})
}

func TestAttempt_GETWhoseURLIsTooLongIsNotSent(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		c, last := anywhere(t, clients[0], http2, "h.example")
		e := testEndpoint("https://h.example/hook")
		e.Settings = &outbox.EndpointSettings{HTTPVerb: "get"}
		const rest = len("https://h.example/hook?type=insert&schema=dids&data=")
		for size, fits := range map[int]bool{maxRequestURL - rest: true, maxRequestURL - rest + 1: false, 1 << 20: false} {
			event := testEvent
			event.Body = []byte(`{"type":"insert","schema":"dids","data":"` + strings.Repeat("x", size) + `"}`)
			a := c.deliver(t.Context(), e, event, time.Now())
			o := a.result(time.Now(), time.Now())
			switch {
			case fits && (a.status != 200 || len(last().uri) != maxRequestURL-len("https://h.example")):
				t.Errorf("HTTP/2 %v, %d bytes: %+v, %d bytes arrived", http2, size, a, len(last().uri))
			case !fits && (a.failure != failTooLarge || o.Outcome != Dead || o.EndpointFault):
				t.Errorf("HTTP/2 %v, %d bytes: %+v, %+v; want a dead letter", http2, size, a, o)
			}
		}
	}
}

// A receiver may allow a shorter header than walhook's. Only that request fails.
func TestAttempt_AHeaderThatTheReceiverDoesNotAllowCostsNoOtherRequest(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		hold := make(chan struct{})
		receiver := &http2Receiver{at: frameHeaders, settings: append([]byte{0, 6}, code(2048)...)} // MAX_HEADER_LIST_SIZE
		receiver.f = func(c http2Conn, s uint32) {
			if receiver.requests.Load() == 2 { // the first has taught the limit
				<-hold
			}
			c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, 0x88)
		}
		url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
		c := ca.trust(client.http(t))
		e := testEndpoint(url)
		e.Settings = &outbox.EndpointSettings{HTTPVerb: "get"}
		if a := c.deliver(t.Context(), e, testEvent, time.Now()); a.status != 200 {
			t.Fatalf("%+v", a)
		}
		waiting := make(chan answer)
		go func() { waiting <- c.deliver(t.Context(), e, testEvent, time.Now()) }()
		large := testEvent
		large.Body = []byte(`{"type":"insert","schema":"dids","data":"` + strings.Repeat("x", 4096) + `"}`)
		if a := c.deliver(t.Context(), e, large, time.Now()); a.failure != failHTTP2 || !strings.Contains(a.detail, "header list larger") {
			t.Errorf("%+v", a)
		}
		close(hold)
		if a := <-waiting; a.status != 200 {
			t.Errorf("another request on the connection: %+v", a)
		}
	})
}
