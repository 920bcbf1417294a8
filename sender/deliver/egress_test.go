package deliver

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

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
			// A form that does not resolve with the Go resolver is refused by that.
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
