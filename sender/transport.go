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

// dialer opens the connections of attempts: through the egress guard, and over
// TLS by itself instead of net/http's, so that HTTP/1.1 over TLS is seen in
// the clear by its wire too.
type dialer struct {
	net        net.Dialer
	servers    nameServers
	tls        *tls.Config
	tlsTimeout time.Duration
	may        func() bool // as in courier
}

func newDialer(c Config, may func() bool) *dialer {
	d := &dialer{
		net: net.Dialer{
			Timeout: c.ConnectTimeout,
			Control: egressGuard{allow: c.AllowCIDR}.control,
		},
		tls:        &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		tlsTimeout: c.TLSTimeout,
		may:        may,
	}
	d.net.Resolver = d.servers.resolver()
	if c.EgressAddress.IsValid() {
		d.net.LocalAddr = &net.TCPAddr{IP: c.EgressAddress.AsSlice(), Zone: c.EgressAddress.Zone()}
	}
	return d
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: conn, may: d.may}, nil
}

// dialTLS answers a wire where HTTP/1.1 was agreed on. HTTP/2 is net/http's,
// which wants the *tls.Conn.
func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conn, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	config := d.tls.Clone()
	config.ServerName = host
	secured := tls.Client(conn, config)
	ctx, cancel := context.WithTimeoutCause(ctx, d.tlsTimeout, errTLSTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		if cause := context.Cause(ctx); errors.Is(cause, errTLSTimeout) {
			err = cause
		}
		return nil, err
	}
	if secured.ConnectionState().NegotiatedProtocol == "h2" {
		return secured, nil
	}
	return &wire{Conn: secured, may: d.may}, nil
}

func newTransport(c Config, d *dialer, fresh bool) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // none from the environment: it would go round the egress guard
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		DisableKeepAlives:      fresh,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns:           c.MaxInFlight,
		MaxIdleConnsPerHost:    c.MaxInFlight, // many accounts may share a host
		IdleConnTimeout:        60 * time.Second,
	}
}
