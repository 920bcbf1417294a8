package sender

import (
	"time"

	"go.uber.org/zap"

	"walhook/outbox"
)

// condition is what operators see of a lane, to be compared with the one before.
type condition struct {
	closed bool      // the breaker
	until  time.Time // the end of its open time
	state  outbox.EndpointState
	warned int
	held   string
}

func conditionOf(l *lane) condition {
	return condition{l.health.breaker.closed(), l.health.breaker.until, l.endpoint.State, l.health.warned, l.health.heldReason}
}

// noteCondition counts and logs how a result has changed the condition of a lane.
func (d *dispatcher) noteCondition(l *lane, before condition, detail string, now time.Time) {
	after := conditionOf(l)
	switch {
	case before.closed && !after.closed, !before.closed && after.until.After(before.until):
		d.sender.metrics.breaker.WithLabelValues(breakerOpen).Inc()
	case !before.closed && after.closed:
		d.sender.metrics.breaker.WithLabelValues(breakerClosed).Inc()
	}
	if before.held == "" && after.held != "" {
		d.log.Warn("endpoint held by a local error, retrying",
			zap.Int64("endpoint", l.endpoint.ID), zap.String("reason", after.held), zap.String("detail", detail))
	}
	if after.warned > before.warned {
		d.log.Warn("endpoint failing continuously", zap.Int64("endpoint", l.endpoint.ID), zap.Int("stage", after.warned), zap.String("reason", l.health.lastReason),
			zap.Time("since", l.health.failingSince), zap.Duration("disabled_in", l.health.failingSince.Add(l.disableAfter).Sub(now)))
	}
	if after.state != before.state {
		d.log.Warn("endpoint disabled", zap.Int64("endpoint", l.endpoint.ID), zap.String("reason", l.endpoint.Reason))
	}
}
