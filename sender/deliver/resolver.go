package deliver

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// nameServers watches whether this machine reaches its name servers. A failed
// lookup does not tell: net.DNSError keeps no system error. A server that is
// silent looks like a name whose own servers are, and is not told apart.
type nameServers struct {
	unreachable atomic.Bool // by the last exchange that came to anything
}

func (n *nameServers) resolver() *net.Resolver { return &net.Resolver{PreferGo: true, Dial: n.dial} }

func (n *nameServers) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	n.note(err)
	if err != nil {
		return nil, err
	}
	if udp, ok := conn.(*net.UDPConn); ok {
		return &nameServerUDP{UDPConn: udp, of: n}, nil // packets, as the resolver sees by the type
	}
	return &nameServerTCP{Conn: conn, of: n}, nil
}

// note takes the system's word; that time ran out is none.
func (n *nameServers) note(err error) {
	if errno, ok := errors.AsType[syscall.Errno](err); ok && !errno.Timeout() {
		n.unreachable.Store(true)
	}
}

func (n *nameServers) read(read int, err error) (int, error) {
	if err == nil {
		n.unreachable.Store(false)
	}
	n.note(err)
	return read, err
}

type nameServerUDP struct {
	*net.UDPConn
	of *nameServers
}

func (c *nameServerUDP) Read(b []byte) (int, error) { return c.of.read(c.UDPConn.Read(b)) }

type nameServerTCP struct {
	net.Conn
	of *nameServers
}

func (c *nameServerTCP) Read(b []byte) (int, error) { return c.of.read(c.Conn.Read(b)) }
