package sender

import (
	"errors"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Whoever met an outage last may give up without an answer, as a session that
// has lost its lease does.
func TestOutage_IsOverWithTheNextAnswerWhoeverGetsIt(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	log := zap.New(core)
	var o outage
	o.over(log, false, true)
	o.failed(log, "tail", true, errors.New("refused"))
	o.failed(log, "settle", true, errors.New("refused"))
	o.over(log, true, true) // the other is still failing
	o.over(log, true, false)
	if n := logs.FilterMessage("outbox answers again").Len(); n != 0 {
		t.Errorf("told %d times before it was over", n)
	}
	for range 3 {
		o.over(log, false, true)
	}
	o.failed(log, "tail", true, errors.New("refused"))
	o.over(log, true, true)
	again := logs.FilterMessage("outbox answers again").All()
	if len(again) != 2 || logs.FilterMessage("outbox does not answer").Len() != 2 {
		t.Errorf("told %d times that it was over, want 2", len(again))
	} else if calls := again[0].ContextMap()["failed_calls"]; calls != int64(2) {
		t.Errorf("%v calls failed, want 2", calls)
	}
}
