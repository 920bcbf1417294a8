package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"
)

// errTLSTimeout is the cause that a handshake's context is ended with.
var errTLSTimeout = errors.New("attempt: time limit for the TLS handshake")

// errNotHTTP2 says that a receiver which spoke HTTP/2 does not any more.
var errNotHTTP2 = errors.New("the receiver does not speak HTTP/2 any more")

// dialer opens the connections of attempts: through the egress guard, and over
// TLS by itself instead of net/http's, since only the handshake tells which
// version of HTTP a receiver speaks.
type dialer struct {
	net        net.Dialer
	servers    nameServers
	tls        *tls.Config
	tlsTimeout time.Duration
	// dial is net's, where no test looks at the connections.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func newDialer(c Config) *dialer {
	d := &dialer{
		net: net.Dialer{
			Timeout: c.ConnectTimeout,
			Control: egressGuard{allow: c.AllowCIDR}.control,
		},
		tls:        &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		tlsTimeout: c.TLSTimeout,
	}
	d.net.Resolver = d.servers.resolver()
	if c.EgressAddress.IsValid() {
		d.net.LocalAddr = &net.TCPAddr{IP: c.EgressAddress.AsSlice(), Zone: c.EgressAddress.Zone()}
	}
	d.dial = d.net.DialContext
	return d
}

// dialTLS opens a connection and agrees on a version of HTTP. socket is what
// lies beneath.
func (d *dialer) dialTLS(ctx context.Context, address string) (secured *tls.Conn, socket net.Conn, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	socket, err = d.dial(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	config := d.tls.Clone()
	config.ServerName = host
	secured = tls.Client(socket, config)
	ctx, cancel := context.WithTimeoutCause(ctx, d.tlsTimeout, errTLSTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		socket.Close()
		if cause := context.Cause(ctx); errors.Is(cause, errTLSTimeout) {
			err = cause
		}
		return nil, nil, err
	}
	return secured, socket, nil
}

func isHTTP2(c *tls.Conn) bool { return c.ConnectionState().NegotiatedProtocol == "h2" }

// offer is a connection that was opened before it was known that its receiver
// speaks HTTP/2. It travels in a context to where net/http would open one.
type offer struct{ conns chan *tls.Conn }

type offerKey struct{}

func withOffer(ctx context.Context, conn *tls.Conn) (context.Context, *offer) {
	o := &offer{conns: make(chan *tls.Conn, 1)}
	o.conns <- conn
	return context.WithValue(ctx, offerKey{}, o), o
}

// withdraw closes the connection if nobody took it.
func (o *offer) withdraw() {
	select {
	case conn := <-o.conns:
		conn.Close()
	default:
	}
}

// dialHTTP2 is for net/http, which wants the *tls.Conn.
func (d *dialer) dialHTTP2(ctx context.Context, _, address string) (net.Conn, error) {
	if o, ok := ctx.Value(offerKey{}).(*offer); ok {
		select {
		case conn := <-o.conns:
			return conn, nil
		default:
		}
	}
	secured, _, err := d.dialTLS(ctx, address)
	if err == nil && !isHTTP2(secured) {
		secured.Close()
		err = errNotHTTP2
	}
	if err != nil {
		return nil, err
	}
	return secured, nil
}

// newHTTP2 is net/http's client, for receivers that speak HTTP/2.
func newHTTP2(c Config, d *dialer) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // none from the environment: it would go round the egress guard
		DialContext:            d.dial,
		DialTLSContext:         d.dialHTTP2,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns:           c.MaxInFlight,
		MaxIdleConnsPerHost:    c.MaxInFlight,
		IdleConnTimeout:        idleTimeout,
	}
}
