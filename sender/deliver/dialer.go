package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"strings"
	"time"
)

// errTLSTimeout is the cause that a handshake's context is ended with.
var errTLSTimeout = errors.New("attempt: time limit for the TLS handshake")

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
	secured := tls.Client(newWire(socket), config)
	ctx, cancel := context.WithTimeoutCause(ctx, d.tlsTimeout, errTLSTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		socket.Close()
		if cause := context.Cause(ctx); errors.Is(cause, errTLSTimeout) {
			err = cause
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

func isHTTP2(c *tls.Conn) bool { return c.ConnectionState().NegotiatedProtocol == "h2" }
