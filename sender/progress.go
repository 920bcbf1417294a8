package sender

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync/atomic"
)

// progress follows one request. Its hooks run on the transport's goroutines.
type progress struct {
	at     atomic.Int32 // phase
	wire   atomic.Pointer[wire]
	http2  atomic.Bool
	reused bool  // set before wire
	before int64 // bytes written on the wire earlier; set before wire
}

func (p *progress) trace(ctx context.Context, may func() bool, cancel context.CancelCauseFunc) context.Context {
	advance := func(to phase) { p.at.Store(int32(to)) }
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { advance(phaseDNS) },
		ConnectStart:      func(string, string) { advance(phaseConnect) },
		TLSHandshakeStart: func() { advance(phaseTLS) },
		GotConn: func(info httptrace.GotConnInfo) {
			advance(phaseSend)
			switch conn := info.Conn.(type) {
			case *wire:
				conn.begin()
				p.reused, p.before = info.Reused, conn.written.Load()
				p.wire.Store(conn)
			case *tls.Conn:
				p.http2.Store(true)
				if may != nil && !may() {
					cancel(errLeaseOver)
				}
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

// status is what the status line said before the request failed; 0 for nothing.
func (p *progress) status() int {
	if w := p.wire.Load(); w != nil {
		return w.status()
	}
	return 0
}

// nothingWritten says that the request met a kept connection on which nothing
// was written since.
func (p *progress) nothingWritten() bool {
	w := p.wire.Load()
	return w != nil && p.reused && w.written.Load() == p.before
}
