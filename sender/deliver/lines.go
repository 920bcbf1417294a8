package deliver

import (
	"sync"
	"time"
)

// idleTimeout is how long a connection is kept that nobody uses.
const idleTimeout = 60 * time.Second

// lineKey is whose connection it is: no two endpoints share one, so that nothing
// a receiver says on it can be taken for an answer to another account.
type lineKey struct {
	endpoint int64
	to       string // scheme, host and port
}

// lines keeps the connections between attempts. It is safe for many goroutines.
type lines struct {
	most int // kept in all

	mu     sync.Mutex
	idle   map[lineKey][]*line // the last one put is last; guarded by mu
	count  int                 // of idle; guarded by mu
	sweep  *time.Timer         // set while any is idle; guarded by mu
	closed bool                // guarded by mu
}

func newLines(most int) *lines { return &lines{most: most, idle: map[lineKey][]*line{}} }

// take answers the connection that was used last, which is the likeliest to be
// open still; nil for none.
func (p *lines) take(to lineKey) *line {
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
func (p *lines) put(l *line, now time.Time) {
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
func (p *lines) closeOld() {
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
func (p *lines) close() {
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
