package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// retain is what maintenance marks when a part of the log is past retention.
func (f *fakeLog) retain(id, before int64) {
	f.change(id, func(e *outbox.Endpoint) { e.ExpireBefore = before })
}

// The sender that owns the lane dead-letters events past retention, once none of them is
// in flight; the lane does not change otherwise.
func TestSender_WhatIsPastRetentionIsNeverBothDeadAndSent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		says  deliver.Result
		takes time.Duration
		same  func(fakeView) bool // before and after
	}{
		{"an open breaker", refused, 0, func(v fakeView) bool { return v.lanes[1].Open }},
		{"paused for hours", pauses(36000 * time.Second), 0, func(v fakeView) bool { return !v.lanes[1].PausedUntil.IsZero() }},
		{"disabled", disables, 0, func(v fakeView) bool { return v.endpoints[1].State == outbox.EndpointDisabled }},
		{"failing events", rejects, 0, func(fakeView) bool { return true }},
		{"attempts in flight", ok, 10 * time.Second, func(fakeView) bool { return true }},
	} {
		for _, restarted := range []bool{false, true} {
			name := c.name
			if restarted {
				name += ", by the next owner"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					log := newFakeLog(active(1))
					script := func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) { return c.says, c.takes }
					r := startSender(t, Config{}, log, script)
					log.append(events(1, 1, 50, 50)...)
					after(4 * time.Second)
					if !c.same(log.view()) {
						t.Fatalf("not what the test is about: lane %+v, endpoint %+v", log.view().lanes[1], log.view().endpoints[1])
					}
					if restarted {
						r.end()
						log.retain(1, 41)
						r = startSender(t, Config{}, log, script)
					} else {
						log.retain(1, 41)
					}
					after(20 * time.Second)
					sent, v := log.delivered(), log.view()
					for id := int64(1); id <= 40; id++ {
						if reason, dead := v.dead[id]; dead == (sent[id] > 0) || dead && reason != "retention" {
							t.Errorf("event %d: delivered %d times, dead %t (%s)", id, sent[id], dead, reason)
						}
						if _, left := v.retry[id]; left {
							t.Errorf("event %d is left in retry", id)
						}
					}
					for id := int64(41); id <= 50; id++ {
						if _, dead := v.dead[id]; dead {
							t.Errorf("event %d is younger, and dead", id)
						}
					}
					if lane, stands := v.lanes[1]; stands && lane.Behind && lane.Cursor < 40 || v.tails[1] < 40 {
						t.Errorf("the lane stands at %+v, the tail at %d: the partition cannot go", lane, v.tails[1])
					}
					if !c.same(v) {
						t.Errorf("the lane starts afresh: %+v, endpoint %+v", v.lanes[1], v.endpoints[1])
					}
					attempted := func() (n int) {
						for id := int64(1); id <= 40; id++ {
							n += len(log.view().attempts[id])
						}
						return n
					}
					before := attempted()
					after(24 * time.Hour)
					if n := attempted(); n != before {
						t.Errorf("%d attempts of what is past retention", n-before)
					}
					r.end()
				})
			})
		}
	}
}

// The last warning is stored for display, and for the lane's next owner.
func TestSender_SavesTheStageOfAWarning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) { return refused, 0 })
		log.append(events(1, 1, 50, 50)...)
		after(25 * time.Hour)
		if lane := log.view().lanes[1]; lane.Stage != 1 {
			t.Errorf("after a day of failures the lane is %+v", lane)
		}
		r.end()
	})
}
