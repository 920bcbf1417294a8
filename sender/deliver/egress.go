package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"walhook/doctor"
	"walhook/outbox"
	"walhook/outbox/address"
)

// BlockedAddressError says that an endpoint's host is, or resolved to, an address that
// deliveries must not go to.
type BlockedAddressError struct {
	Address string
}

func (e *BlockedAddressError) Error() string {
	return fmt.Sprintf("address %s is not public and in no allowed network", e.Address)
}

// BlockedHost says why nothing is sent to a host, in words for the account. It does not
// show the address, since the name may belong to the operator's own network.
func (e *BlockedAddressError) BlockedHost() string {
	return "the host is, or resolves to, an address that is not public: walhook sends nothing there unless the operator allows its network"
}

// BlockedPortError says that an endpoint's URL has a port that deliveries must not go
// to. It shows only the URL's own port.
type BlockedPortError struct {
	Port string
}

func (e *BlockedPortError) Error() string {
	return fmt.Sprintf("port %s is not allowed for deliveries", e.Port)
}

// BlockedHost says why nothing is sent to the port, in words for the account.
func (e *BlockedPortError) BlockedHost() string { return e.Error() + ": use 443 or ask the operator" }

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// DefaultPorts are the ports of HTTP and those above the well-known ones: deliveries
// must not reach mail servers and similar services.
const DefaultPorts = "80,443,1024-65535"

// ParsePorts reads ports and ranges of them, comma separated.
func ParsePorts(text string) ([]PortRange, error) {
	var all []PortRange
	for one := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(one), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		to, failed := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		if err != nil || failed != nil || from == 0 || from > to {
			return nil, fmt.Errorf("%q: want ports and port ranges from 1 to 65535, comma separated, such as %s", text, DefaultPorts)
		}
		all = append(all, PortRange{uint16(from), uint16(to)})
	}
	return all, nil
}

// egressGuard checks the address that is dialled. So no notation of a host, and no
// change of a name server's answer between check and use, gets round it.
type egressGuard struct {
	allow []netip.Prefix // besides public addresses
	deny  []netip.Prefix // even if allow holds them
	ports []PortRange
}

// guard makes the egress guard of the configuration.
func (c Config) guard() egressGuard {
	return egressGuard{allow: c.AllowCIDR, deny: c.DenyCIDR, ports: c.AllowPorts}
}

// checkURL refuses a URL whose host is a blocked address, in whatever form, or whose
// port is blocked. It resolves no names.
func (g egressGuard) checkURL(text string) error {
	u, _, err := address.RequestURL(text)
	if err != nil {
		return err
	}
	if err := g.checkPort(portOf(u)); err != nil {
		return err
	}
	literal, is := address.LiteralAddress(u.Hostname())
	if name := u.Hostname(); name == "localhost" || strings.HasSuffix(name, ".localhost") {
		literal, is = netip.AddrFrom4([4]byte{127, 0, 0, 1}), true // RFC 6761, section 6.3
	}
	if is && !g.allowed(literal) {
		return &BlockedAddressError{Address: literal.String()}
	}
	return nil
}

// HostFault is [HTTP.CheckHost] in words for the account.
func (h *HTTP) HostFault(address string) error {
	err := h.CheckHost(address)
	if blocked, ok := errors.AsType[*BlockedAddressError](err); ok {
		return errors.New(blocked.BlockedHost())
	}
	if blocked, ok := errors.AsType[*BlockedPortError](err); ok {
		return errors.New(blocked.BlockedHost())
	}
	return err
}

// control is a net.Dialer's Control: it runs after name resolution, before the socket
// connects.
func (g egressGuard) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !g.allowed(to.Addr()) {
		return &BlockedAddressError{Address: address}
	}
	return g.checkPort(strconv.Itoa(int(to.Port())))
}

// checkPort refuses a port that is in none of the ranges. It also runs before a name is
// resolved: its result must not depend on the name's address.
func (g egressGuard) checkPort(text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err == nil && slices.ContainsFunc(g.ports, func(r PortRange) bool { return r.First <= uint16(port) && uint16(port) <= r.Last }) {
		return nil
	}
	return &BlockedPortError{Port: text}
}

func (g egressGuard) allowed(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if holds(g.deny, a) {
		return false
	}
	if v4 := embedded(a); v4.IsValid() && holds(g.deny, v4) {
		return false
	}
	return holds(g.allow, a) || isPublic(a)
}

// holds reports whether a network holds an address. A network of IPv4-mapped addresses
// counts as one of IPv4.
func holds(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool {
		return p.Contains(a) || p.Addr().Is4In6() && p.Bits() >= 96 &&
			netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Contains(a)
	})
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

// embedded is the IPv4 address in an IPv6 one of NAT64 (RFC 6052) or 6to4 (RFC 3056),
// if an operator allows such a network; the zero Addr for none.
func embedded(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixTo4.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return netip.Addr{}
}

// isPublic reports whether an address, unmapped and without a zone, may be on the public
// Internet. IPv4 lists what is not public. IPv6 lists what is: only 2000::/3 is global
// unicast (RFC 4291), which leaves out NAT64 (64:ff9b::/96, 64:ff9b:1::/48), unique
// local, link-local, site-local, multicast, discard-only and SRv6 addresses.
func isPublic(a netip.Addr) bool {
	special := specialIPv4
	if a.Is6() {
		if !globalUnicast.Contains(a) {
			return false
		}
		special = specialIPv6
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsValid()
}

var globalUnicast = netip.MustParsePrefix("2000::/3")

// The IANA special-purpose address registries, and metadata services on public
// addresses. The table leaves out ranges that the registries call globally reachable,
// but refuses all of 192.0.0.0/24 and 2001::/23.
var (
	specialIPv4 = prefixes(
		"0.0.0.0/8",        // this network (RFC 791)
		"10.0.0.0/8",       // private (RFC 1918)
		"100.64.0.0/10",    // carrier-grade NAT (RFC 6598)
		"127.0.0.0/8",      // loopback (RFC 1122)
		"168.63.129.16/32", // a cloud's platform service, on a public address
		"169.254.0.0/16",   // link-local, metadata services (RFC 3927)
		"172.16.0.0/12",    // private (RFC 1918)
		"192.0.0.0/24",     // protocol assignments (RFC 6890)
		"192.0.2.0/24",     // documentation (RFC 5737)
		"192.88.99.0/24",   // 6to4 relay, deprecated (RFC 7526)
		"192.168.0.0/16",   // private (RFC 1918)
		"198.18.0.0/15",    // benchmarking (RFC 2544)
		"198.51.100.0/24",  // documentation (RFC 5737)
		"203.0.113.0/24",   // documentation (RFC 5737)
		"224.0.0.0/4",      // multicast (RFC 5771)
		"240.0.0.0/4",      // reserved, broadcast (RFC 1112, RFC 919)
	)
	specialIPv6 = prefixes(
		"2001::/23",     // protocol assignments: Teredo, benchmarking, ORCHID (RFC 2928)
		"2001:db8::/32", // documentation (RFC 3849)
		"2002::/16",     // 6to4 (RFC 3056)
		"3fff::/20",     // documentation (RFC 9637)
	)
)

func prefixes(cidrs ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(cidrs))
	for i, c := range cidrs {
		all[i] = netip.MustParsePrefix(c)
	}
	return all
}

// The ids of the checks of egress, which never change.
const (
	checkGuard   = "egress.guard"
	checkAddress = "egress.address"
)

// Checks returns the ids of the checks of [Examine], in its order.
func Checks() []string { return []string{checkGuard, checkAddress} }

// Examine checks the egress guard on this machine, and whether deliveries can use the
// configured local address.
func Examine(ctx context.Context, c Config) []doctor.Finding {
	c = c.WithDefaults()
	r := doctor.NewReport(Checks()...)
	h := newHTTP(c)
	defer h.Close()
	if err := examineGuard(ctx, h, r); err != nil {
		r.Warn(checkGuard, doctor.Run("walhook doctor"), "the check failed: %v", err)
	}
	examineAddress(ctx, c, r)
	return r.Findings()
}

// probeSecret signs the attempts of examineGuard.
const probeSecret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// loopbackNames are notations of this machine's address that resolvers, the C library
// and net/http understand.
func loopbackNames() []string {
	return []string{"127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "127。0。0。1", "①②⑦.⓪.⓪.①", "0.0.0.0"}
}

// examineGuard makes a listener on this machine, and attempts to deliver to it. None may
// arrive, unless this machine's address is allowed.
func examineGuard(ctx context.Context, h *HTTP, r *doctor.Report) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("check the egress guard: timed out"))
	defer cancel()
	var seen atomic.Int64
	address, stop, err := listenLocally(ctx, &seen)
	if err != nil {
		return err
	}
	defer stop()
	_, port, _ := net.SplitHostPort(address)
	for _, host := range loopbackNames() {
		endpoint := outbox.Endpoint{URL: "http://" + host + ":" + port + "/", Secrets: []string{probeSecret}}
		h.Deliver(ctx, endpoint, outbox.Event{WebhookID: "test_doctor", Body: []byte("{}")})
	}
	// Once this request is answered, the listener has seen all before it.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	direct := http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	response, err := direct.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	reportGuard(h.config, seen.Load()-1, r)
	return nil
}

// listenLocally counts the connections to address.
func listenLocally(ctx context.Context, seen *atomic.Int64) (address string, stop func(), err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1024))
			w.WriteHeader(http.StatusNoContent)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				seen.Add(1)
			}
		},
		ReadHeaderTimeout: time.Second,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed
	}()
	return listener.Addr().String(), func() {
		_ = server.Close()
		<-ended
	}, nil
}

func reportGuard(c Config, seen int64, r *doctor.Report) {
	var names []string
	open := false
	for _, network := range c.AllowCIDR {
		names = append(names, network.String())
		open = open || network.Bits() == 0
	}
	allowed := c.guard().allowed(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	switch {
	case seen > 0 && !allowed:
		r.Fail(checkGuard, doctor.Steps{{Kind: doctor.Shell, Text: "install another build of walhook, and do not run this one"}},
			"%s reached this machine, which no --allow-cidr allows", doctor.Count(int(seen), "connection"))
	case open:
		r.Warn(checkGuard, doctor.Steps{{Kind: doctor.Setting, Text: "--allow-cidr=", Note: "or only the networks that endpoints are really in"}},
			"%s allows every address: an account's URL may reach your own network", doctor.List(names, doctor.ListMost))
	case allowed:
		r.OK(checkGuard, "%s allowed besides public addresses: deliveries may reach this machine", doctor.List(names, doctor.ListMost))
	case len(names) > 0:
		r.OK(checkGuard, "%s allowed besides public addresses; nothing reached this machine", doctor.List(names, doctor.ListMost))
	default:
		r.OK(checkGuard, "public addresses only; none of %d disguised addresses reached this machine", len(loopbackNames()))
	}
}

// examineAddress checks whether a socket can be bound to the local address.
func examineAddress(ctx context.Context, c Config, r *doctor.Report) {
	if !c.EgressAddress.IsValid() {
		r.OK(checkAddress, "any")
		return
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort(c.EgressAddress.String(), strconv.Itoa(0)))
	if err != nil {
		r.Fail(checkAddress, doctor.Steps{{Kind: doctor.Setting, Text: "--egress-address=", Note: ownAddresses()}},
			"deliveries cannot use the local address %s: %v", c.EgressAddress, err)
		return
	}
	_ = listener.Close()
	r.OK(checkAddress, "%s", c.EgressAddress)
}

// ownAddresses lists what --egress-address may be, for display.
func ownAddresses() string {
	var names []string
	addresses, _ := net.InterfaceAddrs() // none after an error: it is a hint
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && !prefix.Addr().IsLoopback() {
			names = append(names, prefix.Addr().String())
		}
	}
	return fmt.Sprintf("or an address of this machine: %s", strings.Join(names, ", "))
}
