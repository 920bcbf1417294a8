package deliver

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// routes tells a machine without a network from one that has no way to a single
// destination: an address of IPv6 where only IPv4 has a route, a host that the
// machine's own firewall refuses. The system has the same errors for both.
type routes struct {
	mu   sync.Mutex
	last map[bool]reach // by whether the family is IPv6; guarded by mu

	// probe says whether this machine has a route out; nil asks the system.
	probe func(network, address string) bool
}

// reach is the latest connection of a family, and the latest to another address.
type reach struct {
	to, other     netip.Addr
	at, otherThen time.Time
}

// reachedWithin is how long a connection shows that the network works.
const reachedWithin = time.Minute

// reached notes a connection that came about. One to this machine itself needs
// no network.
func (r *routes) reached(a net.Addr, now time.Time) {
	to, ok := a.(*net.TCPAddr)
	if !ok {
		return
	}
	address := to.AddrPort().Addr().Unmap()
	if address.IsLoopback() || !address.IsValid() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[bool]reach{}
	}
	one := r.last[address.Is6()]
	if one.to != address {
		one.other, one.otherThen = one.to, one.at
	}
	one.to, one.at = address, now
	r.last[address.Is6()] = one
}

// onlyThere says of a connection that the system refused to begin whether the
// cause is the destination's alone: others of its family were reached within a
// minute, or none of its family ever was and the other family has a route out.
func (r *routes) onlyThere(err error, now time.Time) bool {
	errno, ok := errors.AsType[syscall.Errno](err)
	op, isOp := errors.AsType[*net.OpError](err)
	call, isCall := errors.AsType[*os.SyscallError](err)
	if !ok || !isOp || !isCall || call.Syscall != "connect" { // to bind to --egress-address fails for all
		return false
	}
	switch errno {
	case syscall.ENETUNREACH, syscall.EPERM, syscall.EACCES, syscall.EADDRNOTAVAIL:
	default:
		return false
	}
	to, isTCP := op.Addr.(*net.TCPAddr)
	if !isTCP {
		return false
	}
	address := to.AddrPort().Addr().Unmap()
	r.mu.Lock()
	one, ever := r.last[address.Is6()]
	r.mu.Unlock()
	if ever {
		return one.to != address && now.Sub(one.at) < reachedWithin || one.other.IsValid() && one.other != address && now.Sub(one.otherThen) < reachedWithin
	}
	probe := r.probe
	if probe == nil {
		probe = hasRoute
	}
	if address.Is6() {
		return probe("udp4", "198.51.100.1:9")
	}
	return probe("udp6", "[2001:db8::1]:9")
}

// hasRoute asks the system for the way to an address that is nobody's (RFC 5737,
// RFC 3849). Connecting a UDP socket sends nothing.
func hasRoute(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
