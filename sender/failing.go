package sender

import (
	"time"

	"walhook/sender/deliver"
)

// An endpoint that only fails is disabled after policy.disableAfter, and people
// are warned on the way: stage 1, 2 and 3 after these parts of it. By default
// that is a day, three days and four.
var warnAfter = [...]float64{1. / 5, 3. / 5, 4. / 5}

// stage says how far the endpoint is on its way to being disabled; 0 for no
// warning.
func (l *lane) stage(now time.Time) int {
	if l.failingSince.IsZero() {
		return 0
	}
	stage := 0
	for _, part := range warnAfter {
		if now.Sub(l.failingSince) >= time.Duration(part*float64(l.disableAfter)) {
			stage++
		}
	}
	return stage
}

// failedNow notes a failure. One that follows nothing for longer than any
// retry or pause waits begins anew: an endpoint is not disabled for two
// failures with a quiet week between.
func (l *lane) failedNow(now time.Time) {
	if l.failingSince.IsZero() || now.Sub(l.failedAt) > max(l.disableAfter*2/5, deliver.MaxRetryAfter*3/2) {
		l.failingSince, l.warned = now, 0
	}
	l.failedAt = now
	l.warned = max(l.warned, l.stage(now))
}
