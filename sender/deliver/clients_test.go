package deliver

import (
	"flag"
	"net/http"
	"os"
	"testing"
)

// TestMain lets more tests run at a time than there are processors, unless the
// command line says how many: nearly all of them wait for a time limit.
func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		_ = flag.Set("test.parallel", "8") // it is a flag of package testing
	}
	os.Exit(m.Run())
}

// Both clients keep the promises of an attempt. The tests that run on each client are one
// suite: timeouts, drips, resets, idle connections that close while they are used again,
// interim, malformed and early answers, bounds, TLS and HTTP/2, redirects, and invalid
// statuses.

// clientKind is a client of the HTTP destination.
type clientKind struct {
	name string
	use  func(*HTTP)
	// limited says that it is net/http's, which has limits.
	limited bool
}

var clients = []clientKind{
	{name: "walhook", use: func(*HTTP) {}},
	{name: "walhook by RoundTrip", use: func(h *HTTP) { h.use(byRoundTrip{own(h)}) }},
	{name: "net/http", use: func(h *HTTP) { h.use(newNetHTTP(&h.config, h.dialer, true)) }, limited: true},
}

// limit names a promise that net/http's client cannot keep. The suite checks that it
// cannot: a limit that does not exist any more must be removed.
type limit string

const (
	// limitInterim: net/http does not report where an interim answer ends in its buffer.
	limitInterim limit = "behind an interim answer the status decides only once its header is whole"
)

// binds reports whether a case is a limit of this client.
func (k clientKind) binds(l limit) bool { return k.limited && l != "" }

// byRoundTrip hides that the client implements direct.
type byRoundTrip struct{ client *client }

func (b byRoundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return b.client.RoundTrip(r) }
func (b byRoundTrip) CloseIdleConnections()                             { b.client.CloseIdleConnections() }

func onEachClient(t *testing.T, f func(t *testing.T, client clientKind)) {
	for _, client := range clients {
		t.Run(client.name, func(t *testing.T) { f(t, client) })
	}
}

// onEachOfHTTP2 leaves out a client that uses HTTP/2 as another one does.
func onEachOfHTTP2(t *testing.T, f func(t *testing.T, client clientKind)) {
	for _, client := range clients {
		if client.name != "walhook by RoundTrip" {
			t.Run(client.name, func(t *testing.T) { f(t, client) })
		}
	}
}

// http may dial this machine.
func (k clientKind) http(t *testing.T, about ...limits) *HTTP {
	h := testHTTP(t, about...)
	k.use(h)
	return h
}

// own is the client that speaks HTTP/1.1 itself.
func own(h *HTTP) *client {
	if b, ok := h.client.(byRoundTrip); ok {
		return b.client
	}
	return h.client.(*client)
}

// overNetHTTP is the client that speaks HTTP/2.
func overNetHTTP(h *HTTP) *netHTTP {
	if n, ok := h.client.(*netHTTP); ok {
		return n
	}
	return own(h).http2
}

func TestHTTP_IsMadeByTheClientOfItsConfiguration(t *testing.T) {
	t.Parallel()
	for configured, isNetHTTP := range map[Client]bool{"": false, ClientWalhook: false, ClientNetHTTP: true} {
		h, err := NewHTTP(Config{Client: configured})
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		if _, is := h.client.(*netHTTP); is != isNetHTTP || is == (h.direct != nil) {
			t.Errorf("client %q: %T", configured, h.client)
		}
	}
	if _, err := NewHTTP(Config{Client: "curl"}); err == nil {
		t.Error("a client that does not exist is taken")
	}
}
