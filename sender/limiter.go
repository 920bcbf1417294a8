package sender

import (
	"runtime"
	"time"
)

const (
	// fastWindow is how long an attempt counts as one that keeps this machine busy.
	// A receiver at hand has answered by then; what is older waits for somebody
	// far away, or slow, and costs nothing meanwhile.
	fastWindow = 10 * time.Millisecond

	// maxFastPerCPU is how many such attempts a processor has to choose from. More
	// of them make none faster: they only wait for one another, here and at the
	// receiver, on colder and colder connections.
	maxFastPerCPU = 32
)

// attemptLimiter bounds the attempts that are younger than fastWindow. Those that
// hang are not among them for long, so that they hold up nobody; and receivers that
// are far away may have as many in flight as MaxInFlight says, some thousands begun
// a second. The dispatcher's goroutine owns it.
type attemptLimiter struct {
	limit  int
	fast   int // begun, not ended, and younger than fastWindow when last looked at
	begun  int64
	starts fifo[start] // the last of them is number begun
}

type start struct {
	at    time.Time
	ended bool
}

func newAttemptLimiter() *attemptLimiter {
	return &attemptLimiter{limit: maxFastPerCPU * max(runtime.GOMAXPROCS(0), 2)}
}

// begin counts an attempt, and numbers it for end.
func (p *attemptLimiter) begin(now time.Time) int64 {
	p.begun++
	p.fast++
	p.starts.push(start{at: now})
	return p.begun
}

func (p *attemptLimiter) end(number int64) {
	first := p.begun - int64(p.starts.len()) + 1
	if number < first {
		return // not fast any more
	}
	p.starts.at(int(number - first)).ended = true
	p.fast--
}

// full says that no attempt may begin now, after letting go of those that are
// not fast any more.
func (p *attemptLimiter) full(now time.Time) bool {
	for p.starts.len() > 0 {
		oldest := p.starts.at(0)
		if !oldest.ended && now.Sub(oldest.at) < fastWindow {
			break
		}
		if !oldest.ended {
			p.fast--
		}
		p.starts.pop()
	}
	return p.fast >= p.limit
}

// next is when the oldest is not fast any more. It is asked when full.
func (p *attemptLimiter) next() time.Time { return p.starts.at(0).at.Add(fastWindow) }
