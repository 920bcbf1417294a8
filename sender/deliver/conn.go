package deliver

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// readBuffer is the size of a read: most answers are shorter.
	readBuffer = 2 << 10

	// largeBody is the size above which another goroutine writes the body: the
	// receiver may answer before it has read the request. A smaller body fits into
	// the system's buffers.
	largeBody = 64 << 10

	// keptRequest is the size up to which a connection keeps a request's memory.
	keptRequest = 8 << 10

	// graceAfterWrite is how long to wait for an answer when the receiver has stopped
	// reading the request.
	graceAfterWrite = 50 * time.Millisecond
)

var errHeaderTooLarge = errors.New("the answer's header is longer than 64 KiB")

// longAgo is a deadline that ends every read and write of a connection.
var longAgo = time.Unix(1, 0)

// conn is a connection for HTTP/1.1, over TLS or not. It serves one call at a time,
// whose goroutine both writes the request and reads the answer: net/http's client
// passes each of them to another goroutine, which costs more than the rest of an
// attempt. net/http parses the answers.
type conn struct {
	net   net.Conn
	raw   syscall.RawConn // of net; nil for TLS, or if net has none
	wire  *wire           // beneath TLS; nil without TLS
	to    connKey         // the key in the pool
	kept  time.Time       // when it was put there; zero for a new connection
	in    *bufio.Reader   // reads by conn.Read
	out   []byte          // the request
	byte  [1]byte         // that look has read
	found int             // how many bytes look has read

	// ctx is that of its current or last call. Its end cuts the connection, until
	// detach.
	ctx    context.Context
	detach func() bool

	// The current call's.
	progress *progress
	left     int           // bytes that the answer's header may still have
	said     statusLine    // of the answer
	fault    error         // of reading; nil for none, or the end
	refused  bool          // a write failed before a byte was written
	sent     chan error    // gets the result of writing a large request; else nil
	whole    bool          // the answer was read to its end
	last     bool          // the connection cannot be used again
	granted  bool          // wire.begin was called for the answer
	headerIn time.Duration // the time limit for the answer's header
}

func newConn(opened net.Conn, to connKey) *conn {
	c := &conn{net: opened, to: to}
	if secured, ok := opened.(*tls.Conn); ok {
		c.wire = wireOf(secured)
	} else {
		c.raw = socketOf(opened)
	}
	c.in = bufio.NewReaderSize(c, readBuffer)
	return c
}

// begin gives the connection to a call that ends with ctx. The answer's header must
// end within header after the request was written. It is false if the context of the
// call before has ended, which may cut the connection late.
func (c *conn) begin(ctx context.Context, p *progress, header time.Duration) bool {
	c.progress, c.headerIn = p, header
	c.left, c.said.n, c.fault = maxAnswerHeader, 0, nil
	c.refused, c.sent, c.whole, c.last = false, nil, false, false
	p.gotConn(c)
	if c.ctx != ctx {
		if c.detach != nil && !c.detach() {
			return false
		}
		c.ctx, c.detach = ctx, context.AfterFunc(ctx, c.cut)
	}
	if c.wire != nil {
		c.wire.begin()
		c.granted = true
	}
	c.limit(c.net.SetDeadline, p.until)
	return true
}

// limit sets a deadline. If ctx ends meanwhile, the deadline of cut must be the last
// one set.
func (c *conn) limit(set func(time.Time) error, at time.Time) {
	_ = set(at) // a closed connection returns an error when it is used
	if c.ctx.Err() != nil {
		c.cut()
	}
}

// look reads what the receiver sent before the request, which cannot be an answer:
// bytes (spoke), or the end of the connection (ended). It processes TLS records
// without data, such as a session ticket or a new key. The beginning of a record on a
// new connection may be one of those: look waits for the rest. On an idle connection
// it counts as bytes.
func (c *conn) look() (spoke, ended bool) {
	b := c.byte[:]
	var n int
	var err error
	if c.wire == nil {
		n, err = readNow(c.net, c.raw, b)
	} else {
		c.wire.looking = readNothing
		if c.kept.IsZero() {
			c.wire.looking = readToItsTail
		}
		n, err = c.net.Read(b)
		c.wire.looking = readWaits
	}
	if c.raw == nil && (c.wire == nil || c.wire.socket == nil || c.kept.IsZero()) {
		c.limit(c.net.SetReadDeadline, c.progress.until) // to look may have set another
	}
	c.found = max(n, 0)
	spoke = n > 0 || c.in.Buffered() > 0 || c.wire != nil && c.wire.amidRecord()
	return spoke, !errors.Is(err, errNothingHere) && n == 0
}

// firstBytes returns the first bytes that look found on a new connection: enough to
// recognize another protocol.
func (c *conn) firstBytes() []byte {
	begins := make([]byte, http2FrameHead)
	n := copy(begins, c.byte[:c.found])
	c.limit(c.net.SetReadDeadline, time.Now().Add(graceAfterWrite))
	more, _ := io.ReadFull(c.net, begins[n:]) // as many as arrive within the grace
	return begins[:n+more]
}

// gone says that an idle connection is not usable: the receiver has closed it, or has
// sent bytes without a request.
func (c *conn) gone() bool {
	spoke, ended := c.look()
	return spoke || ended
}

// cut ends every read and write of the connection.
func (c *conn) cut() { _ = c.net.SetDeadline(longAgo) }

// close ends the connection.
func (c *conn) close() {
	c.net.Close()
	if c.detach != nil {
		c.detach()
	}
}

// end takes the connection back from its call, and reports whether another call may
// use it. A context that is the call's alone must not cut the connection later.
func (c *conn) end(alone bool) bool {
	if c.granted {
		c.wire.end()
		c.granted = false
	}
	usable := c.ctx.Err() == nil && c.whole && !c.last && c.in.Buffered() == 0
	if c.sent != nil {
		select {
		case err := <-c.sent:
			usable = usable && err == nil
		default: // the receiver has not read the whole request
			usable = false
			c.net.Close()
			<-c.sent
		}
	}
	if cap(c.out) > keptRequest {
		c.out = nil
	}
	if alone && !c.detach() {
		usable = false
	}
	if !usable {
		c.close()
	} else if alone {
		c.ctx, c.detach = nil, nil
	}
	c.progress, c.sent = nil, nil
	return usable
}

// roundTrip sends a request and reads the answer up to the end of its header. The
// caller reads the answer's body, and then calls end. mayBegin is called right before
// the request is written. An error is an [*answerError] if an answer has begun.
func (c *conn) roundTrip(x *call, mayBegin func() bool) (*http.Response, error) {
	var err error
	if c.out, err = x.message.appendHead(c.out[:0]); err != nil {
		return nil, err
	}
	if len(x.body) <= largeBody {
		c.out = append(c.out, x.body...)
	}
	if mayBegin != nil && !mayBegin() {
		return nil, errLeaseOver
	}
	var resp *http.Response
	if len(x.body) > largeBody {
		resp, err = c.sendLarge(c.out, x.body)
	} else if n, failed := c.net.Write(c.out); failed != nil {
		c.refused = n == 0
		resp, err = c.answerInSpite(failed)
	} else {
		c.awaitHeader()
		resp, err = c.readResponse()
	}
	if err != nil && c.said.n > 0 {
		err = &answerError{status: c.said.final(), begins: bytes.Clone(c.said.bytes()), err: err}
	}
	return resp, err
}

// sendLarge writes the request in another goroutine while it reads the answer.
func (c *conn) sendLarge(head, body []byte) (*http.Response, error) {
	c.sent = make(chan error, 1)
	go func() {
		_, err := c.net.Write(head)
		if err == nil {
			_, err = c.net.Write(body)
		}
		if err == nil {
			c.awaitHeader()
		} else {
			c.limit(c.net.SetReadDeadline, time.Now().Add(graceAfterWrite))
		}
		c.sent <- err
	}()
	resp, err := c.readResponse()
	if err != nil {
		select {
		case failed := <-c.sent:
			c.sent <- failed
			err = cmp.Or(failed, err)
		default:
		}
	}
	return resp, err
}

// awaitHeader sets the deadline of the answer's header, unless bytes of it arrived.
func (c *conn) awaitHeader() {
	if c.progress.wroteRequest() {
		at := time.Now().Add(c.headerIn)
		if until := c.progress.until; !until.IsZero() && until.Before(at) {
			at = until
		}
		c.limit(c.net.SetReadDeadline, at)
	}
}

// answerInSpite reads the answer of a receiver that has stopped reading the request.
func (c *conn) answerInSpite(failed error) (*http.Response, error) {
	if timeout, ok := errors.AsType[net.Error](failed); c.refused || ok && timeout.Timeout() {
		return nil, failed
	}
	c.limit(c.net.SetReadDeadline, time.Now().Add(graceAfterWrite))
	resp, err := c.readResponse()
	if alertOf(err) != 0 {
		return nil, err
	}
	if err != nil {
		return nil, failed
	}
	c.last = true
	return resp, nil
}

// readResponse reads the header of the final answer. It skips interim answers (1xx),
// whatever they contain; their length counts to the header's limit.
func (c *conn) readResponse() (*http.Response, error) {
	for {
		begins, _ := c.in.Peek(statusLineLen) // ReadResponse returns the error of a shorter one
		c.said.n = copy(c.said.head[:], begins)
		if status, ok := c.said.status(); ok && isInterim(status) {
			if err := c.skipHeader(); err != nil {
				return nil, cmp.Or(c.fault, err)
			}
			continue
		}
		resp, err := http.ReadResponse(c.in, nil)
		if err != nil {
			if c.fault == nil && c.said.misnumbered() {
				return nil, &statusError{c.said.String()}
			}
			// net/http parses a status line that breaks off as if it were complete.
			return nil, cmp.Or(c.fault, err)
		}
		if err := checkStatus(resp); err != nil {
			return nil, err
		}
		if isInterim(resp.StatusCode) { // net/http allows more spaces and versions than RFC 9112
			continue
		}
		c.left = math.MaxInt
		c.last = c.last || resp.Close || resp.StatusCode == http.StatusSwitchingProtocols
		if resp.Body == http.NoBody {
			c.whole = true
			return resp, nil
		}
		c.limit(c.net.SetReadDeadline, c.progress.until) // readBody has a limit of its own
		resp.Body = &connBody{Reader: resp.Body, conn: c}
		return resp, nil
	}
}

// Read reads for the buffer c.in.
func (c *conn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		c.fault = errHeaderTooLarge
		return 0, c.fault
	}
	n, err := c.net.Read(b[:min(len(b), c.left)])
	if err != nil && err != io.EOF {
		c.fault = err
	}
	if n > 0 && c.left != math.MaxInt {
		c.left -= n
		c.progress.gotBytes()
	}
	return n, err
}

// skipHeader skips an answer up to the empty line that ends its header.
func (c *conn) skipHeader() error {
	for begins := true; ; {
		part, err := c.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if begins && err == nil && len(bytes.TrimRight(part, "\r\n")) == 0 {
			return nil
		}
		begins = err == nil
	}
}

// connBody notes that an answer was read to its end.
type connBody struct {
	io.Reader
	conn *conn
}

func (b *connBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.conn.whole = true
	}
	return n, err
}

// Close does nothing: the call closes or keeps the connection.
func (b *connBody) Close() error { return nil }

// idleTimeout is how long an unused connection is kept.
const idleTimeout = 60 * time.Second

// connPool keeps idle connections. It is safe for many goroutines.
type connPool struct {
	most int // idle connections in all

	mu     sync.Mutex
	idle   map[connKey][]*conn // the last one put is last; guarded by mu
	count  int                 // of idle connections; guarded by mu
	sweep  *time.Timer         // set while any connection is idle; guarded by mu
	closed bool                // guarded by mu
}

func newConnPool(most int) *connPool { return &connPool{most: most, idle: map[connKey][]*conn{}} }

// take removes and returns the connection that was used last, which is the most likely
// to be open; nil for none.
func (p *connPool) take(to connKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[to]
	if len(kept) == 0 {
		return nil
	}
	l := kept[len(kept)-1]
	kept[len(kept)-1] = nil
	p.idle[to] = kept[:len(kept)-1]
	p.count--
	return l
}

// put keeps a connection, or closes it if there are too many.
func (p *connPool) put(l *conn, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.count >= p.most {
		l.close()
		return
	}
	l.kept = now
	p.idle[l.to] = append(p.idle[l.to], l)
	if p.count++; p.sweep == nil {
		p.sweep = time.AfterFunc(idleTimeout, p.closeOld)
	}
}

// closeOld closes the connections that were idle for idleTimeout.
func (p *connPool) closeOld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for to, kept := range p.idle {
		old := 0
		for old < len(kept) && now.Sub(kept[old].kept) >= idleTimeout {
			kept[old].close()
			old++
		}
		p.count -= old
		if kept = append(kept[:0], kept[old:]...); len(kept) == 0 {
			delete(p.idle, to)
		} else {
			clear(kept[len(kept):cap(kept)])
			p.idle[to] = kept
		}
	}
	if p.sweep = nil; p.count > 0 && !p.closed {
		p.sweep = time.AfterFunc(idleTimeout/4, p.closeOld)
	}
}

// close closes the idle connections, and those that are put later.
func (p *connPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	for _, kept := range p.idle {
		for _, l := range kept {
			l.close()
		}
	}
	clear(p.idle)
	p.count = 0
}
