package httpd

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/retry"
)

// Bounds are how many connections a listener holds at once.
type Bounds struct {
	Total      int
	PerAddress int // a network of IPv6 (/64) counts as one address
}

const (
	leastTotal, mostTotal = 16, 8192
	leastPerAddress       = 8
)

// BoundsFor returns the bounds for a limit of open descriptors: a quarter of them, so that
// the process itself has the rest. 0 stands for no limit.
func BoundsFor(descriptors uint64) Bounds {
	total := mostTotal
	if descriptors > 0 {
		total = int(min(max(descriptors/4, leastTotal), mostTotal))
	}
	return Bounds{Total: total, PerAddress: max(total/4, leastPerAddress)}
}

// The reasons for refusing a connection.
const (
	refusedTotal   = "total"
	refusedAddress = "address"
)

// connections are the metrics of all listeners of a process.
type connections struct {
	open    *prometheus.GaugeVec
	refused *prometheus.CounterVec
}

func newConnections(registry prometheus.Registerer) connections {
	c := connections{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walhook_connections",
			Help: "Open connections, by the setting that names the listener.",
		}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_connections_refused_total",
			Help: "Connections that were closed at once because there were too many in all (total) or from one address (address).",
		}, []string{"listener", "reason"}),
	}
	if registry != nil {
		registry.MustRegister(c.open, c.refused)
	}
	return c
}

// limited is a listener with bounded connections.
type limited struct {
	net.Listener
	bounds  Bounds
	trusted []netip.Prefix // proxies: many clients are one address there
	plain   bool           // no TLS: a client understands a plain HTTP answer
	log     *zap.Logger
	open    prometheus.Gauge
	refused func(reason string) prometheus.Counter

	mu       sync.Mutex // guards what follows
	total    int
	by       map[netip.Addr]int
	reminder retry.Reminder // of logging that connections are refused
}

// busyBody has the form of the API's errors, which its clients expect.
const busyBody = `{"error":"503","message":"too many connections at the moment: try again later","status":"error","request_id":""}`

// busyAnswer is the answer to a connection beyond the bounds.
var busyAnswer = fmt.Sprintf("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(busyBody), busyBody)

// Accept waits for the next connection that is within the bounds.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := addressOf(conn.RemoteAddr())
		reason := l.enter(from)
		if reason == "" {
			return &held{Conn: conn, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		l.refused(reason).Inc()
		l.tell(from, reason)
		if l.plain {
			// The answer fits into the socket's buffer, so this does not block.
			_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = conn.Write([]byte(busyAnswer)) // the client may not get it
		}
		_ = conn.Close() // the connection is not used
	}
}

func (l *limited) enter(from netip.Addr) (refused string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.total >= l.bounds.Total:
		return refusedTotal
	case l.by[from] >= l.bounds.PerAddress && !l.isTrusted(from):
		return refusedAddress
	}
	l.total++
	l.by[from]++
	l.open.Inc()
	return ""
}

func (l *limited) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.by[from]--; l.by[from] == 0 {
		delete(l.by, from)
	}
	l.open.Dec()
}

func (l *limited) isTrusted(from netip.Addr) bool {
	return slices.ContainsFunc(l.trusted, func(p netip.Prefix) bool { return p.Contains(from) })
}

func (l *limited) tell(from netip.Addr, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.reminder.Due("") {
		return
	}
	l.reminder.Logged("")
	advice := "name a proxy with many clients in --trusted-proxies"
	if reason == refusedTotal {
		advice = "raise the limit of open descriptors (ulimit -n, LimitNOFILE), or put a proxy in front"
	}
	l.log.Warn("too many connections, closing the newest", zap.String("reason", reason), zap.Stringer("from", from),
		zap.Int("total", l.bounds.Total), zap.Int("per_address", l.bounds.PerAddress), zap.String("advice", advice))
}

// held is an accepted connection, which counts until it is closed.
type held struct {
	net.Conn
	leave func()
}

func (c *held) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// addressOf returns the address to which a connection counts.
func addressOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return Network(tcp.AddrPort().Addr())
}

// Network returns the address itself, or for IPv6 its /64 network, since a host may have
// any number of addresses there.
func Network(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() && !a.IsLoopback() {
		a = netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

func (b Bounds) String() string {
	return fmt.Sprintf("%d connections, %d per address", b.Total, b.PerAddress)
}
