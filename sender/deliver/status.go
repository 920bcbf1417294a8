package deliver

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// statusError says that an answer's status is not three digits.
type statusError struct{ text string }

func (e *statusError) Error() string {
	return fmt.Sprintf("the answer's status is not a three-digit number: %q", e.text)
}

// statusOf parses a status: three digits (RFC 9110, 15), the first of which is not zero.
// It returns those from 600 on too, although HTTP does not use them.
func statusOf(text string) (status int, ok bool) {
	if len(text) != 3 || text[0] == '0' {
		return 0, false
	}
	for _, digit := range []byte(text) {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		status = 10*status + int(digit-'0')
	}
	return status, true
}

// isInterim says that another answer follows. After 101 the protocol is not HTTP.
func isInterim(status int) bool {
	return status < 200 && status != http.StatusSwitchingProtocols
}

// checkStatus refuses statuses that net/http accepts although they are not three digits:
// over HTTP/1 a sign or a leading zero, over HTTP/2 any integer.
func checkStatus(resp *http.Response) error {
	text, _, _ := strings.Cut(resp.Status, " ")
	if status, ok := statusOf(text); !ok || status != resp.StatusCode {
		return &statusError{text}
	}
	return nil
}

// statusLineLen is how long the beginning of an answer is that holds its status:
// "HTTP/1.1 200 ".
const statusLineLen = len("HTTP/1.1 200 ")

// statusLine is the beginning of an answer over HTTP/1.
type statusLine struct {
	head [statusLineLen]byte
	n    int // bytes of head
}

func (s *statusLine) bytes() []byte { return s.head[:s.n] }

// String is for display.
func (s *statusLine) String() string { return string(bytes.TrimRight(s.bytes(), "\r\n")) }

// status is the line's status (RFC 9112, 4), final or interim.
func (s *statusLine) status() (status int, ok bool) {
	version, rest, _ := bytes.Cut(s.bytes(), []byte(" "))
	if len(rest) != 4 || !bytes.HasPrefix(version, []byte("HTTP/1.")) || !bytes.ContainsAny(rest[3:], " \r\n") {
		return 0, false
	}
	return statusOf(string(rest[:3]))
}

// final is the line's final status; 0 for none, or an interim one.
func (s *statusLine) final() int {
	if status, ok := s.status(); ok && status >= 200 {
		return status
	}
	return 0
}

// misnumbered says that the line is one of HTTP/1 whose status is not three digits.
func (s *statusLine) misnumbered() bool {
	version, rest, _ := bytes.Cut(s.bytes(), []byte(" "))
	if !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return false
	}
	end := bytes.IndexAny(rest, " \r\n")
	if end < 0 {
		return len(rest) > 3 // a shorter line broke off
	}
	_, ok := statusOf(string(rest[:end]))
	return !ok
}

// answerError is the error of an answer whose header has begun and did not end.
type answerError struct {
	status int    // the final status that was seen; 0 for none
	begins []byte // of the answer over HTTP/1; nil for HTTP/2
	err    error
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// The frames of HTTP/2 that frames reads (RFC 9113, 6), and their flags.
const (
	http2FrameHead    = 9
	http2Headers      = 1
	http2Continuation = 9
	http2EndHeaders   = 0x4
	http2Padded       = 0x8
	http2Priority     = 0x20
	http2Preface      = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
)

// mostStatuses bounds how many statuses are kept until take asks for them.
const mostStatuses = 1024

// frames is a TLS connection on which net/http speaks HTTP/2. net/http drops an answer
// with one invalid field, or with a header that is too long. frames notes the status
// of each answer, which alone decides.
type frames struct {
	*tls.Conn
	*lastReadError

	in  frameReader // the reading goroutine's
	out frameReader // the writer's, of which there is one at a time

	mu       sync.Mutex
	opened   uint32         // the last opened stream; guarded by mu
	statuses map[uint32]int // final ones, by stream; guarded by mu
}

func newFrames(conn *tls.Conn) *frames {
	f := &frames{Conn: conn, lastReadError: newLastReadError(), statuses: map[uint32]int{}}
	f.out.skip = http2Preface
	f.out.header = func(stream uint32) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.opened = stream
	}
	f.in.fields = hpack.NewDecoder(4096, nil) // the table size that net/http announces
	f.in.fields.SetMaxStringLength(maxAnswerHeader)
	f.in.fields.SetEmitFunc(func(field hpack.HeaderField) {
		if status, ok := statusOf(field.Value); field.Name == ":status" && ok && status >= 200 {
			f.note(f.in.stream, status)
		}
	})
	return f
}

// note keeps the first status of a stream.
func (f *frames) note(stream uint32, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.statuses[stream]; known || stream > f.opened {
		return // the stream has an answer already, or no request yet
	}
	if len(f.statuses) >= mostStatuses {
		clear(f.statuses)
	}
	f.statuses[stream] = status
}

// last is the last opened stream.
func (f *frames) last() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// take removes and returns the status of a stream's answer; 0 for none.
func (f *frames) take(stream uint32) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	status := f.statuses[stream]
	delete(f.statuses, stream)
	return status
}

func (f *frames) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	f.in.follow(b[:n])
	f.noteEnd(err)
	return n, err
}

func (f *frames) Write(b []byte) (int, error) {
	f.out.follow(b) // before the write: the answer may arrive during it
	n, err := f.Conn.Write(b)
	return n, f.explain(err, wireOf(f.Conn))
}

// Close bounds how long it waits for a receiver that does not read the close_notify.
func (f *frames) Close() error {
	_ = f.NetConn().SetWriteDeadline(time.Now().Add(250 * time.Millisecond))
	return f.Conn.Close()
}

// frameReader follows the frames of one direction.
type frameReader struct {
	header func(stream uint32) // called for each HEADERS frame; may be nil
	fields *hpack.Decoder      // decodes header fields; nil to skip them

	skip   int // bytes to skip
	head   [http2FrameHead]byte
	heads  int    // bytes of head
	rest   int    // bytes of header fields that have not arrived
	padded bool   // the next byte is the length of the frame's padding
	filled int    // bytes of padding after the fields
	last   bool   // the frame is the header's last
	stream uint32 // of the current frame
}

func (r *frameReader) follow(b []byte) {
	for len(b) > 0 {
		switch {
		case r.padded:
			r.padded = false
			fill := int(b[0])
			b = b[1:]
			r.rest = max(r.rest-1-fill, 0)
			if r.filled = fill; r.rest == 0 {
				r.skip += fill
				r.end()
			}
		case r.skip > 0:
			n := min(r.skip, len(b))
			r.skip -= n
			b = b[n:]
		case r.rest > 0:
			n := min(r.rest, len(b))
			r.rest -= n
			if _, err := r.fields.Write(b[:n]); err != nil {
				r.fields, r.skip, r.rest = nil, r.rest+r.filled, 0 // nothing after an error can be decoded
			} else if r.rest == 0 {
				r.skip = r.filled
				r.end()
			}
			b = b[n:]
		default:
			n := copy(r.head[r.heads:], b)
			b = b[n:]
			if r.heads += n; r.heads == http2FrameHead {
				r.heads = 0
				r.begin()
			}
		}
	}
}

// begin reads the head of a frame.
func (r *frameReader) begin() {
	length := int(binary.BigEndian.Uint32(r.head[:4]) >> 8)
	kind, flags := r.head[3], r.head[4]
	r.stream = binary.BigEndian.Uint32(r.head[5:]) & 0x7fffffff
	if kind == http2Headers && r.header != nil {
		r.header(r.stream)
	}
	r.skip, r.filled = length, 0
	if r.fields == nil || kind != http2Headers && kind != http2Continuation {
		return
	}
	r.last = flags&http2EndHeaders != 0
	if length == 0 {
		r.end()
		return
	}
	r.skip, r.rest = 0, length
	if kind != http2Headers {
		return
	}
	r.padded = flags&http2Padded != 0
	if flags&http2Priority != 0 {
		r.skip = min(5, r.rest)
		r.rest -= r.skip
	}
}

// end ends the fields of a frame. A header's fields may continue in the next frame.
func (r *frameReader) end() {
	if r.last && r.fields.Close() != nil {
		r.fields = nil
	}
}

// unwrapped passes a connection to net/http's HTTP/2, which accepts one that is not a
// *tls.Conn only as the connection within a *tls.Conn.
type unwrapped struct{ net.Conn }

func (u unwrapped) UnencryptedNetConn() net.Conn { return u.Conn }
