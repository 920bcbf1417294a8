package sender

import (
	"context"
	"errors"
	"time"
)

// errShutdown is the cause that running attempts are ended with.
var errShutdown = errors.New("attempt: sender stops")

const (
	drainGrace = 5 * time.Second  // for running attempts, beyond their own limit
	stopGrace  = 10 * time.Second // for settling and saving after that
)

// stopLimits bounds a stop: running attempts are ended first, then the rest is
// left undone.
type stopLimits struct {
	attempts, all *time.Timer
	attempted     bool
}

func (s *stopLimits) begin(attempt time.Duration, abort context.CancelCauseFunc) {
	s.attempts = time.AfterFunc(attempt+drainGrace, func() { abort(errShutdown) })
	s.all = time.NewTimer(attempt + drainGrace + stopGrace)
}

// done notes that no attempt runs any more: what is left has the time that it
// would have had after the longest one.
func (s *stopLimits) done() {
	if s.all != nil && !s.attempted {
		s.attempted = true
		s.all.Reset(stopGrace)
	}
}

func (s *stopLimits) over() <-chan time.Time {
	if s.all == nil {
		return nil
	}
	return s.all.C
}

func (s *stopLimits) end() {
	if s.all != nil {
		s.attempts.Stop()
		s.all.Stop()
	}
}
