package deliver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// namespaceEnv marks the process of a test that has a network to itself.
const namespaceEnv = "TEST_IN_NAMESPACE"

// inNamespace runs the calling test again, in a process with an empty network of its own,
// and is true there. It skips the test on a machine without network namespaces; under CI
// only if the machine cannot have them.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceEnv) != "" {
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		withoutNamespace(t, "there is no ip command here to make a network with")
	}
	var out []byte
	var err error
	ran := false
	for _, attributes := range []*syscall.SysProcAttr{
		{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		},
		{Cloneflags: syscall.CLONE_NEWNET}, // for root where there are no user namespaces
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), namespaceEnv+"=1")
		cmd.SysProcAttr = attributes
		out, err = cmd.CombinedOutput()
		if _, ran = errors.AsType[*exec.ExitError](err); ran || err == nil {
			ran = true
			break
		}
	}
	if !ran {
		withoutNamespace(t, fmt.Sprintf("this machine gives a test no network of its own: %v", err))
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
	return false
}

// withoutNamespace skips a test, or fails it under CI where the machine could
// have given a network: to root, or by user namespaces.
func withoutNamespace(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" && couldGiveNamespace() {
		t.Fatalf("%s, though this machine could: CI proves what leaves it only in a network of its own", why)
	}
	t.Skip(why)
}

func couldGiveNamespace() bool {
	if os.Geteuid() == 0 {
		return true
	}
	number := func(path string) string {
		text, _ := os.ReadFile(path) // absent where the kernel has no such limit
		return strings.TrimSpace(string(text))
	}
	most := number("/proc/sys/user/max_user_namespaces")
	return most != "" && most != "0" && number("/proc/sys/kernel/unprivileged_userns_clone") != "0" &&
		number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != "1"
}

func setNetwork(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", command, err, out)
		}
	}
}

// TestEgress_NoListenerInASpecialRangeEverSeesAConnection runs in a network in which
// every address is this machine's: one listener would see a connection to any of them,
// and does see those to public ones.
func TestEgress_NoListenerInASpecialRangeEverSeesAConnection(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	setNetwork(t, "link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo")
	var mu sync.Mutex
	seen := map[netip.Addr]bool{} // guarded by mu
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Listener.Close()
	var err error
	if server.Listener, err = net.Listen("tcp", ":0"); err != nil {
		t.Fatal(err)
	}
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			mu.Lock()
			defer mu.Unlock()
			seen[c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()] = true
		}
	}
	server.Start()
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port

	c := newHTTP(Config{ConnectTimeout: 2 * time.Second, AttemptTimeout: 5 * time.Second}.WithDefaults())
	own(c).pool.most = 0 // each attempt opens a connection
	var answer []string  // of the name server
	resolveBy(t, c, func(int) dnsAnswer { return dnsAnswer{addresses: answer} })
	deliver := func(host string) outcomeOf {
		a := c.deliver(t.Context(), testEndpoint(fmt.Sprintf("http://%s:%d/", host, port)), testEvent, time.Now())
		return outcomeOf{a.status, a.failure}
	}
	const name = "receiver.example."
	for _, a := range append(publicAddresses(), "2606:4700::1111", "2a00::1") {
		address := netip.MustParseAddr(a)
		answer = []string{a}
		for _, host := range []string{bracketed(address), name} {
			if got := deliver(host); got.status != 200 {
				t.Errorf("%s (%s) is public: %+v", host, a, got)
			}
		}
		mu.Lock()
		if !seen[address] {
			t.Fatalf("a connection to %s is not seen: the test proves nothing", a)
		}
		mu.Unlock()
	}
	mu.Lock()
	clear(seen)
	mu.Unlock()

	tried := 0
	for _, cidr := range specialRanges {
		for _, address := range samples(netip.MustParsePrefix(cidr)) {
			for _, form := range disguises(address) {
				answer = []string{form.String()}
				for _, host := range []string{bracketed(form), name} {
					tried++
					if got := deliver(host); got.failure != failBlocked {
						t.Errorf("%s, which is %s of %s, as %s: %+v, want %s", form, address, cidr, host, got, failBlocked)
					}
				}
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for address := range seen {
		t.Errorf("a listener on %s saw a connection", address)
	}
	t.Logf("%d ways of going where nothing may go", tried)
}

type outcomeOf struct {
	status  int
	failure failure
}

// specialRanges are the IANA special-purpose address registries (those of
// October 2024), the ranges that transition mechanisms embed IPv4 addresses in,
// multicast, reserved space and the metadata services.
var specialRanges = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.0.0/29",
	"192.0.0.8/32", "192.0.0.170/31", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "169.254.169.254/32", "100.100.100.200/32", "168.63.129.16/32",
	"::/128", "::1/128", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/32", "2001:2::/48",
	"2001:10::/28", "2001:20::/28", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	"4000::/3", "8000::/2", "fd00:ec2::254/128",
}

func publicAddresses() []string {
	return []string{"1.1.1.1", "9.255.255.255", "172.32.0.0", "223.255.255.255"}
}

func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// samples are the first and the last address of a range and some between.
func samples(p netip.Prefix) []netip.Addr {
	first := p.Masked().Addr()
	fill := func(next func() byte) netip.Addr {
		bytes := first.AsSlice()
		for i := range bytes {
			host := byte(0xff)
			if kept := p.Bits() - 8*i; kept >= 8 {
				host = 0
			} else if kept > 0 {
				host >>= kept
			}
			bytes[i] |= next() & host
		}
		a, _ := netip.AddrFromSlice(bytes)
		return a
	}
	all := []netip.Addr{first, fill(func() byte { return 0xff })}
	random := rand.New(rand.NewPCG(1, uint64(p.Bits())))
	for range 3 {
		all = append(all, fill(func() byte { return byte(random.Uint32()) }))
	}
	return all
}

// disguises are an address and, for an IPv4 one, the IPv6 addresses that embed it: mapped,
// compatible, translated, NAT64 with either prefix, 6to4 and Teredo.
func disguises(a netip.Addr) []netip.Addr {
	all := []netip.Addr{a}
	if !a.Is4() {
		return all
	}
	v4 := a.As4()
	n := binary.BigEndian.Uint32(v4[:])
	high, low := n>>16, n&0xffff
	for _, format := range []string{"::ffff:%x:%x", "::%x:%x", "::ffff:0:%x:%x", "64:ff9b::%x:%x", "64:ff9b:1::%x:%x", "2002:%x:%x::1"} {
		all = append(all, netip.MustParseAddr(fmt.Sprintf(format, high, low)))
	}
	teredo := fmt.Sprintf("2001:0:101:101:0:0:%x:%x", high^0xffff, low^0xffff) // RFC 4380, 4: obfuscated
	return append(all, netip.MustParseAddr(teredo))
}

// TestAttempt_FaultsOfTheNetworkAreToldApart has a network without a route, and one whose
// router answers that there is none.
func TestAttempt_FaultsOfTheNetworkAreToldApart(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	setNetwork(t, "link set lo up", "route add unreachable 8.8.8.0/24", "route add prohibit 9.9.9.0/24")
	c := newHTTP(Config{ConnectTimeout: time.Second}.WithDefaults())
	for url, want := range map[string]failure{
		"http://8.8.8.8/": failUnreachable,
		"http://9.9.9.9/": failNoNetwork,
		"http://1.1.1.1/": failNoNetwork,
	} {
		if a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.failure != want {
			t.Errorf("%s: failure %q (%s), want %q", url, a.failure, a.detail, want)
		}
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	a := c.deliver(t.Context(), testEndpoint("http://8.8.8.8/"), testEvent, time.Now())
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if a.failure != failNoResource {
		t.Errorf("without descriptors: failure %q (%s), want %q", a.failure, a.detail, failNoResource)
	}
}

// TestAttempt_NoRouteToOneReceiverAloneIsTheReceivers has a route for IPv4 and none for
// IPv6, as most containers do, and then a firewall against one host.
func TestAttempt_NoRouteToOneReceiverAloneIsTheReceivers(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	setNetwork(t, "link set lo up", "addr add 10.9.0.1/32 dev lo", "route add prohibit 9.9.9.0/24")
	c := newHTTP(Config{ConnectTimeout: time.Second}.WithDefaults())
	try := func(when, url string, want failure) {
		t.Helper()
		a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
		if a.failure != want || a.failure.own() != want.own() {
			t.Errorf("%s, %s: failure %q (%s), want %q", when, url, a.failure, a.detail, want)
		}
	}
	const ipv6Only = "http://[2606:4700::1111]/"
	try("no network at all", ipv6Only, failNoNetwork)
	setNetwork(t, "route add default dev lo")
	try("IPv4 alone has a route", ipv6Only, failNoRoute)
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err == nil {
		try("IPv6 is switched off", ipv6Only, failNoRoute)
	}
	try("nothing was reached yet, the family has a route", "http://9.9.9.9/", failNoNetwork)

	setNetwork(t, "route add local 7.7.7.0/24 dev lo")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Listener.Close()
	var err error
	if server.Listener, err = net.Listen("tcp4", ":0"); err != nil {
		t.Fatal(err)
	}
	server.Start()
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	try("reached", fmt.Sprintf("http://7.7.7.7:%d/", port), "")
	try("another host is reached", "http://9.9.9.9/", failNoRoute)
	setNetwork(t, "route del local 7.7.7.0/24 dev lo", "route add prohibit 7.7.7.0/24")
	own(c).pool.close()
	try("what was reached last is refused now, and nothing else was reached", "http://7.7.7.7:8080/", failNoNetwork)

	c = newHTTP(Config{ConnectTimeout: time.Second, EgressAddress: netip.MustParseAddr("198.51.100.9")}.WithDefaults())
	try("the egress address is not this machine's", "http://1.1.1.1/", failNoResource)
}

// TestAttempt_AReceiverThatDoesNotAcceptIsATimeoutOfConnecting fills a listener's
// queue, so that the kernel answers no connection any more.
func TestAttempt_AReceiverThatDoesNotAcceptIsATimeoutOfConnecting(t *testing.T) {
	t.Parallel()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(socket)
	if err := errors.Join(syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(socket, 0)); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			break // it is full
		}
		defer conn.Close()
	}
	c := testHTTP(t, shortConnect)
	atMost(t, 3*time.Second, func() {
		if a := c.deliver(t.Context(), testEndpoint("http://"+address+"/"), testEvent, time.Now()); a.failure != failTimeoutConnect {
			t.Errorf("failure %q (%s), want %q", a.failure, a.detail, failTimeoutConnect)
		}
	})
}
