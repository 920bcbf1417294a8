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
	"syscall"
	"time"
)

const (
	// statusLineBytes is as much of an answer as names its status: "HTTP/1.1 200 ".
	statusLineBytes = len("HTTP/1.1 200 ")

	// lineBuffer is what is read at once: most answers are shorter.
	lineBuffer = 2 << 10

	// largeBody is written beside the reading: an answer may come before the
	// request is taken. A smaller one fits into what the system buffers.
	largeBody = 64 << 10

	// keptRequest is as long a request as a line keeps the memory of.
	keptRequest = 8 << 10

	// graceAfterWrite is how long an answer is looked for when the other side
	// has stopped taking the request.
	graceAfterWrite = 50 * time.Millisecond
)

var errHeaderTooLarge = errors.New("the answer's header is longer than 64 KiB")

// longAgo ends whatever waits on a connection.
var longAgo = time.Unix(1, 0)

// line is a connection on which HTTP/1.1 is spoken, in the clear of TLS. One
// attempt at a time has it, and its goroutine both writes the request and reads
// the answer: net/http's client would hand each of them to another goroutine,
// which costs more than all else that an attempt does. net/http parses answers
// here too.
type line struct {
	conn   net.Conn
	socket syscall.RawConn // nil when there is none to look at, or TLS is spoken
	wire   *wire           // beneath TLS; nil without
	to     lineKey         // what the pool knows it by
	kept   time.Time       // when it was put there; zero for a new one
	in     *bufio.Reader   // of the line's own Read
	out    []byte          // the request
	byte   [1]byte         // of look

	// ctx is that of the attempt that has it, or had it last: detach ends that.
	ctx    context.Context
	detach func() bool

	// Of the attempt that has it.
	progress *progress
	left     int // bytes that may still be read before the answer's header ends
	head     [statusLineBytes]byte
	heads    int           // bytes of head
	fault    error         // of reading; nil for none, or the end
	refused  bool          // a write failed before a byte was out
	sent     chan error    // of a large request that is being written; else nil
	whole    bool          // the answer was read to its end
	last     bool          // it said that the connection ends with it
	granted  bool          // the wire allows for its answer
	headerIn time.Duration // the time limit for the answer's header
}

func newLine(conn net.Conn, to lineKey) *line {
	l := &line{conn: conn, to: to}
	switch c := conn.(type) {
	case *tls.Conn:
		l.wire = wireOf(c)
	case syscall.Conn:
		l.socket, _ = c.SyscallConn() // nil where it fails
	}
	l.in = bufio.NewReaderSize(l, lineBuffer)
	return l
}

// begin gives the line to an attempt that ends with ctx. Its answer's header
// must be here header after the request was written. It answers false when the
// attempt before has come to an end by its context, which may cut the line late.
func (l *line) begin(ctx context.Context, p *progress, header time.Duration) bool {
	l.progress, l.headerIn = p, header
	l.left, l.heads, l.fault = maxAnswerHeader, 0, nil
	l.refused, l.sent, l.whole, l.last = false, nil, false, false
	p.at.Store(int32(phaseSend))
	if l.ctx != ctx {
		if l.detach != nil && !l.detach() {
			return false
		}
		l.ctx, l.detach = ctx, context.AfterFunc(ctx, l.cut)
	}
	if l.wire != nil {
		l.wire.begin()
		l.granted = true
	}
	l.limit(l.conn.SetDeadline, p.until)
	return true
}

// limit sets a time limit. ctx may end while it does: what is set last must not
// be a limit that lies ahead.
func (l *line) limit(set func(time.Time) error, at time.Time) {
	_ = set(at) // a connection that is closed says so when it is used
	if l.ctx.Err() != nil {
		l.cut()
	}
}

// look says what there is to read before a request was written, which is not an
// answer to it: anything at all (spoke), or the end of the connection (ended).
// Records of TLS that carry no data, a session ticket or a new key, are taken
// in. A record that has begun to arrive on a new connection may be one of those,
// and is waited for; on a kept one it counts as something.
func (l *line) look() (spoke, ended bool) {
	b := l.byte[:]
	var n int
	var err error
	if l.wire == nil {
		n, err = readNow(l.conn, l.socket, b)
	} else {
		l.wire.looking = readNothing
		if l.kept.IsZero() {
			l.wire.looking = readToItsTail
		}
		n, err = l.conn.Read(b)
		l.wire.looking = readWaits
	}
	if l.socket == nil && (l.wire == nil || l.wire.socket == nil || l.kept.IsZero()) {
		l.limit(l.conn.SetReadDeadline, l.progress.until) // to look may have set another
	}
	spoke = n > 0 || l.in.Buffered() > 0 || l.wire != nil && l.wire.amidRecord()
	return spoke, !errors.Is(err, errNothingHere) && n == 0
}

// gone says that a kept line is of no use: the other side has closed it, or has
// said something that nobody asked for.
func (l *line) gone() bool {
	spoke, ended := l.look()
	return spoke || ended
}

// cut ends whatever the line waits for.
func (l *line) cut() { _ = l.conn.SetDeadline(longAgo) }

// close ends the connection.
func (l *line) close() {
	l.conn.Close()
	if l.detach != nil {
		l.detach()
	}
}

// end takes the line back from its attempt, and says whether another may have
// it.
func (l *line) end() bool {
	if l.granted {
		l.wire.end()
		l.granted = false
	}
	usable := l.ctx.Err() == nil && l.whole && !l.last && l.in.Buffered() == 0
	if l.sent != nil {
		select {
		case err := <-l.sent:
			usable = usable && err == nil
		default: // the request is not taken whole, and will not be
			usable = false
			l.conn.Close()
			<-l.sent
		}
	}
	if cap(l.out) > keptRequest {
		l.out = nil
	}
	if !usable {
		l.close()
	}
	l.progress, l.sent = nil, nil
	return usable
}

// exchange sends a request and reads the answer up to the end of its header.
// The answer's body is read from the line, and is never closed: end does what
// is needed. Whether the request may begin is asked last before it does.
func (l *line) exchange(x *exchange) (*http.Response, error) {
	var err error
	if l.out, err = x.appendHead(l.out[:0]); err != nil {
		return nil, err
	}
	body := x.sent.body
	if len(body) <= largeBody {
		l.out = append(l.out, body...)
	}
	if may := x.http.config.MayBegin; may != nil && !may() {
		return nil, errLeaseOver
	}
	if len(body) > largeBody {
		return l.exchangeLarge(l.out, body)
	}
	n, err := l.conn.Write(l.out)
	if l.refused = n == 0 && err != nil; err != nil {
		return l.answerInSpite(err)
	}
	l.awaitHeader()
	return l.readResponse()
}

// exchangeLarge writes the request beside the reading of its answer.
func (l *line) exchangeLarge(head, body []byte) (*http.Response, error) {
	l.sent = make(chan error, 1)
	go func() {
		_, err := l.conn.Write(head)
		if err == nil {
			_, err = l.conn.Write(body)
		}
		if err == nil {
			l.awaitHeader()
		} else {
			l.limit(l.conn.SetReadDeadline, time.Now().Add(graceAfterWrite))
		}
		l.sent <- err
	}()
	resp, err := l.readResponse()
	if err != nil {
		select {
		case failed := <-l.sent:
			l.sent <- failed
			err = cmp.Or(failed, err)
		default:
		}
	}
	return resp, err
}

// awaitHeader starts the time limit for the answer, unless it is here already.
func (l *line) awaitHeader() {
	if l.progress.at.CompareAndSwap(int32(phaseSend), int32(phaseWait)) {
		at := time.Now().Add(l.headerIn)
		if l.progress.until.Before(at) {
			at = l.progress.until
		}
		l.limit(l.conn.SetReadDeadline, at)
	}
}

// answerInSpite looks for the answer of a receiver that stopped reading: it may
// have said why.
func (l *line) answerInSpite(failed error) (*http.Response, error) {
	if timeout, ok := errors.AsType[net.Error](failed); l.refused || ok && timeout.Timeout() {
		return nil, failed
	}
	l.limit(l.conn.SetReadDeadline, time.Now().Add(graceAfterWrite))
	resp, err := l.readResponse()
	if err != nil {
		return nil, failed
	}
	l.last = true
	return resp, nil
}

// readResponse reads the header of the final answer: interim ones (1xx) are
// passed over, whatever is in them, and count to its length.
func (l *line) readResponse() (*http.Response, error) {
	for {
		begins, _ := l.in.Peek(statusLineBytes) // a shorter one breaks off, which is told below
		l.heads = copy(l.head[:], begins)
		if l.interim() {
			if err := l.skipHeader(); err != nil {
				return nil, cmp.Or(l.fault, err)
			}
			continue
		}
		resp, err := http.ReadResponse(l.in, nil)
		if err != nil {
			if l.fault == nil && l.misnumbered() {
				return nil, &statusError{string(bytes.TrimRight(l.head[:l.heads], "\r\n"))}
			}
			// A line that breaks off is parsed as if it were whole.
			return nil, cmp.Or(l.fault, err)
		}
		if err := checkStatus(resp); err != nil {
			return nil, err
		}
		if isInterim(resp.StatusCode) { // net/http takes more spaces and versions than RFC 9112 has
			continue
		}
		l.left = math.MaxInt
		l.last = l.last || resp.Close || resp.StatusCode == http.StatusSwitchingProtocols
		if resp.Body == http.NoBody {
			l.whole = true
			return resp, nil
		}
		l.limit(l.conn.SetReadDeadline, l.progress.until) // whoever reads the body has a limit of its own
		resp.Body = &lineBody{Reader: resp.Body, line: l}
		return resp, nil
	}
}

// Read is what the line's own buffer reads by.
func (l *line) Read(b []byte) (int, error) {
	if l.left <= 0 {
		l.fault = errHeaderTooLarge
		return 0, l.fault
	}
	n, err := l.conn.Read(b[:min(len(b), l.left)])
	if err != nil && err != io.EOF {
		l.fault = err
	}
	if n > 0 && l.left != math.MaxInt {
		l.left -= n
		l.progress.at.Store(int32(phaseRead))
	}
	return n, err
}

// interim says that the answer at hand is none yet.
func (l *line) interim() bool {
	status, ok := l.numbered()
	return ok && isInterim(status)
}

// skipHeader passes over an answer up to the empty line that ends its header.
func (l *line) skipHeader() error {
	for begins := true; ; {
		part, err := l.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if begins && err == nil && len(bytes.TrimRight(part, "\r\n")) == 0 {
			return nil
		}
		begins = err == nil
	}
}

// numbered reads the status that the status line names.
func (l *line) numbered() (status int, ok bool) {
	version, rest, _ := bytes.Cut(l.head[:l.heads], []byte(" "))
	if len(rest) != 4 || !bytes.HasPrefix(version, []byte("HTTP/1.")) || !bytes.ContainsAny(rest[3:], " \r\n") {
		return 0, false
	}
	return statusOf(string(rest[:3]))
}

// status is the final status that the answer's status line names; 0 when there
// is none, or an interim one (RFC 9112, 4).
func (l *line) status() int {
	if status, ok := l.numbered(); ok && status >= 200 {
		return status
	}
	return 0
}

// misnumbered says that the status line is one of HTTP/1 whose status is no
// number of three digits.
func (l *line) misnumbered() bool {
	version, rest, _ := bytes.Cut(l.head[:l.heads], []byte(" "))
	if !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return false
	}
	end := bytes.IndexAny(rest, " \r\n")
	if end < 0 {
		return len(rest) > 3 // else it broke off
	}
	_, ok := statusOf(string(rest[:end]))
	return !ok
}

// lineBody notes that an answer was read to its end.
type lineBody struct {
	io.Reader
	line *line
}

func (b *lineBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.line.whole = true
	}
	return n, err
}

// Close leaves the connection to the line's end.
func (b *lineBody) Close() error { return nil }
