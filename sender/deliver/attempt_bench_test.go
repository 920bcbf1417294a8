package deliver

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func BenchmarkSign(b *testing.B) {
	body := []byte(strings.Repeat("x", 400))
	signer, err := newSigner([]string{secretA})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		signer.sign(testEvent.WebhookID, "1700000000", body)
	}
}

// BenchmarkDeliver is one attempt over a kept connection, the receiver in the
// same process.
func BenchmarkDeliver(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	c := newHTTP(Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}.WithDefaults())
	defer c.Close()
	endpoint, event := testEndpoint(server.URL+"/hook"), testEvent
	event.Body = []byte(`{"type":"insert","schema":"dids","data":"` + strings.Repeat("x", 350) + `"}`)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if a := c.deliver(ctx, endpoint, event, time.Now()); a.status != http.StatusOK {
			b.Fatalf("%+v", a)
		}
	}
}

// BenchmarkDeliverTLS says what it costs that endpoints share no connection to a
// host: one endpoint over a kept connection, many in turn over kept connections
// of their own, and an endpoint that finds none, with a handshake.
func BenchmarkDeliverTLS(b *testing.B) {
	for _, version := range []struct {
		name  string
		http2 bool
	}{{"HTTP1", false}, {"HTTP2", true}} {
		for _, endpoints := range []int64{1, 200, 0} {
			name := map[int64]string{1: "one", 200: "each_of_200", 0: "handshake"}[endpoints]
			b.Run(version.name+"/"+name, func(b *testing.B) {
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
				server.EnableHTTP2 = version.http2
				server.StartTLS()
				defer server.Close()
				c := newHTTP(Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}.WithDefaults())
				defer c.Close()
				c.dialer.tls.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
				endpoint, event := testEndpoint(server.URL+"/hook"), testEvent
				event.Body = []byte(`{"type":"insert","schema":"dids","data":"` + strings.Repeat("x", 350) + `"}`)
				ctx := b.Context()
				deliver := func(id int64) {
					endpoint.ID = id
					if a := c.deliver(ctx, endpoint, event, time.Now()); a.status != http.StatusOK {
						b.Fatalf("%+v", a)
					}
				}
				for id := range endpoints {
					deliver(id)
				}
				b.ReportAllocs()
				n := int64(0)
				for b.Loop() {
					if n++; endpoints == 0 {
						c.Close()
						own(c).pool = newConnPool(1)
						deliver(n)
					} else {
						deliver(n % endpoints)
					}
				}
			})
		}
	}
}
