package deliver

import (
	"bytes"
	"cmp"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// gate is a connection on which net/http speaks HTTP/1.1, over TLS or not. Before the
// first byte of a request it checks whether the request may be written. It returns an
// error for bytes that arrive before that, and keeps how an answer begins.
//
// One goroutine of net/http writes, and another one reads at any time. So that no byte
// from before a request is its answer, the gate opens only while the reader waits and
// the socket is empty: the reader has taken all that arrived, and none of it was data.
type gate struct {
	net.Conn
	*lastReadError
	wire   *wire           // beneath TLS; nil without TLS
	socket syscall.RawConn // that the reader waits at; nil if it cannot be watched
	moved  chan struct{}   // has a value once the reader waits again, or spoke is set

	mu    sync.Mutex
	x     *carried   // the current request; nil for none; guarded by mu
	open  bool       // x may be written and answered; guarded by mu
	waits bool       // the reader waits at the socket; guarded by mu
	early bool       // bytes came while it was not open, so it never opens; guarded by mu
	spoke error      // that says so; nil until it is complete; guarded by mu
	said  statusLine // of the answer; guarded by mu
	fault error      // of reading it; nil for none, or the end; guarded by mu
}

// newGate makes the gate of a connection that nobody reads yet.
func newGate(conn net.Conn, beneath *wire) *gate {
	g := &gate{Conn: conn, lastReadError: newLastReadError(), wire: beneath, moved: make(chan struct{}, 1)}
	switch {
	case !canPeek:
	case beneath == nil:
		g.socket = socketOf(conn)
	default:
		g.socket, beneath.await = beneath.socket, g.await
	}
	return g
}

// carry makes a request the current one.
func (g *gate) carry(x *carried) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.x, g.open, g.said.n, g.fault = x, false, 0, nil
}

// done ends the current request, if it is x.
func (g *gate) done(x *carried) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.x == x {
		g.x, g.open = nil, false
	}
}

// enter returns the current request once it may be written. Until the reader has taken
// what arrived it waits, but no longer than a record may take.
func (g *gate) enter() (*carried, error) {
	var limit <-chan time.Time
	for {
		if x, err := g.tryEnter(); x != nil || err != nil {
			return x, err
		}
		if limit == nil {
			limit = time.After(recordTimeout)
		}
		select {
		case <-g.moved:
		case <-g.ended:
		case <-limit:
			return nil, errSpokeFirst
		}
	}
}

// tryEnter is enter without waiting. It returns nil if the reader has to come first.
func (g *gate) tryEnter() (*carried, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.x == nil:
		return nil, net.ErrClosed // it has ended
	case g.open:
		return g.x, nil
	case g.spoke != nil:
		return nil, g.spoke
	case g.wire != nil && g.x.reused.Load() && g.wire.holdsPart():
		return nil, errSpokeFirst
	case !g.drained():
		return nil, nil
	}
	if err := g.x.may(); err != nil {
		return nil, err
	}
	g.open = true
	return g.x, nil
}

// drained says that the reader has taken all that arrived, and found no data. Who calls
// it holds mu.
func (g *gate) drained() bool {
	if g.early {
		return false
	}
	select {
	case <-g.ended:
		return true
	default:
	}
	if g.socket == nil {
		return true // as far as it can be seen
	}
	if !g.waits || g.wire != nil && g.wire.holdsPart() {
		return false
	}
	empty := true // also if it is closed: to write returns an error
	_ = g.socket.Control(func(fd uintptr) { empty = !readable(fd) })
	return empty
}

// letIn says that x may have been written. Otherwise it never is: net/http has found an
// answer in what it read before, such as the rest of what came with the answer before.
func (g *gate) letIn(x *carried) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.x == x && g.open {
		return true
	}
	g.refuse(errSpokeFirst)
	return false
}

// refuse lets no request in any more. Who calls it holds mu.
func (g *gate) refuse(err error) {
	g.early, g.spoke = true, err
	g.move()
}

// move has enter look again.
func (g *gate) move() {
	select {
	case g.moved <- struct{}{}:
	default:
	}
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

// await waits until there is something to read, and takes nothing. From then on the gate
// does not open until the reader waits again, so that takes finds it as the bytes did.
func (g *gate) await() {
	if g.socket == nil {
		return
	}
	_ = g.socket.Read(func(fd uintptr) bool { // to read returns the same error
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.waits = !readable(fd); g.waits {
			g.move()
		}
		return !g.waits
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waits = false
}

func (g *gate) Read(b []byte) (int, error) {
	if g.wire == nil {
		g.await() // otherwise the wire calls it
	}
	n, err := g.Conn.Read(b)
	if g.takes(b[:n], err) {
		return n, err
	}
	err = &answerError{begins: g.firstBytes(bytes.Clone(b[:n])), err: errSpokeFirst}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuse(err)
	return 0, err
}

// takes notes the result of reading. It is false for bytes from before the request.
func (g *gate) takes(b []byte, err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(b) > 0 && !g.open {
		g.early = true
		return false
	}
	g.noteEnd(err)
	g.said.n += copy(g.said.head[g.said.n:], b)
	if err != nil && err != io.EOF {
		g.fault = err
	}
	return true
}

// Close also ends the wait of enter.
func (g *gate) Close() error {
	err := g.Conn.Close()
	g.noteEnd(net.ErrClosed)
	return err
}

// firstBytes completes what may be the first bytes of another protocol (see foreign)
// as far as they arrive within the grace. The connection ends after it.
func (g *gate) firstBytes(begins []byte) []byte {
	have := len(begins)
	if have >= http2FrameHead || begins[0] != 0 && begins[0] != 0x15 && begins[0] != 0x16 {
		return begins
	}
	_ = g.Conn.SetReadDeadline(time.Now().Add(graceAfterWrite))
	begins = append(begins, make([]byte, http2FrameHead-have)...)
	more, _ := io.ReadFull(g.Conn, begins[have:])
	return begins[:have+more]
}

// explain makes an answerError of err if an answer had begun.
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

// lastReadError is the error that reading a connection ended with. net/http writes in
// another goroutine, whose error says that the connection ended, but not why.
type lastReadError struct {
	once  sync.Once
	ended chan struct{} // closed once err is set
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

// explain returns what to report instead of the error of a write: the alert that came
// before the end, if the receiver has asked for a client certificate.
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

// alert is the error of reading if it is an alert; nil otherwise.
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
