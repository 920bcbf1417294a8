package sender

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/idna"
)

// exchange is one attempt's way to an answer: over a kept connection or a new
// one, over HTTP/1.1 or whatever the receiver speaks. It makes at most one
// request.
type exchange struct {
	courier *courier
	ctx     context.Context         // ends when attempts must
	limited context.Context         // ctx with the attempt's time limit, made when first needed
	cancel  context.CancelCauseFunc // of limited
	release context.CancelFunc
	target  *url.URL
	header  http.Header
	sent    *request
	stopped atomic.Bool
	progress
}

// answer makes the request. A kept connection that the receiver had closed
// before a byte of the request was written carried none; it is made once more,
// on a connection of its own.
func (x *exchange) answer() (*http.Response, error) {
	address, err := dialAddress(x.target)
	if err != nil {
		return nil, err
	}
	to := x.target.Scheme + "://" + address
	if _, ok := x.courier.http2.known.Load(to); ok {
		resp, err := x.overHTTP2(nil)
		if !errors.Is(err, errNotHTTP2) {
			return resp, err
		}
		x.courier.http2.known.Delete(to)
	}
	for l := x.courier.lines.take(to); l != nil; l = x.courier.lines.take(to) {
		x.begin(l)
		if l.gone() {
			x.drop()
			continue
		}
		resp, err := l.exchange(x.request(), x.courier.may)
		if err == nil || !l.refused || x.ctx.Err() != nil {
			return resp, err
		}
		x.drop()
		break
	}
	return x.overNew(to, address)
}

// overNew opens a connection.
func (x *exchange) overNew(to, address string) (*http.Response, error) {
	x.at.Store(int32(phaseStart))
	x.limit()
	ctx := x.trace(x.limited, nil, x.cancel)
	dialer := x.courier.dialer
	var conn, socket net.Conn
	var err error
	if x.target.Scheme == "https" {
		secured, beneath, failed := dialer.dialTLS(ctx, address)
		if failed == nil && isHTTP2(secured) {
			x.courier.http2.known.Store(to, struct{}{})
			return x.overHTTP2(secured)
		}
		conn, socket, err = secured, beneath, failed
	} else {
		conn, err = dialer.dial(ctx, "tcp", address)
		socket = conn
	}
	if err != nil {
		return nil, err
	}
	var raw syscall.RawConn
	if s, ok := socket.(syscall.Conn); ok {
		raw, _ = s.SyscallConn() // nil where it fails
	}
	l := newLine(conn, raw, to)
	x.begin(l)
	return l.exchange(x.request(), x.courier.may)
}

// overHTTP2 leaves the connections to net/http, which shares one among many
// requests. opened is one that was opened before that was known, or nil.
func (x *exchange) overHTTP2(opened *tls.Conn) (*http.Response, error) {
	x.limit()
	ctx := x.trace(x.limited, x.courier.may, x.cancel)
	if opened != nil {
		var offered *offer
		ctx, offered = withOffer(ctx, opened)
		defer offered.withdraw()
	}
	req := x.request()
	// net/http repeats a GET on its own, and a POST that has an Idempotency-Key,
	// when it can get the body once more. This says no, and tells why it asked.
	// A GET's body is empty, and nothing of it is sent.
	req.GetBody = func() (io.ReadCloser, error) { return nil, errNotTaken }
	return x.courier.http2.RoundTrip(req.WithContext(ctx))
}

// request is made anew for each try, since it holds a body that is read once.
func (x *exchange) request() *http.Request {
	return &http.Request{
		Method: x.sent.method,
		URL:    x.target, Host: x.target.Host,
		Header:        x.header,
		Body:          io.NopCloser(bytes.NewReader(x.sent.body)),
		ContentLength: int64(len(x.sent.body)),
	}
}

func (x *exchange) begin(l *line) {
	x.line = l
	l.begin(x.ctx, &x.progress, x.courier.config.HeaderTimeout)
}

// close ends the exchange, whose answer's body was read as far as is wanted.
func (x *exchange) close() {
	x.end()
	if x.limited != nil {
		x.cancel(nil)
		x.release()
	}
}

// end gives back the line, if there is one.
func (x *exchange) end() {
	l := x.line
	if l == nil {
		return
	}
	l.last = l.last || x.stopped.Load()
	if l.end() {
		x.courier.lines.put(l, time.Now())
	}
}

// drop closes a line that nothing was written on.
func (x *exchange) drop() {
	x.line.last = true
	x.end()
	x.line = nil
}

// limit makes the context of all that has no connection to set a limit on. It
// ends with the exchange.
func (x *exchange) limit() {
	if x.limited == nil {
		ctx, cancel := context.WithCancelCause(x.ctx)
		x.limited, x.release = context.WithDeadlineCause(ctx, x.until, errAttemptTimeout)
		x.cancel = cancel
	}
}

// stop ends what the answer's body is read from. A timer may call it, late.
func (x *exchange) stop(cause error) {
	x.stopped.Store(true)
	if x.cancel != nil {
		x.cancel(cause)
	}
	if x.line != nil {
		x.line.cut()
	}
}

// cause is why the exchange was ended, or nil.
func (x *exchange) cause() error {
	ctx := x.ctx
	if x.limited != nil {
		ctx = x.limited
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if !time.Now().Before(x.until) {
		return errAttemptTimeout
	}
	return nil
}

// dialAddress is host and port of a URL. A name that is not ASCII is the one
// that name servers know (RFC 5891).
func dialAddress(u *url.URL) (string, error) {
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if strings.ContainsFunc(host, func(c rune) bool { return c >= 0x80 }) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", &net.DNSError{Err: "the host is no domain name", Name: u.Hostname(), IsNotFound: true}
		}
	}
	return net.JoinHostPort(host, port), nil
}
