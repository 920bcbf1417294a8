package deliver

import (
	"context"
	"errors"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// phase is how far an attempt came.
type phase int32

// The phases, in order. A connection that was kept alive starts at phaseSend.
const (
	phaseStart phase = iota
	phaseDNS
	phaseConnect
	phaseTLS
	phaseSend
	phaseWait // the request is written
	phaseRead // the first byte of an answer is here
)

func (p phase) String() string {
	return [...]string{"before connecting", "name resolution", "connecting", "TLS handshake", "sending", "awaiting the answer", "reading the answer"}[p]
}

// progress follows one request. The hooks of its trace run on other goroutines.
type progress struct {
	until time.Time    // the limit of the whole; zero for none
	at    atomic.Int32 // phase
	http2 atomic.Bool
	hooks *httptrace.ClientTrace // of the request that it follows; nil for none

	mu    sync.Mutex
	tried []error // addresses of the name that no connection came about to; guarded by mu
}

// trace follows the making of a connection, and a request that net/http makes.
func (p *progress) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, p.clientTrace())
}

func (p *progress) clientTrace() *httptrace.ClientTrace {
	advance := func(to phase) { p.at.Store(int32(to)) }
	return &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { advance(phaseDNS) },
		ConnectStart: func(string, string) { advance(phaseConnect) },
		ConnectDone: func(_, _ string, err error) {
			if err != nil {
				p.mu.Lock()
				defer p.mu.Unlock()
				if len(p.tried) < mostTried {
					p.tried = append(p.tried, err)
				}
			}
		},
		TLSHandshakeStart: func() { advance(phaseTLS) },
		GotConn: func(info httptrace.GotConnInfo) {
			advance(phaseSend)
			if _, ok := info.Conn.(*frames); ok {
				p.http2.Store(true)
			}
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				p.at.CompareAndSwap(int32(phaseSend), int32(phaseWait))
			}
		},
		GotFirstResponseByte: func() { advance(phaseRead) },
	}
}

// gotConn notes a connection of our own.
func (p *progress) gotConn(c *conn) {
	p.at.Store(int32(phaseSend))
	if p.hooks != nil && p.hooks.GotConn != nil {
		p.hooks.GotConn(httptrace.GotConnInfo{Conn: c.net, Reused: !c.kept.IsZero(), WasIdle: !c.kept.IsZero()})
	}
}

// wroteRequest notes that the request is written; false when an answer was first.
func (p *progress) wroteRequest() bool {
	if !p.at.CompareAndSwap(int32(phaseSend), int32(phaseWait)) {
		return false
	}
	if p.hooks != nil && p.hooks.WroteRequest != nil {
		p.hooks.WroteRequest(httptrace.WroteRequestInfo{})
	}
	return true
}

// gotBytes notes that something of an answer is here.
func (p *progress) gotBytes() {
	if p.hooks == nil {
		p.at.Store(int32(phaseRead))
	} else if p.at.Swap(int32(phaseRead)) != int32(phaseRead) && p.hooks.GotFirstResponseByte != nil {
		p.hooks.GotFirstResponseByte()
	}
}

// mostTried bounds how many addresses of a name are told of.
const mostTried = 8

// decisive is the error that says most of why no connection came about: what an
// address that was tried answered says more than that another is blocked, or that
// this machine has no way there. err is the first one's, which is all that net says.
func (p *progress) decisive(err error) error {
	rank := func(err error) int {
		if _, blocked := errors.AsType[*BlockedAddressError](err); blocked {
			return 1
		}
		if classifySyscall(err, phaseConnect).own() {
			return 0
		}
		return 2
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.tried {
		if p.phase() <= phaseConnect && rank(other) > rank(err) && !errors.Is(other, context.Canceled) {
			err = other
		}
	}
	return err
}

// others tells of the addresses that an error is not about.
func (p *progress) others(err error) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	for _, other := range p.tried {
		if p.phase() <= phaseConnect && !strings.Contains(err.Error(), other.Error()) {
			text.WriteString("; " + other.Error())
		}
	}
	return text.String()
}

func (p *progress) phase() phase { return phase(p.at.Load()) }
