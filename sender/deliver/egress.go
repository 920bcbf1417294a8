package deliver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"walhook/outbox"
)

// BlockedAddressError says that an endpoint's name led to an address that
// deliveries must not go to.
type BlockedAddressError struct {
	Address string
}

func (e *BlockedAddressError) Error() string {
	return fmt.Sprintf("address %s is not public and no allowed network holds it", e.Address)
}

// BlockedHost says for the account's people why nothing is sent to a host. What
// its name leads to is not theirs to know: it may be a name of our own network.
func (e *BlockedAddressError) BlockedHost() string {
	return "the host is, or its name leads to, an address that is not public: nothing is sent there unless the operator allows its network"
}

// BlockedPortError says that an endpoint's URL names a port that deliveries must
// not go to. It shows nothing but the URL's own port.
type BlockedPortError struct {
	Port string
}

func (e *BlockedPortError) Error() string {
	return fmt.Sprintf("port %s is not one that deliveries may go to", e.Port)
}

// BlockedHost says for the account's people why nothing is sent there.
func (e *BlockedPortError) BlockedHost() string { return e.Error() + ": use 443 or ask the operator" }

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// DefaultPorts are those of HTTP and those that no well-known service has: mail
// servers and databases of strangers are not to be talked to.
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
			return nil, fmt.Errorf("%q: want ports and ranges of them from 1 to 65535, comma separated, such as %s", text, DefaultPorts)
		}
		all = append(all, PortRange{uint16(from), uint16(to)})
	}
	return all, nil
}

// egressGuard decides by the address that is dialled, so that no way of
// writing a host and no answer of a name server that changes between check
// and use gets round it.
type egressGuard struct {
	allow []netip.Prefix // besides public addresses
	deny  []netip.Prefix // whatever else allows them
	ports []PortRange
}

// guard is what the configuration says about where deliveries may go.
func (c Config) guard() egressGuard {
	return egressGuard{allow: c.AllowCIDR, deny: c.DenyCIDR, ports: c.AllowPorts}
}

// checkURL refuses a URL whose host is an address in whatever form, or whose port
// is one, that deliveries must not go to. A name is not looked up.
func (g egressGuard) checkURL(address string) error {
	u, _, err := outbox.RequestURL(address)
	if err != nil {
		return err
	}
	if err := g.checkPort(portOf(u)); err != nil {
		return err
	}
	literal, is := outbox.LiteralAddress(u.Hostname())
	if name := u.Hostname(); name == "localhost" || strings.HasSuffix(name, ".localhost") {
		literal, is = netip.AddrFrom4([4]byte{127, 0, 0, 1}), true // RFC 6761, section 6.3
	}
	if is && !g.allowed(literal) {
		return &BlockedAddressError{Address: literal.String()}
	}
	return nil
}

// HostFault is [HTTP.CheckHost] in words for the account's people.
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

// control is for net.Dialer.Control: it runs after name resolution, before
// the socket connects.
func (g egressGuard) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !g.allowed(to.Addr()) {
		return &BlockedAddressError{Address: address}
	}
	return g.checkPort(strconv.Itoa(int(to.Port())))
}

// checkPort refuses a port that is in none of the ranges. It is asked before a
// name is resolved too: the answer must not depend on what the name leads to.
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

// holds says whether a network holds an address. A network of mapped IPv4
// addresses is one of IPv4.
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

// embedded is the IPv4 address that an IPv6 one leads to by NAT64 (RFC 6052) or
// 6to4 (RFC 3056), where an operator allows such a network; the zero Addr for none.
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

// isPublic says whether an address, unmapped and without a zone, may be on the
// public Internet. IPv6 is the other way round than IPv4: only 2000::/3 is
// global unicast (RFC 4291), so NAT64 (64:ff9b::/96, 64:ff9b:1::/48), unique
// local, link-local, site-local, multicast, discard-only and SRv6 addresses
// are outside it to begin with.
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

// The IANA special-purpose address registries, and the metadata services that
// live on public addresses. Ranges that the registries call globally reachable
// are left out of the table; 192.0.0.0/24 and 2001::/23 are refused whole.
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
