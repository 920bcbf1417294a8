package cdc

import (
	"time"

	"go.uber.org/zap"
)

const (
	// remindEvery is how often a fault that lasts is logged again.
	remindEvery = time.Minute
	// atFirst bounds the lines before that: a fault may change its face while
	// a server goes down and comes up.
	atFirst = 3
)

// trouble is the reader's present fault, as the log tells of it: when it
// begins, when it changes, and every minute while it lasts. The zero value is
// none.
type trouble struct {
	since time.Time // of the first attempt that failed; zero for none
	told  time.Time
	text  string // of the last one told
	lines int
	tries int
}

func (t *trouble) tell(log *zap.Logger, err error, retryIn time.Duration) {
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	t.tries++
	if changed := err.Error() != t.text && t.lines < atFirst; !changed && now.Sub(t.told) < remindEvery {
		log.Debug("reading stopped again", zap.Int("tries", t.tries), zap.Duration("retry_in", retryIn), zap.Error(err))
		return
	}
	t.told, t.text, t.lines = now, err.Error(), t.lines+1
	log.Warn("reading stopped, trying again from the stored position", zap.Int("tries", t.tries),
		zap.Duration("duration", now.Sub(t.since)), zap.Duration("retry_in", retryIn), zap.Error(err))
}

func (t *trouble) end() { *t = trouble{} }
