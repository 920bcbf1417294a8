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
