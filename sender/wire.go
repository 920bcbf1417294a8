package sender

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
)

// statusLineBytes is as much of an answer as names its status: "HTTP/1.1 200 ".
const statusLineBytes = len("HTTP/1.1 200 ")

// wire is a connection as HTTP/1.1 speaks on it, above TLS. net/http hands over
// an answer with its whole header; the wire has seen the status line before,
// which is what an outcome is judged by. And it knows whether a request that
// failed was begun.
type wire struct {
	net.Conn
	may     func() bool // as in courier
	written atomic.Int64

	mu    sync.Mutex
	armed bool   // guarded by mu: a request is to be written, or was
	begun bool   // guarded by mu: some of it was
	head  []byte // guarded by mu: the first bytes of its answer
}

// begin forgets the answer before.
func (w *wire) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed, w.begun, w.head = true, false, w.head[:0]
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := statusLineBytes - len(w.head); w.armed && left > 0 {
		w.head = append(w.head, b[:min(n, left)]...)
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	if !w.mayWrite() {
		return 0, errLeaseOver
	}
	// Counted before, so that a concurrent reader never sees too few.
	w.written.Add(int64(len(b)))
	n, err := w.Conn.Write(b)
	if n == 0 && err != nil {
		w.written.Add(-int64(len(b)))
	}
	return n, err
}

// mayWrite lets a request begin while the lease holds. One that was begun is
// finished.
func (w *wire) mayWrite() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = w.begun || w.may == nil || w.may()
	return w.begun
}

// status is the final status that the answer's status line names; 0 when there
// is none, or an interim one (RFC 9112, 4).
func (w *wire) status() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	version, rest, _ := bytes.Cut(w.head, []byte(" "))
	if len(rest) != 4 || !bytes.HasPrefix(version, []byte("HTTP/1.")) || !bytes.ContainsAny(rest[3:], " \r\n") {
		return 0
	}
	status := 0
	for _, digit := range rest[:3] {
		if digit < '0' || digit > '9' {
			return 0
		}
		status = 10*status + int(digit-'0')
	}
	if status < 200 {
		return 0
	}
	return status
}
