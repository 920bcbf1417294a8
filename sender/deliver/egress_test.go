package deliver

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"walhook/doctor"
	"walhook/outbox"
)

func TestEgress_RefusesEverySpecialPurposeRange(t *testing.T) {
	refused := []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
		"127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.0.192", "192.0.0.255", "192.88.99.255", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255",
		"198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:7f00:1", "::808:808", "64:ff9b:1:ffff::1",
		"64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "100:0:0:1::1",
		"2001::1", "2001:0:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1", "2001:db8::1",
		"2002:7f00:1::1", "2002:808:808::1", "3fff::1", "3fff:fff::1", "5f00::1",
		"fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
		"4000::1", "e000::1",
	}
	for _, a := range refused {
		if (egressGuard{}).allowed(netip.MustParseAddr(a)) {
			t.Errorf("%s is allowed", a)
		}
	}
	for _, a := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
		"169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255",
		"198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8", "2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00::1", "3ffe::1",
	} {
		if !(egressGuard{}).allowed(netip.MustParseAddr(a)) {
			t.Errorf("%s is refused", a)
		}
	}
}

func TestEgress_AllowsWhatAnOperatorAllowsAndNoMore(t *testing.T) {
	g := egressGuard{allow: []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("::ffff:10.1.0.0/112"),
	}}
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::ffff:127.0.0.1": true, "10.1.2.3": true, "fd00:1::5": true, "8.8.8.8": true,
		"10.2.0.1": false, "::1": false, "fd00:2::5": false, "2002:7f00:1::1": false, "64:ff9b::7f00:1": false,
	} {
		if got := g.allowed(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: allowed %v, want %v", address, got, want)
		}
	}
	if err := g.control("tcp", "not an address", nil); err == nil {
		t.Error("an address that cannot be read is dialled")
	}
}

func TestEgress_NoWayOfWritingLoopbackReachesAListener(t *testing.T) {
	for _, proxy := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(proxy, "http://8.8.8.8:1")
	}
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := listener.Accept(); err == nil {
			seen <- conn.RemoteAddr().String()
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	c := newHTTP(Config{ConnectTimeout: time.Second}.WithDefaults())
	for _, host := range []string{
		"127.0.0.1", "localhost", "2130706433", "127.1", "0x7f000001", "0x7f.1", "017700000001", "①②⑦.⓪.⓪.①", "127。0。0。1",
		"0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1.", "LOCALHOST",
		"[::1%25lo]", "[fe80::1%25lo]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::1]",
		"[0:0:0:0:0:ffff:7f00:0001]", "127.000.000.001", "127.0.1", "0177.0.0.1", "%31%32%37.0.0.1",
	} {
		for _, scheme := range []string{"http", "https"} {
			e := outbox.Endpoint{URL: scheme + "://" + host + ":" + port + "/", Secrets: []string{secretA}}
			a := c.deliver(t.Context(), e, outbox.Event{WebhookID: "evt_1", Body: []byte("{}")}, time.Now())
			// The Go resolver refuses a form that it does not know.
			if a.status != 0 || a.failure != failBlocked && a.failure != failDNS && a.failure != failDNSNotFound && a.failure != failURL && a.failure != failDNSHere {
				t.Errorf("%s: status %d, failure %q (%s)", e.URL, a.status, a.failure, a.detail)
			}
			if strings.HasPrefix(host, "127.0.0.1") && !strings.HasSuffix(host, ".") && a.failure != failBlocked {
				t.Errorf("%s: failure %q, want %q", e.URL, a.failure, failBlocked)
			}
		}
	}
	listener.Close()
	<-done
	select {
	case from := <-seen:
		t.Errorf("the listener saw a connection from %s", from)
	default:
	}
}

// CheckHost checks an address in a URL at once. It does not resolve a name, so that an
// account cannot learn which names exist.
func TestHTTP_RefusesAddressesInEveryFormAndLooksNoNameUp(t *testing.T) {
	t.Parallel()
	c, err := NewHTTP(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, address := range []string{
		"http://127.0.0.1/", "http://127.1/", "http://0/", "http://2130706433/", "http://0x7f000001/", "http://0177.1/", "http://0X7F.0.0.1/",
		"http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://10.0.0.1./", "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://[fe80::1%25eth0]/",
		"http://[64:ff9b::7f00:1]/", "http://169.254.169.254:8080/", "http://user:pass@192.168.0.1/", "http://0xa9fea9fe/", "https://LOCALHOST./", "http://a.localhost/",
	} {
		if c.CheckHost(address) == nil {
			t.Errorf("%s is taken", address)
		}
	}
	for _, address := range []string{
		"http://8.8.8.8/", "http://[2606:4700::1111]/", "https://example.com/", "http://intranet/", "http://postgres.internal:5432/",
		"http://no-such-name.invalid/", "http://metadata.google.internal/",
	} {
		if err := c.CheckHost(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	open, err := NewHTTP(Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, address := range []string{"http://127.0.0.1/", "http://2130706433/", "http://localhost:8080/"} {
		if err := open.CheckHost(address); err != nil {
			t.Errorf("%s, in an allowed network: %v", address, err)
		}
	}
}

func findingOf(t *testing.T, findings []doctor.Finding, id string) doctor.Finding {
	t.Helper()
	for _, f := range findings {
		if f.ID == id {
			return f
		}
	}
	t.Fatalf("no finding of %s", id)
	return doctor.Finding{}
}

func TestExamine_TriesTheEgressGuard(t *testing.T) {
	t.Parallel()
	allow := func(network string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(network)} }
	for _, test := range []struct {
		name string
		c    Config
		want doctor.Status
		says string
	}{
		{"public addresses only", Config{}, doctor.OK, "disguised addresses reached this machine"},
		{"a network elsewhere", Config{AllowCIDR: allow("10.0.0.0/8")}, doctor.OK, "10.0.0.0/8 allowed"},
		{"this machine", Config{AllowCIDR: allow("127.0.0.0/8")}, doctor.OK, "may reach this machine"},
		{"everything", Config{AllowCIDR: allow("0.0.0.0/0")}, doctor.Warning, "every address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := findingOf(t, Examine(t.Context(), test.c), checkGuard)
			if f.Status != test.want || !strings.Contains(f.Evidence, test.says) || f.Bad() != (len(f.Fix) > 0) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

// A guard that is not asked is found by what gets through.
func TestExamine_NamesAnEgressGuardThatLetsConnectionsThrough(t *testing.T) {
	t.Parallel()
	h := newHTTP(Config{}.WithDefaults())
	defer h.Close()
	h.dialer.net.Control = nil
	r := doctor.NewReport(Checks()...)
	if err := examineGuard(t.Context(), h, r); err != nil {
		t.Fatal(err)
	}
	if f := findingOf(t, r.Findings(), checkGuard); f.Status != doctor.Failed {
		t.Errorf("got %+v", f)
	}
}

func TestExamine_TriesTheEgressAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]doctor.Status{"127.0.0.1": doctor.OK, "192.0.2.1": doctor.Failed, "": doctor.OK} {
		var c Config
		if address != "" {
			c.EgressAddress = netip.MustParseAddr(address)
		}
		if f := findingOf(t, Examine(t.Context(), c), checkAddress); f.Status != want {
			t.Errorf("%q: got %+v", address, f)
		}
	}
}
