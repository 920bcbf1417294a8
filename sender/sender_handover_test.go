package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// An owner that died had settled events beyond the tails that it had stored. Its
// successor finds that in attempts, however a lane comes to read the log: here
// one of a feed that was once cleared, with a record in retry and no lane row.
func TestSender_WhatAnEarlierOwnerSettledIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*outbox.Endpoint){
		"a feed from the start":    func(*outbox.Endpoint) {},
		"a feed that began anew":   func(e *outbox.Endpoint) { e.FeedFrom = 2 },
		"a feed cut by retention":  func(e *outbox.Endpoint) { e.ExpireBefore = 2 },
		"strict":                   func(e *outbox.Endpoint) { e.Ordering = outbox.OrderingStrict },
		"no order, and a new feed": func(e *outbox.Endpoint) { e.Ordering, e.FeedFrom = outbox.OrderingNone, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := active(1)
				edit(&e)
				log := newFakeLog(e)
				log.append(apart(events(1, 1, 40, 40))...)
				var settlements []outbox.Settlement
				for id := int64(1); id <= 20; id++ {
					one := outbox.Settlement{Event: log.View().Events[id-1], Disposition: outbox.Delivered,
						Attempt: &outbox.Attempt{Number: 1, Revision: 1, Outcome: string(deliver.Delivered)}}
					if id == 10 {
						one.Disposition, one.RetryAt, one.Attempt.Outcome = outbox.Retry, time.Now(), string(deliver.Retry)
					}
					settlements = append(settlements, one)
				}
				if err := log.settled(t.Context(), settlements...); err != nil {
					t.Fatal(err)
				}
				r := startSender(t, Config{}, log, always(ok, 10*time.Millisecond))
				after(10 * time.Second)
				log.append(apart(events(1, 41, 20, 20))...)
				after(10 * time.Second)
				r.end()
				sent := map[int64]int{}
				for _, a := range r.of(1) {
					sent[a.event.ID]++
				}
				for id := int64(1); id <= 60; id++ {
					want := 1
					if id <= 20 && id != 10 {
						want = 0
					}
					if sent[id] != want {
						t.Errorf("event %d was sent %d times, want %d", id, sent[id], want)
					}
				}
			})
		})
	}
}
