package sender

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// progress follows one request. Its hooks run on the transport's goroutines.
type progress struct {
	at     atomic.Int32 // phase
	reused atomic.Pointer[countingConn]
	before int64 // bytes written on the reused connection earlier; set before reused
}

func (p *progress) trace(ctx context.Context) context.Context {
	advance := func(to phase) { p.at.Store(int32(to)) }
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { advance(phaseDNS) },
		ConnectStart:      func(string, string) { advance(phaseConnect) },
		TLSHandshakeStart: func() { advance(phaseTLS) },
		GotConn: func(info httptrace.GotConnInfo) {
			advance(phaseSend)
			if conn := counting(info.Conn); info.Reused && conn != nil {
				p.before = conn.written.Load()
				p.reused.Store(conn)
			}
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				p.at.CompareAndSwap(int32(phaseSend), int32(phaseWait))
			}
		},
		GotFirstResponseByte: func() { advance(phaseRead) },
	})
}

func (p *progress) phase() phase { return phase(p.at.Load()) }

// nothingWritten says that the request met a kept connection on which nothing
// was written since. Over TLS the closing alert counts as written, so the
// answer errs towards an attempt that costs a retry, never towards two posts.
func (p *progress) nothingWritten() bool {
	conn := p.reused.Load()
	return conn != nil && conn.written.Load() == p.before
}

// countingConn knows how many bytes were handed to the system.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(b []byte) (int, error) {
	// Counted before, so that a concurrent reader never sees too few.
	c.written.Add(int64(len(b)))
	n, err := c.Conn.Write(b)
	if n == 0 && err != nil {
		c.written.Add(-int64(len(b)))
	}
	return n, err
}

func counting(conn net.Conn) *countingConn {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	counted, _ := conn.(*countingConn)
	return counted
}
