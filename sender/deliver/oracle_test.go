package deliver

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"walhook/internal/loopback"
	"walhook/outbox"
)

// TestHTTP_UnreachableAddressesLookTheSameToTheAccount tries addresses that refuse, are
// filtered, forbidden or do not exist, and names of each kind.
func TestHTTP_UnreachableAddressesLookTheSameToTheAccount(t *testing.T) {
	t.Parallel()
	refused := loopback.Address(t)
	_, port, _ := net.SplitHostPort(refused)
	names := func(a dnsAnswer) func(int) dnsAnswer { return func(int) dnsAnswer { return a } }
	began := make(chan struct{})
	const tries = 3
	type seen struct {
		name     string
		answered outbox.Attempt
		took     time.Duration
		detail   string
	}
	cases := []struct {
		name, url string
		resolve   func(int) dnsAnswer
	}{
		{"refused", "http://" + refused + "/", nil},
		{"refused over TLS", "https://" + refused + "/", nil},
		{"forbidden", "http://10.0.0.1:" + port + "/", nil},
		{"metadata service", "http://169.254.169.254/", nil},
		{"an internal name that exists", "http://db.internal.example./", names(dnsAnswer{addresses: []string{"10.1.2.3"}})},
		{"an internal name that does not", "http://nope.internal.example./", names(dnsAnswer{code: 3})},
		{"a name whose servers fail", "http://fails.example./", names(dnsAnswer{code: 2})},
		{"a name that refuses", "http://here.example.:" + port + "/", names(dnsAnswer{addresses: []string{"127.0.0.1"}})},
		{"a name whose servers are silent", "http://silent.example./", names(dnsAnswer{silent: true})},
		{"no name at all", "http://-.example./", names(dnsAnswer{code: 3})},
	}
	results := make(chan seen, len(cases))
	for _, one := range cases {
		c := testHTTP(t, shortConnect)
		if one.resolve != nil {
			resolveBy(t, c, one.resolve)
		}
		go func() {
			<-began
			quickest := seen{took: time.Hour}
			for range tries { // a busy machine makes one longer, and none shorter
				start := time.Now()
				made := c.Try(t.Context(), testEndpoint(one.url), testEvent)
				if took := time.Since(start); took < quickest.took {
					quickest = seen{one.name, made.ForAccount(), took, made.Detail}
				}
			}
			results <- quickest
		}()
	}
	close(began)
	want := outbox.Attempt{Number: 1, Revision: 1, Outcome: string(Retry), Reason: "unreachable"}
	var least, most time.Duration
	for range cases {
		s := <-results
		s.answered.At = time.Time{}
		if s.answered != want {
			t.Errorf("%s: %+v (%s), want %+v", s.name, s.answered, s.detail, want)
		}
		if s.detail == "" {
			t.Errorf("%s: the operator is not told what happened", s.name)
		}
		if least == 0 || s.took < least {
			least = s.took
		}
		most = max(most, s.took)
	}
	if most-least > 200*time.Millisecond {
		t.Errorf("answers took from %v to %v: they differ", least, most)
	}
}

// TestAttempt_AnAccountSeesNoAddressAndNoBanner has receivers that break off in
// ways whose errors name addresses or show what they said.
func TestAttempt_AnAccountSeesNoAddressAndNoBanner(t *testing.T) {
	t.Parallel()
	for name, receive := range map[string]func(net.Conn, *bufio.Reader){
		"a banner":                answers("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
		"resets amid its header":  func(conn net.Conn, r *bufio.Reader) { answers("HTTP/1.1 500 No\r\nX: y")(conn, r); resets(conn) },
		"drips its header":        answersThenDrips("HTTP/1.1 500 No\r\n", "X: y\r\n"),
		"a malformed header":      answers("HTTP/1.1 500 No\r\nSSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n"),
		"resets":                  func(conn net.Conn, r *bufio.Reader) { readRequest(r); resets(conn) },
		"never answers":           func(_ net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) },
		"a status of its own":     answers("HTTP/1.1 SSH-2.0-OpenSSH\r\n\r\n"),
		"closes amid its answers": answers("HTTP/1.1 100 Continue\r\n\r\nHTTP"),
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				url := rawReceiver(t, receive)
				made := testHTTP(t, shortConnect, shortTLS, shortHeader).Try(t.Context(), testEndpoint(strings.Replace(url, "http", scheme, 1)), testEvent)
				shown := made.ForAccount()
				for _, hidden := range []string{"127.0.0.1", "SSH", "->", "tcp", "lookup"} {
					if strings.Contains(shown.Detail+shown.Reason, hidden) {
						t.Errorf("%+v shows %q", shown, hidden)
					}
				}
				if shown.Status == 0 && (shown.Duration != 0 || shown.Detail != "") {
					t.Errorf("%+v", shown)
				}
			})
		}
	}
	old := outbox.Attempt{Status: 200, Detail: "HTTP 200, and an endless header: read tcp 10.0.0.5:4242->192.0.2.1:443: i/o timeout"}.ForAccount()
	if strings.Contains(old.Detail, "10.0.0.5") {
		t.Errorf("%q, as an earlier version stored it", old.Detail)
	}
}

func TestEgress_DeniedNetworksAreDialledByNobody(t *testing.T) {
	t.Parallel()
	listener := rawReceiver(t, func(net.Conn, *bufio.Reader) { t.Error("a denied network was dialled") })
	c := testHTTP(t)
	c.config.DenyCIDR = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	c.dialer.net.Control = c.config.guard().control
	if a := c.deliver(t.Context(), testEndpoint(listener), testEvent, time.Now()); a.failure != failBlocked {
		t.Errorf("%+v, want %q", a, failBlocked)
	}
	if _, ok := errors.AsType[*BlockedAddressError](c.CheckHost(listener)); !ok {
		t.Error("a webhook to a denied network can be made")
	}
	g := Config{
		AllowCIDR: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("2002::/16")},
		DenyCIDR:  []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2606:4700::/32"), netip.MustParsePrefix("::ffff:9.9.9.0/120")},
	}.guard()
	for address, want := range map[string]bool{
		"8.8.8.8": false, "::ffff:8.8.8.8": false, "64:ff9b::808:808": false, "2002:808:808::1": false, "9.9.9.9": false, "10.1.2.3": false,
		"2606:4700::1111": false, "8.8.4.4": true, "64:ff9b::101:101": true, "2002:101:101::1": true, "10.2.0.1": true, "2a00::1": true,
	} {
		if got := g.allowed(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: allowed %v, want %v", address, got, want)
		}
	}
}

func TestEgress_OnlyTheAllowedPortsAreDialled(t *testing.T) {
	t.Parallel()
	standard := Config{}.WithDefaults().guard()
	for port, want := range map[string]bool{
		"80": true, "443": true, "1024": true, "8080": true, "65535": true,
		"1": false, "22": false, "25": false, "79": false, "81": false, "442": false, "444": false, "1023": false, "0": false, "65536": false, "99999999999": false, "-1": false,
	} {
		if got := standard.checkPort(port) == nil; got != want {
			t.Errorf("port %s: allowed %v, want %v", port, got, want)
		}
	}
	if err := standard.control("tcp", "8.8.8.8:25", nil); err == nil {
		t.Error("port 25 is dialled")
	}
	listener := rawReceiver(t, func(net.Conn, *bufio.Reader) { t.Error("a port that is not allowed was dialled") })
	c := testHTTP(t)
	c.config.AllowPorts = []PortRange{{443, 443}}
	c.dialer.net.Control = c.config.guard().control
	for _, url := range []string{listener, strings.Replace(listener, "http", "https", 1), "http://no-such-name.invalid:25/"} {
		if a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.failure != failPort {
			t.Errorf("%s: %+v, want %q whatever the name leads to", url, a, failPort)
		}
		if _, ok := errors.AsType[*BlockedPortError](c.CheckHost(url)); !ok {
			t.Errorf("%s: a webhook can be made", url)
		}
	}
	if err := c.dialer.net.Control("tcp", listener[len("http://"):len(listener)-len("/hook")], nil); err == nil {
		t.Error("the check at dial time lets another port through")
	}
	for _, text := range []string{"", "0", "a", "80,", "90-80", "1-65536", "-5", "80-", "80;443"} {
		if _, err := ParsePorts(text); err == nil {
			t.Errorf("%q is taken for ports", text)
		}
	}
	got, err := ParsePorts(DefaultPorts)
	if err != nil || len(got) != 3 || got[2] != (PortRange{1024, 65535}) {
		t.Errorf("%v, %v", got, err)
	}
}
