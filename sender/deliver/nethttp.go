package deliver

import (
	"bytes"
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
	"time"
)

// errNotHTTP2 says that a receiver which spoke HTTP/2 does not any more.
var errNotHTTP2 = errors.New("the receiver no longer speaks HTTP/2")

// netHTTP is net/http's client held to what an attempt promises: at most one
// request, none once the lease is over, connections of one endpoint alone, and a
// status that decides although what follows it is broken. It is safe for many
// goroutines.
type netHTTP struct {
	*http.Transport
	config *Config
	dialer *dialer
	http1  bool // HTTP/1.1 is spoken too
}

// newNetHTTP is for receivers that speak HTTP/2, and with http1 for all.
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
		// A stream that is given up has at most its window on its way.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20},
	}
	n.CloseIdleConnections() // the first call of it fills TLSNextProto
	if upgrade := n.TLSNextProto["unencrypted_http2"]; upgrade != nil {
		n.TLSNextProto["h2"] = func(authority string, conn *tls.Conn) http.RoundTripper {
			return upgrade(authority, tls.Client(unwrapped{newFrames(conn)}, nil))
		}
	}
	return n
}

// RoundTrip makes the request. A kept connection that turned out to be closed
// before a byte of the request was written carried none; it is made once more.
func (n *netHTTP) RoundTrip(req *http.Request) (*http.Response, error) {
	return n.roundTrip(req.Context(), req, &httptrace.ClientTrace{})
}

// roundTrip is RoundTrip for a caller that has not put its hooks into the
// context, where merging them takes long, nor the context into the request.
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

// carry has net/http make the request. The body of an answer ends x when it is
// closed.
func (n *netHTTP) carry(ctx context.Context, req *http.Request, x *carried, hooks *httptrace.ClientTrace) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	x.cancel = cancel
	once := req.WithContext(httptrace.WithClientTrace(ctx, x.trace(*hooks)))
	// net/http repeats on its own what was not taken, when it can get the body once
	// more. GetBody says no, and tells why it was asked; where there is no body, the
	// trace does at the second connection.
	once.GetBody = func() (io.ReadCloser, error) { return nil, errNotTaken }
	resp, err := n.Transport.RoundTrip(once)
	if err == nil {
		if err = checkStatus(resp); err != nil {
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

// carried is one request that net/http carries. The hooks of its trace run on
// other goroutines.
type carried struct {
	mayBegin func() bool
	cancel   context.CancelCauseFunc
	reused   atomic.Bool          // a kept connection of HTTP/1.1 was taken for it
	begun    atomic.Bool          // a byte of it was written, or HTTP/2 has it
	wire     atomic.Pointer[wire] // of the connection that it is on
	gate     atomic.Pointer[gate] // the connection of HTTP/1.1 that it is on
	// Where its HTTP/2 stream is, and which it is; 0 for none yet.
	frames atomic.Pointer[frames]
	stream atomic.Uint32
}

// may says whether a request may be written on a connection.
func (x *carried) may() error {
	switch {
	case x.mayBegin != nil && !x.mayBegin():
		return errLeaseOver
	case x.begun.Load():
		return errWrittenBefore
	}
	return nil
}

// trace adds what is followed of the request to hooks, which have no WroteHeaders.
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
	hooks.WroteHeaders = func() {
		if f := x.frames.Load(); f != nil {
			x.stream.Store(f.last())
		}
	}
	return &hooks
}

// over ends what the wire allows for the request, and begins it on another; nil
// for none.
func (x *carried) over(next *wire) {
	if last := x.wire.Swap(next); last != nil {
		last.end()
	}
	if next != nil {
		next.begin()
	}
}

// explain is what is behind net/http's error: the reason of ours to end the
// request, and what of an answer was seen.
func (x *carried) explain(err, cause error) error {
	if errors.Is(cause, errNotTaken) || errors.Is(cause, errLeaseOver) {
		err = cause
	}
	if f := x.frames.Load(); f != nil {
		if status := f.take(x.stream.Load()); status != 0 {
			return &answerError{status: status, err: err}
		}
		return cmp.Or(f.alert(), err) // of a connection that ends early net/http tells no more than that
	}
	if g := x.gate.Load(); g != nil {
		return g.explain(x, err)
	}
	return err
}

// end ends what is kept of the request.
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

// gate is a connection on which net/http speaks HTTP/1.1, in the clear of TLS. It
// asks before the first byte of a request whether it may be written, takes
// nothing for an answer that comes before, and keeps how an answer began.
type gate struct {
	net.Conn
	*lastReadError
	wire *wire // beneath TLS; nil without

	mu    sync.Mutex
	x     *carried   // whose turn it is; nil for nobody's; guarded by mu
	open  bool       // x may be written and answered; guarded by mu
	said  statusLine // of the answer; guarded by mu
	fault error      // of reading it; nil for none, or the end; guarded by mu
}

func (g *gate) carry(x *carried) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.x, g.open, g.said.n, g.fault = x, false, 0, nil
}

func (g *gate) done(x *carried) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.x == x {
		g.x, g.open = nil, false
	}
}

// enter lets the request in turn begin.
func (g *gate) enter() (*carried, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.x == nil {
		return nil, net.ErrClosed // it was given up
	}
	if !g.open {
		if err := g.x.may(); err != nil {
			return nil, err
		}
		if g.wire != nil && g.x.reused.Load() && g.wire.holdsPart() {
			return nil, errSpokeFirst
		}
		g.open = true
	}
	return g.x, nil
}

func (g *gate) Write(b []byte) (int, error) {
	x, err := g.enter()
	if err != nil {
		return 0, err
	}
	n, err := g.Conn.Write(b)
	if n > 0 {
		x.begun.Store(true)
	}
	return n, g.lastReadError.explain(err, g.wire)
}

func (g *gate) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.noteEnd(err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if n > 0 && !g.open {
		g.fault = &answerError{begins: bytes.Clone(b[:n]), err: errSpokeFirst}
		return 0, g.fault
	}
	g.said.n += copy(g.said.head[g.said.n:], b[:n])
	if err != nil && err != io.EOF {
		g.fault = err
	}
	return n, err
}

func (g *gate) explain(x *carried, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.x != x || g.said.n == 0 {
		return err
	}
	if g.fault == nil && g.said.misnumbered() {
		err = &statusError{g.said.String()}
	}
	return &answerError{status: g.said.final(), begins: append([]byte{}, g.said.bytes()...), err: err}
}

// lastReadError is what the reading of a connection ended with. net/http has another
// goroutine write, which meets the end of the connection, but not the reason.
type lastReadError struct {
	once  sync.Once
	ended chan struct{} // closed when err is there
	err   error
}

func newLastReadError() *lastReadError { return &lastReadError{ended: make(chan struct{})} }

func (l *lastReadError) noteEnd(err error) {
	if err != nil {
		l.once.Do(func() {
			l.err = err
			close(l.ended)
		})
	}
}

// explain is what to say instead of the error of a write: the alert that came
// before the end, where the other side has asked for a client certificate.
func (l *lastReadError) explain(err error, beneath *wire) error {
	if err == nil || beneath == nil || !beneath.asked.Load() || !isEnd(err) {
		return err
	}
	select {
	case <-l.ended:
	case <-time.After(graceAfterWrite):
	}
	return cmp.Or(l.alert(), err)
}

// alert is the alert that the reading ended with; nil for another end, or none.
func (l *lastReadError) alert() error {
	select {
	case <-l.ended:
		if alertOf(l.err) != 0 {
			return l.err
		}
	default:
	}
	return nil
}

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

// dialPlain opens a connection without TLS.
func (n *netHTTP) dialPlain(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := n.dialer.dial(ctx, network, addressOf(host))
	if err != nil {
		return nil, err
	}
	return &gate{Conn: conn, lastReadError: newLastReadError()}, nil
}

// dialSecure opens a connection over TLS: the *tls.Conn that net/http wants for
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
		return &gate{Conn: secured, lastReadError: newLastReadError(), wire: wireOf(secured)}, nil
	}
	secured.Close()
	return nil, errNotHTTP2
}
