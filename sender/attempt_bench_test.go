package sender

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
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sign([]string{secretA}, testEvent.WebhookID, now, body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDeliver is one attempt over a kept connection, the receiver in the
// same process.
func BenchmarkDeliver(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	c := newCourier(Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}.withDefaults(), nil)
	defer c.close()
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
