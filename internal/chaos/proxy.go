package chaos

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Weather is the state of a network. The zero value is a good network.
type Weather struct {
	Latency   time.Duration // added to each piece that is relayed, each way
	Bandwidth int           // bytes a second and direction; 0 is no limit
	Silent    bool          // nothing passes and no error is reported: a black hole
	Refusing  bool          // new connections are reset at once
}

// Proxy relays connections to a target. Close it.
type Proxy struct {
	listener net.Listener
	target   string
	relays   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	weather Weather
	changed chan struct{} // closed when the weather changes
	closed  bool
	conns   map[net.Conn]struct{}
}

// NewProxy listens on a free port of 127.0.0.1 and relays to target.
func NewProxy(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{listener: listener, target: target, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.relays.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes the weather, for open connections too.
func (p *Proxy) Set(w Weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	close(p.changed)
	p.changed = make(chan struct{})
}

// Reset ends all open connections with a TCP reset.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		reset(conn)
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.Set(Weather{})
	p.Reset()
	p.relays.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // temporarily out of descriptors
		}
		if w, _ := p.now(); w.Refusing {
			reset(conn)
			continue
		}
		p.relays.Go(func() { p.relay(conn) })
	}
}

// relay connects to the target and copies bytes both ways until both sides have ended or
// one of them has failed.
func (p *Proxy) relay(near net.Conn) {
	defer p.forget(near)
	if !p.keep(near) || !p.passable() {
		return
	}
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		reset(near)
		return
	}
	defer p.forget(far)
	if !p.keep(far) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { p.carry(near, far) })
	p.carry(far, near)
	back.Wait()
}

// carry copies one direction. It passes on the end of the stream as an end, and an error
// as a reset of both sides.
func (p *Proxy) carry(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.delay(n) || !p.passable() {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				reset(from)
				return
			}
		}
		if err != nil {
			if !p.passable() {
				return
			}
			if one, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				_ = one.CloseWrite()
			} else {
				reset(to)
			}
			return
		}
	}
}

// delay waits as long as n bytes take in the present weather. It returns false when the
// proxy is closed.
func (p *Proxy) delay(n int) bool {
	w, _ := p.now()
	wait := w.Latency
	if w.Bandwidth > 0 {
		wait += time.Duration(n) * time.Second / time.Duration(w.Bandwidth)
	}
	if wait > 0 {
		<-time.After(wait)
	}
	return !p.isClosed()
}

// passable waits until the network is not silent. It returns false when the proxy is
// closed.
func (p *Proxy) passable() bool {
	for {
		w, changed := p.now()
		if !w.Silent || p.isClosed() {
			return !p.isClosed()
		}
		<-changed
	}
}

func (p *Proxy) now() (Weather, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.weather, p.changed
}

func (p *Proxy) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// keep registers an open connection; false when the proxy is closed.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.conns[conn] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) forget(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}

// reset drops a connection with a TCP reset instead of an orderly end.
func reset(conn net.Conn) {
	if one, ok := conn.(*net.TCPConn); ok {
		_ = one.SetLinger(0)
	}
	_ = conn.Close()
}
