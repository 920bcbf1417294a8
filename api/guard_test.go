package api

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestGuard_RightTokensAreNeverThrottledByWrongOnes has one peer, as a proxy is
// one, come with wrong tokens of every kind, and then with right ones that this
// process has not seen before.
func TestGuard_RightTokensAreNeverThrottledByWrongOnes(t *testing.T) {
	w := newWorld(t)
	seen, fresh := w.token(t, "7", ""), w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	w.want(t, 200, seen, "GET", path, "")
	stale, statuses := "whtok_"+strings.Repeat("a", 43), map[int]int{}
	for range badBurst + 10 {
		statuses[w.call(t, stale, "GET", path, "").status]++
	}
	if statuses[401] != badBurst || statuses[429] != 10 {
		t.Errorf("a stale token: %v", statuses)
	}
	if r := w.call(t, "whtok_"+strings.Repeat("b", 43), "GET", path, ""); r.status != 401 {
		t.Errorf("another wrong token pays for it: %d", r.status)
	}
	// As if many more had come: each of its own beginning.
	for range addressBurst {
		w.api.guard.wrong(netip.MustParseAddr("127.0.0.1"), "x", [32]byte{})
	}
	if r := w.want(t, 429, "whtok_c", "GET", path, ""); r.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	alike := fresh[:prefixLength] + strings.Repeat("c", 38)
	for range badBurst + 1 {
		w.call(t, alike, "GET", path, "")
	}
	w.want(t, 429, alike, "GET", path, "")
	for name, token := range map[string]string{"seen": seen, "new": fresh, "the operator's": adminToken} {
		for range 3 {
			if r := w.call(t, token, "GET", path, ""); r.status != 200 {
				t.Errorf("%s: %d %s", name, r.status, r.text)
			}
		}
	}
}

func TestGuard_RemembersABoundedNumber(t *testing.T) {
	t.Parallel()
	g := newGuard(adminToken)
	began := time.Now()
	for n := range 3 * guardRemember {
		var hash [32]byte
		hash[0], hash[1], hash[2] = byte(n), byte(n>>8), byte(n>>16)
		from := netip.AddrFrom4([4]byte{10, hash[2], hash[1], hash[0]})
		g.wrong(from, string(hash[:]), hash)
		g.good(hash)
		if len(g.bad) > guardRemember+1 || len(g.known) > guardRemember || len(g.right) > guardRemember {
			t.Fatalf("after %d: %d, %d, %d", n, len(g.bad), len(g.known), len(g.right))
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestClients_TheLastAddressThatIsNoProxysCounts names whom a request counts for.
func TestClients_TheLastAddressThatIsNoProxysCounts(t *testing.T) {
	t.Parallel()
	c, err := newClients([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	if err != nil {
		t.Fatal(err)
	}
	type headers [][2]string
	for _, test := range []struct {
		name, remote string
		headers      headers
		want         string
	}{
		{"no proxy", "192.0.2.1:99", headers{{"X-Forwarded-For", "198.51.100.1"}, {"Forwarded", "for=198.51.100.1"}}, "192.0.2.1"},
		{"a proxy that says nothing", "10.0.0.7:99", nil, "10.0.0.7"},
		{"one", "10.0.0.7:99", headers{{"X-Forwarded-For", "198.51.100.1"}}, "198.51.100.1"},
		{"what the client wrote", "10.0.0.7:99", headers{{"X-Forwarded-For", "203.0.113.9, 198.51.100.1"}}, "198.51.100.1"},
		{"two proxies", "10.0.0.7:99", headers{{"X-Forwarded-For", "203.0.113.9, 198.51.100.1, 10.1.1.1"}}, "198.51.100.1"},
		{"several headers", "10.0.0.7:99", headers{{"X-Forwarded-For", "203.0.113.9"}, {"X-Forwarded-For", "198.51.100.1"}, {"X-Forwarded-For", "10.1.1.1"}}, "198.51.100.1"},
		{"malformed", "10.0.0.7:99", headers{{"X-Forwarded-For", "198.51.100.1, junk"}}, "10.0.0.7"},
		{"empty", "10.0.0.7:99", headers{{"X-Forwarded-For", ""}}, "10.0.0.7"},
		{"malformed behind the client", "10.0.0.7:99", headers{{"X-Forwarded-For", "junk, 198.51.100.1"}}, "198.51.100.1"},
		{"proxies alone", "10.0.0.7:99", headers{{"X-Forwarded-For", "10.1.1.1"}}, "10.0.0.7"},
		{"a port", "10.0.0.7:99", headers{{"X-Forwarded-For", "198.51.100.1:4711"}}, "198.51.100.1"},
		{"IPv6", "[fd00::1]:99", headers{{"X-Forwarded-For", "2001:db8:1:2:3::4"}}, "2001:db8:1:2::"},
		{"IPv6 with a port", "10.0.0.7:99", headers{{"X-Forwarded-For", "[2001:db8:1:2:3::4]:4711"}}, "2001:db8:1:2::"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.7]:99", headers{{"X-Forwarded-For", "::ffff:198.51.100.1"}}, "198.51.100.1"},
		{"Forwarded", "10.0.0.7:99", headers{{"Forwarded", `for=203.0.113.9, For="[2001:db8:1:2:3::4]:4711";proto=https, for=10.2.2.2`}}, "2001:db8:1:2::"},
		{"Forwarded, hidden", "10.0.0.7:99", headers{{"Forwarded", "for=198.51.100.1, for=_secret"}}, "10.0.0.7"},
		{"both, alike", "10.0.0.7:99", headers{{"Forwarded", "for=198.51.100.1"}, {"X-Forwarded-For", "198.51.100.1"}}, "198.51.100.1"},
		{"both, of which one is the client's", "10.0.0.7:99", headers{{"Forwarded", "for=203.0.113.9"}, {"X-Forwarded-For", "198.51.100.1"}}, "10.0.0.7"},
	} {
		r := &http.Request{RemoteAddr: test.remote, Header: http.Header{}}
		for _, h := range test.headers {
			r.Header.Add(h[0], h[1])
		}
		if got := c.of(r); got != netip.MustParseAddr(test.want) {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
