package retry

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Outage is the present outage of one thing, as the logs show it: when it begins,
// every minute while it lasts, and when it is over, whichever callers meet it.
type Outage struct {
	what   string
	logged atomic.Bool // that it began, and not yet that it is over

	mu       sync.Mutex
	failing  int // callers whose last call failed
	calls    int // that failed
	since    time.Time
	reminder Reminder
}

// NewOutage is for outages of what, such as "outbox".
func NewOutage(what string) *Outage { return &Outage{what: what} }

// Caller is for one loop that calls the thing. One goroutine may use it.
func (o *Outage) Caller() Caller { return Caller{outage: o} }

// Caller is a loop's part in an [Outage].
type Caller struct {
	outage *Outage
	failed bool // its last call
}

// Failed notes a call that got no answer and is retried.
func (c *Caller) Failed(log *zap.Logger, call string, retryIn time.Duration, err error) {
	o := c.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	if !c.failed {
		c.failed = true
		if o.failing++; o.failing == 1 && o.calls == 0 {
			o.since = time.Now()
			o.reminder.Reset()
		}
	}
	o.calls++
	if o.reminder.Due("") {
		o.reminder.Logged("")
		o.logged.Store(true)
		log.Warn(o.what+" unavailable, retrying", zap.String("call", call), zap.Int("failed_calls", o.calls),
			zap.Duration("retry_in", retryIn), zap.Error(err))
	}
}

// Answered notes an answer. The last failing caller that gets one ends the outage.
func (c *Caller) Answered(log *zap.Logger) { c.end(log, true) }

// Abandoned ends a caller's part in the outage without an answer. Where it was the
// last failing caller, the next answer to any caller ends the outage.
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
