package endtoend

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"walhook/internal/loopback"
)

// natsGate stands before a server: closed, it passes nothing on and keeps every connection
// open, like a server that hangs or a network that drops everything.
type natsGate struct {
	address string
	mu      sync.Mutex
	open    chan struct{} // closed while it passes
	severed bool
	conns   []net.Conn
}

func newNATSGate(t *testing.T, to int) *natsGate {
	t.Helper()
	g := &natsGate{open: make(chan struct{})}
	close(g.open)
	listener, err := net.Listen("tcp", loopback.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	g.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to))
			if err != nil {
				client.Close()
				continue
			}
			if !g.admit(client, server) {
				client.Close()
				server.Close()
				continue
			}
			go g.pass(ctx, client, server)
			go g.pass(ctx, server, client)
		}
	}()
	return g
}

func (g *natsGate) pass(ctx context.Context, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
		case <-ctx.Done():
			return
		}
		n, err := from.Read(buf)
		g.mu.Lock()
		open = g.open
		g.mu.Unlock()
		select { // it may have been closed while nothing came
		case <-open:
		case <-ctx.Done():
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (g *natsGate) shut() (reopen func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		close(g.open)
	}
}

// admit notes the two connections of a client, unless the gate is severed.
func (g *natsGate) admit(both ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.severed {
		g.conns = append(g.conns, both...)
	}
	return !g.severed
}

// sever ends every connection, and takes no new one.
func (g *natsGate) sever() (rejoin func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.severed = true
	for _, conn := range g.conns {
		conn.Close()
	}
	g.conns = nil
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.severed = false
	}
}
