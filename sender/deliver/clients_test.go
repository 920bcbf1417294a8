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

// What is promised of an attempt is promised of each client. The tests that run
// on each of them are one suite: timeouts, drips, resets, kept connections that
// are closed as they are used again, interim answers, malformed ones, bounds,
// early answers, TLS and HTTP/2, redirects, and statuses that are none.

// clientKind is a way in which the HTTP destination has a request made.
type clientKind struct {
	name string
	use  func(*HTTP)
	// limited says that it is net/http's, which cannot do all of it: see limit.
	limited bool
}

var clients = []clientKind{
	{name: "walhook", use: func(*HTTP) {}},
	{name: "walhook by RoundTrip", use: func(h *HTTP) { h.use(byRoundTrip{own(h)}) }},
	{name: "net/http", use: func(h *HTTP) { h.use(newNetHTTP(&h.config, h.dialer, true)) }, limited: true},
}

// limit names what net/http's client cannot do of what is promised. The suite
// wants to see that it cannot: one that it can do after all is to be dropped.
type limit string

const (
	// limitInterim: net/http tells nobody where an interim answer ends in what it read.
	limitInterim limit = "behind an interim answer the status decides only once its header is whole"
	// limitAhead: a goroutine of net/http's reads, and may not have come to it. No
	// test can see that each time; those of it give the goroutine time.
	limitAhead limit = "what a receiver sends before a request is seen only once it was read"
)

// binds says whether a case is one of net/http's limits for this client.
func (k clientKind) binds(l limit) bool { return k.limited && l != "" }

// byRoundTrip hides the shorter way that the HTTP destination looks for.
type byRoundTrip struct{ client *client }

func (b byRoundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return b.client.RoundTrip(r) }
func (b byRoundTrip) CloseIdleConnections()                             { b.client.CloseIdleConnections() }

func onEachClient(t *testing.T, f func(t *testing.T, client clientKind)) {
	for _, client := range clients {
		t.Run(client.name, func(t *testing.T) { f(t, client) })
	}
}

// onEachOfHTTP2 leaves out a client that comes to HTTP/2 as another does.
func onEachOfHTTP2(t *testing.T, f func(t *testing.T, client clientKind)) {
	for _, client := range clients {
		if client.name != "walhook by RoundTrip" {
			t.Run(client.name, func(t *testing.T) { f(t, client) })
		}
	}
}

// http may dial this machine, and is impatient.
func (k clientKind) http(t *testing.T) *HTTP {
	h := testHTTP(t)
	k.use(h)
	return h
}

// own is the client that speaks HTTP/1.1 by itself.
func own(h *HTTP) *client {
	if b, ok := h.client.(byRoundTrip); ok {
		return b.client
	}
	return h.client.(*client)
}

// overNetHTTP is what speaks HTTP/2.
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
