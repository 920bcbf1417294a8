package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// exchange is one attempt's way to an answer: over a kept connection or a new
// one, over HTTP/1.1 or whatever the receiver speaks. It makes at most one
// request.
type exchange struct {
	http    *HTTP
	ctx     context.Context         // ends when attempts must
	limited context.Context         // ctx with the attempt's time limit, made when first needed
	cancel  context.CancelCauseFunc // of limited
	release context.CancelFunc
	target  *target
	sent    request
	// What makes it this request, apart from its body.
	id, timestamp, signature string
	stopped                  atomic.Bool
	progress
}

// answer makes the request. A kept connection that the receiver had closed
// before a byte of the request was written carried none; it is made once more,
// on a connection of its own.
func (x *exchange) answer() (*http.Response, error) {
	if err := x.http.config.guard().checkPort(x.target.port); err != nil {
		return nil, err
	}
	to := x.target.to
	if _, ok := x.http.http2.known.Load(to.to); ok {
		resp, err := x.overHTTP2(nil)
		if !errors.Is(err, errNotHTTP2) {
			return resp, err
		}
		x.http.http2.known.Delete(to.to)
	}
	for l := x.http.lines.take(to); l != nil; l = x.http.lines.take(to) {
		if !x.begin(l) || l.gone() {
			x.drop()
			continue
		}
		resp, err := l.exchange(x)
		if err == nil || !l.refused || x.ctx.Err() != nil {
			return resp, err
		}
		x.drop()
		break
	}
	return x.overNew()
}

// overNew opens a connection.
func (x *exchange) overNew() (*http.Response, error) {
	to, address := x.target.to, x.target.address
	x.at.Store(int32(phaseStart))
	x.limit()
	ctx := x.trace(x.limited, nil, x.cancel)
	dialer := x.http.dialer
	var conn net.Conn
	var err error
	if x.target.url.Scheme == "https" {
		secured, failed := dialer.dialTLS(ctx, address)
		if failed == nil && isHTTP2(secured) {
			x.http.http2.known.Store(to.to, struct{}{})
			return x.overHTTP2(secured)
		}
		conn, err = secured, failed
	} else {
		conn, err = dialer.dial(ctx, "tcp", address)
	}
	if err != nil {
		return nil, err
	}
	l := newLine(conn, to)
	x.begin(l)
	if spoke, _ := l.look(); spoke {
		return nil, errSpokeFirst
	}
	return l.exchange(x)
}

// overHTTP2 leaves the connections to net/http, which shares one among many
// requests. opened is one that was opened before that was known, or nil.
func (x *exchange) overHTTP2(opened *tls.Conn) (*http.Response, error) {
	x.limit()
	ctx := x.trace(x.limited, x.http.config.MayBegin, x.cancel)
	if opened != nil {
		var offered *offer
		ctx, offered = withOffer(ctx, opened)
		defer offered.withdraw()
	}
	req := x.request()
	// net/http repeats on its own what was not taken, when it can get the body once
	// more. GetBody says no, and tells why it was asked; where there is no body, the
	// trace does at the second connection.
	u := *req.URL
	u.Host = x.target.http2Host
	req.URL = &u
	req.GetBody = func() (io.ReadCloser, error) { return nil, errNotTaken }
	x.taken.Store(false)
	resp, err := x.http.http2.RoundTrip(req.WithContext(ctx))
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errNotTaken) {
			err = cause
		}
		return nil, err
	}
	return resp, checkStatus(resp) // close ends the stream
}

// url is where the request goes: for a GET, with what is sent in its query.
func (x *exchange) url() *url.URL {
	if x.sent.method != http.MethodGet {
		return x.target.url
	}
	u := *x.target.url
	joinQuery(&u, x.sent.query)
	return &u
}

// request is made anew for each try, since it holds a body that is read once.
// The names of headers are as the contract writes them, on the wire too.
func (x *exchange) request() *http.Request {
	u := x.url()
	header := http.Header{
		"User-Agent":        {x.http.targets.userAgent},
		"webhook-id":        {x.id},
		"webhook-timestamp": {x.timestamp},
		"webhook-signature": {x.signature},
	}
	if x.sent.contentType != "" {
		header["Content-Type"] = []string{x.sent.contentType}
	}
	if x.target.authorization != "" {
		header["Authorization"] = []string{x.target.authorization}
	}
	// Without a body the header is to end the request: over HTTP/2 net/http goes by
	// the type, and a proxy makes a chunked body of a stream that stays open.
	body := io.ReadCloser(http.NoBody)
	if len(x.sent.body) > 0 {
		body = io.NopCloser(bytes.NewReader(x.sent.body))
	}
	return &http.Request{
		Method: x.sent.method,
		URL:    u, Host: u.Host,
		Header:        header,
		Body:          body,
		ContentLength: int64(len(x.sent.body)),
	}
}

// appendHead appends the request as HTTP/1.1 has it, up to its body: the same
// bytes as net/http writes for request, most of which the target has at hand.
func (x *exchange) appendHead(b []byte) ([]byte, error) {
	if x.sent.method == http.MethodGet || x.target.head == nil {
		req := x.request()
		req.Body = nil // a GET has none; for any other method this fails before it would come to it
		head := bytes.NewBuffer(b)
		err := req.Write(head)
		return head.Bytes(), err
	}
	b = append(append(b, x.sent.method...), x.target.head...)
	b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(x.sent.body)), 10), "\r\n"...)
	if x.target.authorization != "" {
		b = appendHeader(b, "Authorization: ", x.target.authorization)
	}
	b = appendHeader(b, "Content-Type: ", x.sent.contentType)
	b = appendHeader(b, "webhook-id: ", x.id)
	b = appendHeader(b, "webhook-signature: ", x.signature)
	b = appendHeader(b, "webhook-timestamp: ", x.timestamp)
	return append(b, "\r\n"...), nil
}

func appendHeader(b []byte, name, value string) []byte {
	return append(append(append(b, name...), value...), "\r\n"...)
}

// begin gives the exchange a line; false for one that cannot be used any more.
func (x *exchange) begin(l *line) bool {
	x.line = l
	return l.begin(x.ctx, &x.progress, x.http.config.HeaderTimeout)
}

// close ends the exchange, whose answer's body was read as far as is wanted.
func (x *exchange) close() {
	x.end()
	x.progress.over(nil)
	if f := x.frames.Load(); f != nil {
		f.take(x.stream.Load())
	}
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
		x.http.lines.put(l, time.Now())
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

// portOf is a URL's port, its own or its scheme's.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}
