package deliver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
)

// errNotHTTP2 says that a receiver does not speak HTTP/2 any more.
var errNotHTTP2 = errors.New("the receiver no longer speaks HTTP/2")

// netHTTP is net/http's client with the promises of an attempt: at most one request,
// none once the lease has expired, connections of one endpoint alone, and a status
// that decides even if what follows it is broken. It is safe for many goroutines.
type netHTTP struct {
	*http.Transport
	config *Config
	dialer *dialer
	http1  bool // it speaks HTTP/1.1 too
}

// newNetHTTP makes a client for HTTP/2, and with http1 for HTTP/1.1 too.
func newNetHTTP(c *Config, d *dialer, http1 bool) *netHTTP {
	n := &netHTTP{config: c, dialer: d, http1: http1}
	n.Transport = &http.Transport{
		Proxy:                  nil, // none from the environment: it would go round the egress guard
		DialContext:            n.dialPlain,
		DialTLSContext:         n.dialSecure,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns:           c.MaxIdle,
		MaxIdleConnsPerHost:    c.MaxIdle,
		IdleConnTimeout:        idleTimeout,
		// After a stream is cancelled, at most its window still arrives.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20},
	}
	n.CloseIdleConnections() // its first call fills TLSNextProto
	if upgrade := n.TLSNextProto["unencrypted_http2"]; upgrade != nil {
		n.TLSNextProto["h2"] = func(authority string, conn *tls.Conn) http.RoundTripper {
			return upgrade(authority, tls.Client(unwrapped{newFrames(conn)}, nil))
		}
	}
	return n
}

// RoundTrip sends the request. If an idle connection turns out to be closed before a
// byte of the request was written, RoundTrip sends it on another one.
func (n *netHTTP) RoundTrip(req *http.Request) (*http.Response, error) {
	return n.roundTrip(req.Context(), req, &httptrace.ClientTrace{})
}

// roundTrip is RoundTrip for a caller that passes its hooks and its context as
// arguments: merging hooks in a context is slow.
func (n *netHTTP) roundTrip(ctx context.Context, req *http.Request, hooks *httptrace.ClientTrace) (*http.Response, error) {
	for {
		x := &carried{mayBegin: n.config.MayBegin}
		resp, err := n.carry(ctx, req, x, hooks)
		if err == nil {
			return resp, nil
		}
		hasBody := req.Body != nil && req.Body != http.NoBody
		if !x.reused.Load() || x.begun.Load() || ctx.Err() != nil || errors.Is(err, errLeaseOver) || hasBody && req.GetBody == nil {
			return nil, err
		}
		again := *req
		if hasBody {
			if again.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
		req = &again
	}
}

// carry has net/http send the request. Closing the answer's body ends x.
func (n *netHTTP) carry(ctx context.Context, req *http.Request, x *carried, hooks *httptrace.ClientTrace) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	x.cancel = cancel
	once := req.WithContext(httptrace.WithClientTrace(ctx, x.trace(*hooks)))
	// net/http repeats a refused request if GetBody returns its body again. This one
	// returns an error that says why it was called. A request without a body is
	// stopped by the trace at its second connection.
	once.GetBody = func() (io.ReadCloser, error) { return nil, errNotTaken }
	resp, err := n.Transport.RoundTrip(once)
	if err == nil {
		err = checkStatus(resp)
		if cause := context.Cause(ctx); errors.Is(cause, errSpokeFirst) {
			err = cause
		}
		if err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		err = x.explain(err, context.Cause(ctx))
		x.end()
		return nil, err
	}
	if resp.Body == http.NoBody {
		x.end()
	} else {
		resp.Body = &endingBody{ReadCloser: resp.Body, end: sync.OnceFunc(x.end)}
	}
	return resp, nil
}

// carried is one request in net/http. The hooks of its trace run on other goroutines.
type carried struct {
	mayBegin func() bool
	cancel   context.CancelCauseFunc
	reused   atomic.Bool          // it has an idle connection of HTTP/1.1
	begun    atomic.Bool          // a byte of it was written, or HTTP/2 has it
	wire     atomic.Pointer[wire] // of its connection
	gate     atomic.Pointer[gate] // its connection, for HTTP/1.1
	// Its connection for HTTP/2, and its stream there; 0 for none yet.
	frames atomic.Pointer[frames]
	stream atomic.Uint32
}

// may returns an error if the request may not be written on a connection.
func (x *carried) may() error {
	switch {
	case x.mayBegin != nil && !x.mayBegin():
		return errLeaseOver
	case x.begun.Load():
		return errWrittenBefore
	}
	return nil
}

// trace adds the hooks of x to others, which have no WroteHeaders.
func (x *carried) trace(hooks httptrace.ClientTrace) *httptrace.ClientTrace {
	gotConn := hooks.GotConn
	hooks.GotConn = func(info httptrace.GotConnInfo) {
		if gotConn != nil {
			gotConn(info)
		}
		switch conn := info.Conn.(type) {
		case *frames:
			x.stream.Store(0)
			x.frames.Store(conn)
			x.over(wireOf(conn.Conn))
			switch {
			case x.begun.Swap(true):
				x.cancel(errNotTaken)
			case x.mayBegin != nil && !x.mayBegin():
				x.cancel(errLeaseOver)
			}
		case *gate:
			x.reused.Store(info.Reused)
			x.gate.Store(conn)
			x.over(conn.wire)
			conn.carry(x)
		}
	}
	gotFirst := hooks.GotFirstResponseByte
	hooks.GotFirstResponseByte = func() {
		if g := x.gate.Load(); g != nil && x.frames.Load() == nil && !g.letIn(x) {
			x.cancel(errSpokeFirst)
		} else if gotFirst != nil {
			gotFirst()
		}
	}
	hooks.WroteHeaders = func() {
		if f := x.frames.Load(); f != nil {
			x.stream.Store(f.last())
		}
	}
	return &hooks
}

// over moves the request's allowance of bytes from its wire to the next one; nil for
// none.
func (x *carried) over(next *wire) {
	if last := x.wire.Swap(next); last != nil {
		last.end()
	}
	if next != nil {
		next.begin()
	}
}

// explain finds the cause of net/http's error: why walhook ended the request, or the
// status of an answer that had begun.
func (x *carried) explain(err, cause error) error {
	if errors.Is(cause, errNotTaken) || errors.Is(cause, errLeaseOver) || errors.Is(cause, errSpokeFirst) {
		err = cause
	}
	if f := x.frames.Load(); f != nil {
		if status := f.take(x.stream.Load()); status != 0 {
			return &answerError{status: status, err: err}
		}
		return cmp.Or(f.alert(), err) // net/http reports the end of the connection alone
	}
	if g := x.gate.Load(); g != nil {
		return g.explain(x, err)
	}
	return err
}

// end releases what the request holds.
func (x *carried) end() {
	x.over(nil)
	if f := x.frames.Load(); f != nil {
		f.take(x.stream.Load())
	}
	if g := x.gate.Load(); g != nil {
		g.done(x)
	}
	x.cancel(nil)
}

// offer is an open connection to a receiver that turned out to speak HTTP/2. A context
// carries it to dialSecure, where net/http would open another one.
type offer struct{ conns chan *tls.Conn }

type offerKey struct{}

func withOffer(ctx context.Context, conn *tls.Conn) (context.Context, *offer) {
	o := &offer{conns: make(chan *tls.Conn, 1)}
	o.conns <- conn
	return context.WithValue(ctx, offerKey{}, o), o
}

// withdraw closes the connection if dialSecure did not take it.
func (o *offer) withdraw() {
	select {
	case conn := <-o.conns:
		conn.Close()
	default:
	}
}

// dialPlain opens a gate without TLS.
func (n *netHTTP) dialPlain(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := n.dialer.dial(ctx, network, addressOf(host))
	if err != nil {
		return nil, err
	}
	return newGate(conn, nil), nil
}

// dialSecure opens a connection over TLS: the *tls.Conn that net/http requires for
// HTTP/2, or a gate.
func (n *netHTTP) dialSecure(ctx context.Context, _, host string) (net.Conn, error) {
	if o, ok := ctx.Value(offerKey{}).(*offer); ok {
		select {
		case conn := <-o.conns:
			return conn, nil
		default:
		}
	}
	secured, err := n.dialer.dialTLS(ctx, addressOf(host))
	switch {
	case err != nil:
		return nil, err
	case isHTTP2(secured):
		return secured, nil
	case n.http1:
		return newGate(secured, wireOf(secured)), nil
	}
	secured.Close()
	return nil, errNotHTTP2
}
