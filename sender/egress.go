package sender

import (
	"fmt"
	"net/netip"
	"syscall"
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

// egressGuard decides by the address that is dialled, so that no way of
// writing a host and no answer of a name server that changes between check
// and use gets round it.
type egressGuard struct {
	allow []netip.Prefix
}

// control is for net.Dialer.Control: it runs after name resolution, before
// the socket connects.
func (g egressGuard) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !g.allowed(to.Addr()) {
		return &BlockedAddressError{Address: address}
	}
	return nil
}

func (g egressGuard) allowed(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(a) || p.Addr().Is4In6() && p.Bits() >= 96 &&
			netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Contains(a) {
			return true
		}
	}
	return isPublic(a)
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
