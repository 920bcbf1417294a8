package deliver

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// How many bytes a receiver may send over TLS. An answer needs its header, a little of
// its body and, over HTTP/2, the window of a stream; the rest is room for frames and
// records. More bytes only make work: each frame without meaning costs this machine a
// microsecond.
const (
	handshakeBytes = 256 << 10 // crypto/tls accepts no longer certificate message
	requestBytes   = 192 << 10 // for each request that waits for its answer
	idleBytes      = 96 << 10  // for bytes on their way when a request ended
	sentPerByte    = 16        // a request of n bytes allows n/16 more, for acknowledgements
)

// Types of records (RFC 5246, 6.2.1).
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
)

// errFlood says that a receiver sent more than any answer needs.
var errFlood = errors.New("the receiver sent more than an answer needs")

// recordTimeout is how long to wait for the rest of a record on a new connection.
const recordTimeout = time.Second

// wire is the connection beneath TLS. It bounds the bytes that arrive by what answers
// need, and follows where each record (RFC 8446, 5.1) begins and ends, so that look
// sees bytes of an incomplete record.
type wire struct {
	net.Conn
	socket syscall.RawConn // of Conn; nil if it has none
	asked  atomic.Bool     // the receiver has asked for a client certificate
	await  func()          // called before a Read that waits; nil for none

	mu       sync.Mutex
	left     int  // bytes that may still arrive; guarded by mu
	requests int  // that wait for an answer; guarded by mu
	holds    bool // holdsPart; guarded by mu

	// Of the goroutine that reads.
	looking looking
	head    [5]byte
	heads   int  // bytes of head
	rest    int  // bytes of the record that have not arrived
	alerted bool // an alert has come since the last ChangeCipherSpec
}

// looking says how Read behaves.
type looking int

const (
	readWaits     looking = iota // as any Read
	readNothing                  // returns errNothingHere instead of waiting
	readToItsTail                // waits only for the rest of a record
)

func newWire(conn net.Conn) *wire {
	return &wire{Conn: conn, socket: socketOf(conn), left: handshakeBytes}
}

// socketOf returns the socket of a connection; nil if it has none.
func socketOf(conn net.Conn) syscall.RawConn {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	socket, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return socket
}

// begin allows the bytes of one more answer.
func (w *wire) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = min(w.left, w.requests*requestBytes+idleBytes) + requestBytes
	w.requests++
}

// end takes back the bytes that the answer did not use.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests--
	w.left = min(w.left, w.requests*requestBytes+idleBytes)
}

// Read reads for TLS. It returns errFlood once the receiver has sent more than allowed.
func (w *wire) Read(b []byte) (int, error) {
	w.mu.Lock()
	left := w.left
	w.mu.Unlock()
	if left <= 0 {
		return 0, errFlood
	}
	b = b[:min(len(b), left)]
	var n int
	var err error
	switch {
	case w.looking == readWaits:
		if w.await != nil {
			w.await()
		}
		n, err = w.Conn.Read(b)
	case w.looking == readToItsTail && w.amidRecord():
		_ = w.Conn.SetReadDeadline(time.Now().Add(recordTimeout)) // look sets it again afterwards
		n, err = w.Conn.Read(b[:min(len(b), w.missing())])
	default:
		n, err = readNow(w.Conn, w.socket, b)
	}
	if n > 0 {
		w.follow(b[:n])
		w.mu.Lock()
		w.left -= n
		w.holds = w.amidRecord() || w.alerted
		w.mu.Unlock()
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if n > 0 {
		w.mu.Lock()
		w.left += n / sentPerByte
		w.mu.Unlock()
	}
	return n, err
}

// follow follows records: five bytes of header, the last two of which are the length
// of the rest.
func (w *wire) follow(b []byte) {
	for len(b) > 0 {
		if w.rest > 0 {
			n := min(w.rest, len(b))
			w.rest -= n
			b = b[n:]
			continue
		}
		n := copy(w.head[w.heads:], b)
		b = b[n:]
		if w.heads += n; w.heads == len(w.head) {
			w.heads, w.rest = 0, int(w.head[3])<<8|int(w.head[4])
			w.alerted = w.head[0] == recordAlert || w.alerted && w.head[0] != recordChangeCipherSpec
		}
	}
}

// holdsPart says that crypto/tls may hold bytes and wait for more: of an incomplete
// record, or of one before an alert. It reads an alert of TLS 1.2 with the data before it,
// and if that is a warning the next record too. Any goroutine may call it.
func (w *wire) holdsPart() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holds
}

func (w *wire) amidRecord() bool { return w.heads > 0 || w.rest > 0 }

// missing is how many bytes are missing of the current record, or of its header.
func (w *wire) missing() int {
	if w.rest > 0 {
		return w.rest
	}
	return len(w.head) - w.heads
}

// nothingHere says that a Read would have to wait. It is temporary, so that crypto/tls
// can read again.
type nothingHere struct{}

var errNothingHere net.Error = nothingHere{}

func (nothingHere) Error() string   { return "nothing to read" }
func (nothingHere) Timeout() bool   { return true }
func (nothingHere) Temporary() bool { return true }

// readShortly is readNow for a connection without a RawConn.
func readShortly(conn net.Conn, b []byte) (int, error) {
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // look sets it again afterwards
	n, err := conn.Read(b)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		err = errNothingHere
	}
	return n, err
}
