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

// progress follows one request. The hooks of its trace run on other goroutines.
type progress struct {
	until time.Time    // the limit of the whole attempt
	at    atomic.Int32 // phase
	http2 atomic.Bool
	taken atomic.Bool          // an HTTP/2 connection was taken for the request
	line  *line                // the last one that the request was begun on; nil for none, or HTTP/2
	wire  atomic.Pointer[wire] // of the HTTP/2 connection that it is on
	// Where its HTTP/2 stream is, and which it is; 0 for none yet.
	frames atomic.Pointer[frames]
	stream atomic.Uint32

	mu    sync.Mutex
	tried []error // addresses of the name that no connection came about to; guarded by mu
}

// over ends what the wire allows for an HTTP/2 request, and begins it on another;
// nil for none.
func (p *progress) over(next *wire) {
	if last := p.wire.Swap(next); last != nil {
		last.end()
	}
	if next != nil {
		next.begin()
	}
}

// trace follows the making of a connection, and a request over HTTP/2, which
// begins while may says so.
func (p *progress) trace(ctx context.Context, may func() bool, cancel context.CancelCauseFunc) context.Context {
	advance := func(to phase) { p.at.Store(int32(to)) }
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
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
			if f, ok := info.Conn.(*frames); ok {
				p.http2.Store(true)
				p.stream.Store(0)
				p.frames.Store(f)
				p.over(wireOf(f.Conn))
				switch {
				case p.taken.Swap(true):
					cancel(errNotTaken)
				case may != nil && !may():
					cancel(errLeaseOver)
				}
			}
		},
		WroteHeaders: func() {
			if f := p.frames.Load(); f != nil {
				p.stream.Store(f.last())
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

// status is the final status that was seen before the request failed; 0 for none.
// Over HTTP/2 it is answered once.
func (p *progress) status() int {
	if p.line != nil {
		return p.line.status()
	}
	if f := p.frames.Load(); f != nil {
		return f.take(p.stream.Load())
	}
	return 0
}
