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

// statusError says that an answer's status is no status of HTTP.
type statusError struct{ text string }

func (e *statusError) Error() string {
	return fmt.Sprintf("the answer's status is not a three-digit number: %q", e.text)
}

// statusOf reads a status: three digits (RFC 9110, 15), the first of which is not
// zero. Those from 600 on are outside HTTP, and are kept as what they are.
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

// isInterim says that another answer follows. Nothing that HTTP has a name for
// follows 101.
func isInterim(status int) bool {
	return status < 200 && status != http.StatusSwitchingProtocols
}

// checkStatus refuses what net/http takes for a status beyond three digits: over
// HTTP/1 a sign or a leading zero, over HTTP/2 any whole number.
func checkStatus(resp *http.Response) error {
	text, _, _ := strings.Cut(resp.Status, " ")
	if status, ok := statusOf(text); !ok || status != resp.StatusCode {
		return &statusError{text}
	}
	return nil
}

// statusLineLen is as much of an answer as names its status: "HTTP/1.1 200 ".
const statusLineLen = len("HTTP/1.1 200 ")

// statusLine is how an answer over HTTP/1 begins.
type statusLine struct {
	head [statusLineLen]byte
	n    int // bytes of head
}

func (s *statusLine) bytes() []byte { return s.head[:s.n] }

// String is for people.
func (s *statusLine) String() string { return string(bytes.TrimRight(s.bytes(), "\r\n")) }

// status is the status that it names (RFC 9112, 4), final or interim.
func (s *statusLine) status() (status int, ok bool) {
	version, rest, _ := bytes.Cut(s.bytes(), []byte(" "))
	if len(rest) != 4 || !bytes.HasPrefix(version, []byte("HTTP/1.")) || !bytes.ContainsAny(rest[3:], " \r\n") {
		return 0, false
	}
	return statusOf(string(rest[:3]))
}

// final is the final status that it names; 0 when there is none, or an interim
// one.
func (s *statusLine) final() int {
	if status, ok := s.status(); ok && status >= 200 {
		return status
	}
	return 0
}

// misnumbered says that it is one of HTTP/1 whose status is no number of three
// digits.
func (s *statusLine) misnumbered() bool {
	version, rest, _ := bytes.Cut(s.bytes(), []byte(" "))
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

// answerError is why an answer that had begun did not come to the end of its
// header.
type answerError struct {
	status int    // the final status that was seen; 0 for none
	begins []byte // of the answer over HTTP/1; nil for HTTP/2
	err    error
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// The frames of HTTP/2 that frames looks into (RFC 9113, 6), and their flags.
const (
	http2FrameHead    = 9
	http2Headers      = 1
	http2Continuation = 9
	http2EndHeaders   = 0x4
	http2Padded       = 0x8
	http2Priority     = 0x20
	http2Preface      = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
)

// mostStatuses is how many are kept of streams that nobody has asked about.
const mostStatuses = 1024

// frames is a connection on which HTTP/2 is spoken, in the clear of TLS, between
// it and net/http, which drops an answer whole for one bad field, or for a header
// that is too long. It notes the status of each, which is all that decides.
type frames struct {
	*tls.Conn
	*lastReadError

	in  frameReader // of the goroutine that reads
	out frameReader // of whoever writes, one at a time

	mu       sync.Mutex
	opened   uint32         // the stream that was opened last; guarded by mu
	statuses map[uint32]int // the final ones, by stream; guarded by mu
}

func newFrames(conn *tls.Conn) *frames {
	f := &frames{Conn: conn, lastReadError: newLastReadError(), statuses: map[uint32]int{}}
	f.out.skip = http2Preface
	f.out.header = func(stream uint32) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.opened = stream
	}
	f.in.fields = hpack.NewDecoder(4096, nil) // the size that net/http lets it have
	f.in.fields.SetMaxStringLength(maxAnswerHeader)
	f.in.fields.SetEmitFunc(func(field hpack.HeaderField) {
		if status, ok := statusOf(field.Value); field.Name == ":status" && ok && status >= 200 {
			f.note(f.in.stream, status)
		}
	})
	return f
}

func (f *frames) note(stream uint32, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.statuses[stream]; known || stream > f.opened {
		return // it is no answer: there is one already, or no request yet
	}
	if len(f.statuses) >= mostStatuses {
		clear(f.statuses)
	}
	f.statuses[stream] = status
}

// last is the stream that was opened last. Streams are opened in turn.
func (f *frames) last() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// take is the status of a stream's answer, which is forgotten; 0 for none.
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
	f.out.follow(b) // first: the answer may be quick. After an error nothing follows
	n, err := f.Conn.Write(b)
	return n, f.explain(err, wireOf(f.Conn))
}

// Close waits for no receiver that takes no farewell.
func (f *frames) Close() error {
	_ = f.NetConn().SetWriteDeadline(time.Now().Add(250 * time.Millisecond))
	return f.Conn.Close()
}

// frameReader follows the frames of one direction.
type frameReader struct {
	header func(stream uint32) // is told of each HEADERS frame; nil for nobody
	fields *hpack.Decoder      // of what the headers hold; nil where that is not looked at

	skip   int // bytes before the next frame, or of it, that are passed over
	head   [http2FrameHead]byte
	heads  int    // bytes of head
	rest   int    // bytes of a header's fields that are not here yet
	padded bool   // the length of what fills the frame comes first
	filled int    // bytes behind the fields
	last   bool   // the frame is the header's last
	stream uint32 // of the present frame
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
				r.fields, r.skip, r.rest = nil, r.rest+r.filled, 0 // what follows cannot be read either
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

// begin takes the head of a frame.
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

// end is at the end of a frame's fields: those of a header may go on in the next.
func (r *frameReader) end() {
	if r.last && r.fields.Close() != nil {
		r.fields = nil
	}
}

// unwrapped hands a connection to net/http's HTTP/2, which takes one that is not
// of crypto/tls only as what is within another.
type unwrapped struct{ net.Conn }

func (u unwrapped) UnencryptedNetConn() net.Conn { return u.Conn }
