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
	address     string
	mu          sync.Mutex
	forth, back chan struct{} // closed while it passes to the server, and to the client
	severed     bool
	conns       []net.Conn
}

func newNATSGate(t *testing.T, to int) *natsGate {
	t.Helper()
	g := &natsGate{forth: make(chan struct{}), back: make(chan struct{})}
	close(g.forth)
	close(g.back)
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
			go g.pass(ctx, client, server, &g.forth)
			go g.pass(ctx, server, client, &g.back)
		}
	}()
	return g
}

func (g *natsGate) pass(ctx context.Context, from, to net.Conn, way *chan struct{}) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	opens := func() bool {
		g.mu.Lock()
		open := *way
		g.mu.Unlock()
		select {
		case <-open:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for opens() {
		n, err := from.Read(buf)
		if !opens() { // it may have been closed while nothing came
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

func (g *natsGate) shut() (reopen func()) { return g.close(&g.forth, &g.back) }

// shutBack holds back what the server says, and passes on what it is told.
func (g *natsGate) shutBack() (reopen func()) { return g.close(&g.back) }

func (g *natsGate) close(ways ...*chan struct{}) (reopen func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, way := range ways {
		*way = make(chan struct{})
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, way := range ways {
			close(*way)
		}
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
