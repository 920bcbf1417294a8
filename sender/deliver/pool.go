package deliver

import (
	"encoding/hex"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// idleTimeout is how long a connection is kept that nobody uses.
const idleTimeout = 60 * time.Second

// connKey is whose connection it is: no two endpoints share one, so that nothing
// a receiver says on it can be taken for an answer to another account.
type connKey struct {
	endpoint int64
	to       string // scheme, host and port
}

// peer is whom a call connects to.
type peer struct {
	key     connKey
	secure  bool   // TLS is spoken
	address string // host and port to dial
	// host stands for endpoint and address in URLs that an [http.RoundTripper] sees:
	// net/http keeps its connections by them.
	host string
}

func newPeer(endpoint int64, scheme, address string) *peer {
	return &peer{
		key:    connKey{endpoint, scheme + "://" + address},
		secure: scheme == "https", address: address,
		host: strconv.FormatInt(endpoint, 10) + "-" + hex.EncodeToString([]byte(address)) + ":443",
	}
}

// peerOf is the peer that a request's URL names. One that newPeer did not make
// the host of is nobody's endpoint.
func peerOf(u *url.URL) *peer {
	address := net.JoinHostPort(u.Hostname(), portOf(u))
	if coded := addressOf(address); coded != address {
		number, _, _ := strings.Cut(address, "-")
		if endpoint, err := strconv.ParseInt(number, 10, 64); err == nil {
			return newPeer(endpoint, u.Scheme, coded)
		}
	}
	return newPeer(0, u.Scheme, address)
}

// addressOf is the address that a host of newPeer stands for. Any other host
// stands for itself.
func addressOf(host string) string {
	_, coded, _ := strings.Cut(strings.TrimSuffix(host, ":443"), "-")
	address, err := hex.DecodeString(coded)
	if err != nil {
		return host
	}
	if _, _, err := net.SplitHostPort(string(address)); err != nil {
		return host
	}
	return string(address)
}

// portOf is a URL's port, its own or its scheme's.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// connPool keeps the connections between attempts. It is safe for many goroutines.
type connPool struct {
	most int // kept in all

	mu     sync.Mutex
	idle   map[connKey][]*conn // the last one put is last; guarded by mu
	count  int                 // of idle; guarded by mu
	sweep  *time.Timer         // set while any is idle; guarded by mu
	closed bool                // guarded by mu
}

func newConnPool(most int) *connPool { return &connPool{most: most, idle: map[connKey][]*conn{}} }

// take answers the connection that was used last, which is the likeliest to be
// open still; nil for none.
func (p *connPool) take(to connKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[to]
	if len(kept) == 0 {
		return nil
	}
	l := kept[len(kept)-1]
	kept[len(kept)-1] = nil
	p.idle[to] = kept[:len(kept)-1]
	p.count--
	return l
}

// put keeps a connection, or closes it where there are too many.
func (p *connPool) put(l *conn, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.count >= p.most {
		l.close()
		return
	}
	l.kept = now
	p.idle[l.to] = append(p.idle[l.to], l)
	if p.count++; p.sweep == nil {
		p.sweep = time.AfterFunc(idleTimeout, p.closeOld)
	}
}

// closeOld closes what has not been used for long.
func (p *connPool) closeOld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for to, kept := range p.idle {
		old := 0
		for old < len(kept) && now.Sub(kept[old].kept) >= idleTimeout {
			kept[old].close()
			old++
		}
		p.count -= old
		if kept = append(kept[:0], kept[old:]...); len(kept) == 0 {
			delete(p.idle, to)
		} else {
			clear(kept[len(kept):cap(kept)])
			p.idle[to] = kept
		}
	}
	if p.sweep = nil; p.count > 0 && !p.closed {
		p.sweep = time.AfterFunc(idleTimeout/4, p.closeOld)
	}
}

// close closes the kept ones, and from now on those that are put.
func (p *connPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	for _, kept := range p.idle {
		for _, l := range kept {
			l.close()
		}
	}
	clear(p.idle)
	p.count = 0
}
