package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// client speaks HTTP/1.1 itself, on connections that each serve one call at a time,
// and uses net/http for HTTP/2. It sends a call's request at most once. It is safe for
// many goroutines.
//
// It is an [http.RoundTripper]. The HTTP destination uses roundTrip and end instead,
// which spare each attempt an [http.Request], a context with a deadline and the
// formatting of its header.
type client struct {
	config *Config
	dialer *dialer
	pool   *connPool
	http2  *netHTTP
	// speakHTTP2 holds the receivers that speak HTTP/2, by scheme, host and port.
	speakHTTP2 sync.Map
}

func newClient(c *Config, d *dialer) *client {
	return &client{config: c, dialer: d, pool: newConnPool(c.MaxIdle), http2: newNetHTTP(c, d, false)}
}

// RoundTrip sends the request, after reading its body.
func (c *client) RoundTrip(req *http.Request) (*http.Response, error) {
	plain := &plainRequest{Request: req}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("read the request's body: %w", err)
		}
		plain.body = body
	}
	ctx := req.Context()
	x := &call{ctx: ctx, alone: true, peer: peerOf(req.URL), message: plain, body: plain.body}
	x.hooks = httptrace.ContextClientTrace(ctx)
	x.until, _ = ctx.Deadline()
	resp, err := c.roundTrip(x)
	if err != nil {
		c.end(x)
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return nil, err
	}
	resp.Request = req
	if resp.Body == http.NoBody {
		c.end(x)
	} else {
		resp.Body = &endingBody{ReadCloser: resp.Body, end: sync.OnceFunc(func() { c.end(x) })}
	}
	return resp, nil
}

// CloseIdleConnections closes the idle connections.
func (c *client) CloseIdleConnections() {
	c.pool.close()
	c.http2.CloseIdleConnections()
}

// call is one request on its way through a client.
type call struct {
	ctx     context.Context         // ends the call
	alone   bool                    // ctx is this call's alone, and may end right after it
	limited context.Context         // ctx with the call's time limit, made when first needed
	cancel  context.CancelCauseFunc // of limited
	release context.CancelFunc
	peer    *peer
	message message
	body    []byte // nil where appendHead appends it too
	conn    *conn  // the last one that the call had; nil for none, or HTTP/2
	stopped atomic.Bool
	progress
}

// message is what a call sends.
type message interface {
	// appendHead appends the request's head in HTTP/1.1.
	appendHead(b []byte) ([]byte, error)
	// request returns a new request for each try, since its body is read once.
	request() *http.Request
}

// roundTrip sends the request. If the receiver has closed an idle connection before a
// byte of the request was written, roundTrip uses a new connection. The caller reads
// the answer's body, and then ends the call.
func (c *client) roundTrip(x *call) (*http.Response, error) {
	if _, ok := c.speakHTTP2.Load(x.peer.key.to); ok {
		resp, err := c.overHTTP2(x, nil)
		if !errors.Is(err, errNotHTTP2) {
			return resp, err
		}
		c.speakHTTP2.Delete(x.peer.key.to)
	}
	for kept := c.pool.take(x.peer.key); kept != nil; kept = c.pool.take(x.peer.key) {
		if !c.begin(x, kept) || kept.gone() {
			c.drop(x)
			continue
		}
		resp, err := kept.roundTrip(x, c.config.MayBegin)
		if err == nil || !kept.refused || x.ctx.Err() != nil {
			return resp, err
		}
		c.drop(x)
		break
	}
	return c.overNew(x)
}

// overNew sends the request on a new connection.
func (c *client) overNew(x *call) (*http.Response, error) {
	x.at.Store(int32(phaseStart))
	x.limit()
	ctx := x.trace(x.limited)
	var opened net.Conn
	var err error
	if x.peer.secure {
		secured, failed := c.dialer.dialTLS(ctx, x.peer.address)
		if failed == nil && isHTTP2(secured) {
			c.speakHTTP2.Store(x.peer.key.to, struct{}{})
			return c.overHTTP2(x, secured)
		}
		opened, err = secured, failed
	} else {
		opened, err = c.dialer.dial(ctx, "tcp", x.peer.address)
	}
	if err != nil {
		return nil, err
	}
	made := newConn(opened, x.peer.key)
	c.begin(x, made)
	if spoke, _ := made.look(); spoke {
		return nil, &answerError{begins: made.firstBytes(), err: errSpokeFirst}
	}
	return made.roundTrip(x, c.config.MayBegin)
}

// overHTTP2 sends the request with net/http, which shares a connection among many
// requests. opened is a connection that turned out to speak HTTP/2, or nil.
func (c *client) overHTTP2(x *call, opened *tls.Conn) (*http.Response, error) {
	x.limit()
	ctx := x.limited
	if opened != nil {
		var offered *offer
		ctx, offered = withOffer(ctx, opened)
		defer offered.withdraw()
	}
	return c.http2.roundTrip(ctx, x.message.request(), x.clientTrace())
}

// begin gives the call a connection; false for one that is not usable any more.
func (c *client) begin(x *call, to *conn) bool {
	x.conn = to
	return to.begin(x.ctx, &x.progress, c.config.HeaderTimeout)
}

// end ends the call.
func (c *client) end(x *call) {
	c.giveBack(x)
	x.close()
}

// giveBack returns the call's connection to the pool, if it has one.
func (c *client) giveBack(x *call) {
	last := x.conn
	if last == nil {
		return
	}
	last.last = last.last || x.stopped.Load()
	if last.end(x.alone) {
		c.pool.put(last, time.Now())
	}
}

// drop closes the call's connection, on which nothing was written.
func (c *client) drop(x *call) {
	x.conn.last = true
	c.giveBack(x)
	x.conn = nil
}

// limit makes the context for dialling and for net/http, with the call's time limit.
func (x *call) limit() {
	if x.limited != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(x.ctx)
	x.limited, x.release, x.cancel = ctx, func() {}, cancel
	if !x.until.IsZero() {
		x.limited, x.release = context.WithDeadlineCause(ctx, x.until, errAttemptTimeout)
	}
}

// close releases what limit made.
func (x *call) close() {
	if x.limited != nil {
		x.cancel(nil)
		x.release()
	}
}

// stop ends reading the answer's body. A timer may call it after the call has ended.
func (x *call) stop(cause error) {
	x.stopped.Store(true)
	if x.cancel != nil {
		x.cancel(cause)
	}
	if x.conn != nil {
		x.conn.cut()
	}
}

// cause is why the call ended early, or nil.
func (x *call) cause() error {
	ctx := x.ctx
	if x.limited != nil {
		ctx = x.limited
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if !x.until.IsZero() && !time.Now().Before(x.until) {
		return errAttemptTimeout
	}
	return nil
}

// plainRequest is the message of an [http.Request] whose body was read.
type plainRequest struct {
	*http.Request
	body []byte
}

func (p *plainRequest) request() *http.Request {
	body := io.ReadCloser(http.NoBody)
	if len(p.body) > 0 {
		body = io.NopCloser(bytes.NewReader(p.body))
	}
	// Without its context: appendHead writes it, which would call the trace's hooks.
	return &http.Request{Method: p.Method, URL: p.URL, Host: p.Host, Header: p.Header, Close: p.Close, Body: body, ContentLength: int64(len(p.body))}
}

func (p *plainRequest) appendHead(b []byte) ([]byte, error) {
	req := p.request()
	if len(p.body) == 0 {
		req.Body = nil
	}
	whole := bytes.NewBuffer(b)
	err := req.Write(whole)
	return whole.Bytes()[:max(whole.Len()-len(p.body), 0)], err
}

// endingBody is the body of an answer. Closing it ends the call.
type endingBody struct {
	io.ReadCloser
	end func()
}

func (b *endingBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// phase is the step that an attempt has reached.
type phase int32

// The phases, in order. An attempt on an idle connection starts at phaseSend.
const (
	phaseStart phase = iota
	phaseDNS
	phaseConnect
	phaseTLS
	phaseSend
	phaseWait // the request is written
	phaseRead // the first byte of an answer has arrived
)

func (p phase) String() string {
	return [...]string{"before connecting", "name resolution", "connecting", "TLS handshake", "sending", "awaiting the answer", "reading the answer"}[p]
}

// progress follows one request. The hooks of its trace run on other goroutines.
type progress struct {
	until time.Time    // the time limit of the call; zero for none
	at    atomic.Int32 // phase
	http2 atomic.Bool
	wire  atomic.Pointer[wire]   // beneath the TLS of its connection; nil without TLS
	kept  atomic.Bool            // its connection was idle
	hooks *httptrace.ClientTrace // of the request; nil for none

	mu    sync.Mutex
	tried []error // of addresses of the name that could not be connected to; guarded by mu
}

// trace adds hooks to ctx that follow dialling, and a request of net/http.
func (p *progress) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, p.clientTrace())
}

func (p *progress) clientTrace() *httptrace.ClientTrace {
	advance := func(to phase) { p.at.Store(int32(to)) }
	return &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { advance(phaseDNS) },
		ConnectStart: func(string, string) { advance(phaseConnect) },
		ConnectDone: func(_, _ string, err error) {
			if err != nil {
				p.mu.Lock()
				defer p.mu.Unlock()
				if len(p.tried) < mostTried {
					p.tried = append(p.tried, err)
				}
			}
		},
		TLSHandshakeStart: func() {
			advance(phaseTLS)
			p.wire.Store(nil)
		},
		GotConn: func(info httptrace.GotConnInfo) {
			advance(phaseSend)
			if _, ok := info.Conn.(*frames); ok {
				p.http2.Store(true)
			}
			p.wire.Store(wireUnder(info.Conn))
			p.kept.Store(info.Reused)
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				p.at.CompareAndSwap(int32(phaseSend), int32(phaseWait))
			}
		},
		GotFirstResponseByte: func() { advance(phaseRead) },
	}
}

// gotConn notes that the request has a conn.
func (p *progress) gotConn(c *conn) {
	p.at.Store(int32(phaseSend))
	p.wire.Store(c.wire)
	p.kept.Store(!c.kept.IsZero())
	if p.hooks != nil && p.hooks.GotConn != nil {
		p.hooks.GotConn(httptrace.GotConnInfo{Conn: c.net, Reused: !c.kept.IsZero(), WasIdle: !c.kept.IsZero()})
	}
}

// wroteRequest notes that the request is written; false if an answer came first.
func (p *progress) wroteRequest() bool {
	if !p.at.CompareAndSwap(int32(phaseSend), int32(phaseWait)) {
		return false
	}
	if p.hooks != nil && p.hooks.WroteRequest != nil {
		p.hooks.WroteRequest(httptrace.WroteRequestInfo{})
	}
	return true
}

// gotBytes notes that bytes of an answer have arrived.
func (p *progress) gotBytes() {
	if p.hooks == nil {
		p.at.Store(int32(phaseRead))
	} else if p.at.Swap(int32(phaseRead)) != int32(phaseRead) && p.hooks.GotFirstResponseByte != nil {
		p.hooks.GotFirstResponseByte()
	}
}

// mostTried bounds how many failed addresses of a name an error names.
const mostTried = 8

// decisive is the error that says most about a failed connection. The answer of one
// address says more than that another is blocked or has no route. err is the error of
// the first address, which is all that package net returns.
func (p *progress) decisive(err error) error {
	rank := func(err error) int {
		if _, blocked := errors.AsType[*BlockedAddressError](err); blocked {
			return 1
		}
		if classifySyscall(err, phaseConnect).own() {
			return 0
		}
		return 2
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.tried {
		if p.phase() <= phaseConnect && rank(other) > rank(err) && !errors.Is(other, context.Canceled) {
			err = other
		}
	}
	return err
}

// others names the errors of the other addresses.
func (p *progress) others(err error) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	for _, other := range p.tried {
		if p.phase() <= phaseConnect && !strings.Contains(err.Error(), other.Error()) {
			text.WriteString("; " + other.Error())
		}
	}
	return text.String()
}

// asked says that the receiver has asked for a client certificate on a new
// connection. On an idle one it has accepted a request without.
func (p *progress) asked() bool {
	w := p.wire.Load()
	return w != nil && w.asked.Load() && !p.kept.Load()
}

func (p *progress) phase() phase { return phase(p.at.Load()) }
