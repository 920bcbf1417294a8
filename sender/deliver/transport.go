package deliver

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
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

// http2Host stands for host and port in the URLs that net/http sees, which keeps
// its connections by them: one for each endpoint and address.
func http2Host(endpoint int64, address string) string {
	return strconv.FormatInt(endpoint, 10) + "-" + hex.EncodeToString([]byte(address)) + ":443"
}

// http2Address is the address that a host of http2Host stands for.
func http2Address(host string) (string, error) {
	_, coded, _ := strings.Cut(strings.TrimSuffix(host, ":443"), "-")
	address, err := hex.DecodeString(coded)
	return string(address), err
}

// dialHTTP2 is for net/http, which wants the *tls.Conn.
func (d *dialer) dialHTTP2(ctx context.Context, _, host string) (net.Conn, error) {
	if o, ok := ctx.Value(offerKey{}).(*offer); ok {
		select {
		case conn := <-o.conns:
			return conn, nil
		default:
		}
	}
	address, err := http2Address(host)
	if err != nil {
		return nil, err
	}
	secured, err := d.dialTLS(ctx, address)
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
	t := &http.Transport{
		Proxy:                  nil, // none from the environment: it would go round the egress guard
		DialContext:            d.dial,
		DialTLSContext:         d.dialHTTP2,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns:           c.MaxIdle,
		MaxIdleConnsPerHost:    c.MaxIdle,
		IdleConnTimeout:        idleTimeout,
		// A stream that is given up has at most its window on its way.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20},
	}
	t.CloseIdleConnections() // the first call of it fills TLSNextProto
	if upgrade := t.TLSNextProto["unencrypted_http2"]; upgrade != nil {
		t.TLSNextProto["h2"] = func(authority string, conn *tls.Conn) http.RoundTripper {
			return upgrade(authority, tls.Client(unwrapped{newFrames(conn)}, nil))
		}
	}
	return t
}
