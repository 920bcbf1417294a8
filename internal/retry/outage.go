package retry

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// remindEvery is how often an outage that lasts is logged again.
const remindEvery = time.Minute

// Outage is a present fault of one thing, as the log shows it: when it begins,
// every minute while it lasts, and when it is over, whichever callers meet it.
type Outage struct {
	what   string
	logged atomic.Bool // that it began, and not yet that it is over

	mu       sync.Mutex
	failing  int // callers whose last call failed
	calls    int // that failed
	since    time.Time
	reminded time.Time
}

// NewOutage is for outages of what, such as "outbox".
func NewOutage(what string) *Outage { return &Outage{what: what} }

// Caller is one loop that calls the thing. Not for several goroutines.
func (o *Outage) Caller() Caller { return Caller{outage: o} }

// Caller is a loop's part in an [Outage].
type Caller struct {
	outage *Outage
	failed bool // its last call
}

// Failed takes note of a call without an answer, which is tried again.
func (c *Caller) Failed(log *zap.Logger, call string, retryIn time.Duration, err error) {
	o := c.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !c.failed {
		c.failed = true
		if o.failing++; o.failing == 1 && o.calls == 0 {
			o.since, o.reminded = now, time.Time{}
		}
	}
	o.calls++
	if now.Sub(o.reminded) >= remindEvery {
		o.reminded = now
		o.logged.Store(true)
		log.Warn(o.what+" unavailable, retrying", zap.String("call", call), zap.Int("failed_calls", o.calls),
			zap.Duration("retry_in", retryIn), zap.Error(err))
	}
}

// Answered takes note of an answer. The last caller to get one ends the outage.
func (c *Caller) Answered(log *zap.Logger) { c.end(log, true) }

// Abandoned ends a caller's part in it without an answer. Where it was the last,
// the next call that gets one ends the outage, whoever makes it.
func (c *Caller) Abandoned(log *zap.Logger) { c.end(log, false) }

func (c *Caller) end(log *zap.Logger, answered bool) {
	o := c.outage
	if !c.failed && !o.logged.Load() {
		return // the common case
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.failed {
		c.failed = false
		o.failing--
	}
	if o.failing > 0 {
		return
	}
	if answered && o.logged.CompareAndSwap(true, false) {
		log.Info(o.what+" available again", zap.Int("failed_calls", o.calls), zap.Duration("duration", time.Since(o.since)))
	}
	if !o.logged.Load() {
		o.calls = 0
	}
}
