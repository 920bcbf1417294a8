package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errTLSTimeout is the cause that a handshake's context is ended with.
var errTLSTimeout = errors.New("attempt: time limit for the TLS handshake")

// errCertificateAsked says of a handshake that failed how far it had come.
var errCertificateAsked = errors.New("after the receiver asked for a client certificate")

// dialer opens the connections of attempts: through the egress guard, and over
// TLS by itself instead of net/http's, since only the handshake tells which
// version of HTTP a receiver speaks.
type dialer struct {
	net        net.Dialer
	servers    nameServers
	routes     routes
	tls        *tls.Config
	tlsTimeout time.Duration
	// dial is net's, where no test looks at the connections.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func newDialer(c Config) *dialer {
	d := &dialer{
		net: net.Dialer{
			Timeout: c.ConnectTimeout,
			Control: c.guard().control,
		},
		tls:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs, NextProtos: []string{"h2", "http/1.1"}},
		tlsTimeout: c.TLSTimeout,
	}
	d.servers.connect = (&net.Dialer{}).DialContext
	d.net.Resolver = d.servers.resolver()
	if c.EgressAddress.IsValid() {
		d.net.LocalAddr = &net.TCPAddr{IP: c.EgressAddress.AsSlice(), Zone: c.EgressAddress.Zone()}
	}
	d.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.net.DialContext(ctx, network, address)
		if err == nil {
			d.routes.reached(conn.RemoteAddr(), time.Now())
		}
		return conn, err
	}
	return d
}

// dialTLS opens a connection, over a wire, and agrees on a version of HTTP.
func (d *dialer) dialTLS(ctx context.Context, address string) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	socket, err := d.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	config := d.tls.Clone()
	config.ServerName, _, _ = strings.Cut(host, "%") // a certificate names no zone
	beneath := newWire(socket)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		beneath.asked.Store(true)
		return &tls.Certificate{}, nil // there is none
	}
	secured := tls.Client(beneath, config)
	ctx, cancel := context.WithTimeoutCause(ctx, d.tlsTimeout, errTLSTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		socket.Close()
		if cause := context.Cause(ctx); errors.Is(cause, errTLSTimeout) {
			err = cause
		} else if beneath.asked.Load() {
			err = fmt.Errorf("%w: %w", errCertificateAsked, err)
		}
		return nil, err
	}
	return secured, nil
}

// wireOf is what lies beneath a connection that dialTLS opened; nil for another.
func wireOf(c *tls.Conn) *wire {
	w, _ := c.NetConn().(*wire)
	return w
}

// wireUnder is wireOf for any connection that a client shows.
func wireUnder(c net.Conn) *wire {
	switch c := c.(type) {
	case *tls.Conn:
		return wireOf(c)
	case *gate:
		return c.wire
	case *frames:
		return wireUnder(c.Conn)
	}
	return nil
}

func isHTTP2(c *tls.Conn) bool { return c.ConnectionState().NegotiatedProtocol == "h2" }

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
