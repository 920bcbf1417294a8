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
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// errTLSTimeout is the cause of the end of a handshake's context.
var errTLSTimeout = errors.New("attempt: time limit for the TLS handshake")

// errCertificateAsked marks a handshake that failed after the receiver's request for a
// certificate.
var errCertificateAsked = errors.New("after the receiver asked for a client certificate")

// dialer opens the connections of attempts, through the egress guard. It does TLS
// itself, for both clients, since only the handshake tells which version of HTTP a
// receiver speaks.
type dialer struct {
	net        net.Dialer
	servers    nameServers
	routes     routes
	tls        *tls.Config
	identities identities
	tlsTimeout time.Duration
	// dial opens a TCP connection. Tests replace it.
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

// dialTLS opens a TLS connection over a wire, and negotiates the version of HTTP.
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
		return d.identities.present(config.ServerName, time.Now()), nil
	}
	if more := d.identities.authorities; more != nil {
		config.RootCAs = more.current(time.Now())
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

// wireOf is the wire beneath a connection of dialTLS; nil for another connection.
func wireOf(c *tls.Conn) *wire {
	w, _ := c.NetConn().(*wire)
	return w
}

// wireUnder is wireOf for any connection of a client.
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

// routes tells a machine without a network from one without a route to a single
// destination: an IPv6 address where only IPv4 has a route, or a host that the
// machine's own firewall refuses. The system returns the same errors for both.
type routes struct {
	mu   sync.Mutex
	last map[bool]reach // by whether the family is IPv6; guarded by mu

	// probe reports whether this machine has a route to an address; nil means
	// hasRoute. Tests replace it.
	probe func(network, address string) bool
}

// reach is the last connection of an address family, and the last to another address.
type reach struct {
	to, other     netip.Addr
	at, otherThen time.Time
}

// reachedWithin is how long a connection shows that the network works.
const reachedWithin = time.Minute

// reached notes a connection. It ignores one to this machine, which needs no network.
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

// onlyThere reports whether the system refused a connection because of its destination
// alone: another address of its family was reached within a minute, or none of its
// family ever was and the other family has a route.
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

// hasRoute asks the system for the route to a documentation address (RFC 5737,
// RFC 3849). Connecting a UDP socket sends nothing.
func hasRoute(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// nameServers tells a name whose own servers fail from failing name servers of this
// machine. A failed lookup looks the same in both cases, so work then asks what any
// working name server can answer: for the root, and for the name that was resolved
// last.
type nameServers struct {
	// connect is a net.Dialer's DialContext; tests have name servers of their own.
	connect func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex
	known string     // the name that was resolved last; guarded by mu
	trial *nameTrial // the current one; nil for none; guarded by mu
}

// nameTrial is one round of questions. All attempts whose lookup failed meanwhile wait
// for it.
type nameTrial struct {
	done  chan struct{}
	works bool // once done is closed
}

// nameTrialTime is how long the name servers have to answer.
const nameTrialTime = 2 * time.Second

// resolver resolves the names of endpoints.
func (n *nameServers) resolver() *net.Resolver {
	return n.observing(func(answer nameAnswer) {
		if answer.name == "" {
			return
		}
		n.mu.Lock()
		n.known = answer.name
		n.mu.Unlock()
	})
}

// work reports whether the name servers answer at all. The end of ctx does not end it:
// other attempts wait for the same trial.
func (n *nameServers) work(ctx context.Context) bool {
	n.mu.Lock()
	if t := n.trial; t != nil {
		n.mu.Unlock()
		<-t.done
		return t.works
	}
	t := &nameTrial{done: make(chan struct{})}
	n.trial = t
	known := n.known
	n.mu.Unlock()

	t.works = n.ask(context.WithoutCancel(ctx), known)
	n.mu.Lock()
	n.trial = nil
	n.mu.Unlock()
	close(t.done)
	return t.works
}

// ask returns true as soon as a name server gives a valid answer to one of the
// questions.
func (n *nameServers) ask(ctx context.Context, known string) bool {
	ctx, cancel := context.WithTimeout(ctx, nameTrialTime)
	defer cancel()
	var works atomic.Bool // atomic: an answer may arrive after its lookup has ended
	resolver := n.observing(func(answer nameAnswer) {
		if answer.works {
			works.Store(true)
			cancel()
		}
	})
	var asked sync.WaitGroup
	// onAnswer sees the answers; the results of the lookups do not matter.
	asked.Go(func() { _, _ = resolver.LookupNS(ctx, ".") })
	if known != "" {
		asked.Go(func() { _, _ = resolver.LookupIPAddr(ctx, known) })
	}
	asked.Wait()
	return works.Load()
}

// observing returns a resolver that calls onAnswer for each answer. It is Go's own:
// the C library's resolver accepts more forms of an address.
func (n *nameServers) observing(onAnswer func(nameAnswer)) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := n.connect(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if udp, ok := conn.(*net.UDPConn); ok {
			return &observedUDP{UDPConn: udp, onAnswer: onAnswer}, nil // a net.PacketConn, which tells the resolver to use packets
		}
		return &observedTCP{Conn: conn, onAnswer: onAnswer}, nil
	}}
}

// nameAnswer is what one message of a name server shows.
type nameAnswer struct {
	works bool   // the server resolved a name, or knows that it does not exist
	name  string // that it has an address for; "" for none
}

// answerIn reads the message that a name server sent (RFC 1035, 4.1).
func answerIn(message []byte) (answer nameAnswer) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || !h.Response || h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		return answer
	}
	question, err := p.Question()
	if err != nil || p.SkipAllQuestions() != nil {
		return answer
	}
	_, err = p.AnswerHeader()
	// A server that neither knows the name nor asks other servers does not work.
	answer.works = err == nil || h.RCode == dnsmessage.RCodeNameError || h.RecursionAvailable || h.Authoritative
	if err == nil && (question.Type == dnsmessage.TypeA || question.Type == dnsmessage.TypeAAAA) {
		answer.name = question.Name.String()
	}
	return answer
}

type observedUDP struct {
	*net.UDPConn
	onAnswer func(nameAnswer)
}

func (c *observedUDP) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil {
		c.onAnswer(answerIn(b[:n]))
	}
	return n, err
}

// observedTCP reads one message, after its length in two bytes.
type observedTCP struct {
	net.Conn
	onAnswer func(nameAnswer)
	read     []byte // of the length and the message; nil once whole
	whole    bool
}

func (c *observedTCP) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.whole {
		return n, err
	}
	c.read = append(c.read, b[:n]...)
	if r := c.read; len(r) >= 2 && len(r)-2 >= int(r[0])<<8|int(r[1]) {
		c.onAnswer(answerIn(r[2:]))
		c.read, c.whole = nil, true
	}
	return n, err
}
