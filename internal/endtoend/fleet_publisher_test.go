package endtoend

import (
	"context"
	"testing"
	"time"

	"walhook/internal/chaos"
	"walhook/internal/receiver"
)

// TestFleet_AStandbyTakesOverFromAPublisherThatIsCutOff takes the outbox away
// from the publisher that holds the slot, without a word: its connections stay
// open and nobody answers. The standby, which the outbox does answer, must get
// the slot.
func TestFleet_AStandbyTakesOverFromAPublisherThatIsCutOff(t *testing.T) {
	t.Parallel()
	server, err := receiver.Start(receiver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newShop(t, 8, server.URL)
	publisher := func(name string) *actor {
		a := newActor(t, name)
		a.args = append(a.args, "--role", "publisher", "--source", s.db.URL, "--outbox", a.link(t, s.outbox.URL), "--slot", s.slot, "--catalog", s.catalog)
		return a
	}
	first, second, sender := publisher("first"), publisher("second"), s.sender(t, "sender", "--outbox", s.outbox.URL)
	startAll(t, first, sender)
	eventually(t, 20*time.Second, func() bool { return first.said(t, `"replication started"`) > 0 })
	startAll(t, second)
	eventually(t, 20*time.Second, func() bool { return second.said(t, "standby") > 0 })

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	busy := make(chan error, 1)
	go func() { busy <- s.counting(t, ctx, 2, 50) }()
	eventually(t, 20*time.Second, func() bool { return server.Count() > 50 })
	stopped := first.said(t, "reading stopped")
	cut := time.Now()
	first.links[0].Set(chaos.Weather{Silent: true})
	var gaveUp, took time.Duration
	eventually(t, time.Minute, func() bool {
		if took = time.Since(cut); gaveUp == 0 && first.said(t, "reading stopped") > stopped {
			gaveUp = took
		}
		return second.said(t, `"replication started"`) > 0
	})
	t.Logf("the publisher gives up %s and the standby reads %s after the cut", gaveUp.Round(10*time.Millisecond), took.Round(10*time.Millisecond))
	// The one is a clock's, the other is work, which takes longer on a busy machine.
	if gaveUp == 0 || gaveUp > 15*time.Second {
		t.Errorf("the publisher gives up %s after the cut, want 12 s for an append without an answer, and a moment", gaveUp)
	}
	if after := took - gaveUp; after > 8*time.Second {
		t.Errorf("the standby reads %s after the publisher gave up", after)
	}
	first.links[0].Set(chaos.Weather{})
	cancel()
	if err := <-busy; err != nil {
		t.Fatal(err)
	}
	var report receiver.Report
	eventually(t, 30*time.Second, func() bool {
		report = receiver.Verify(s.allExpected(), server.Deliveries(), receiver.Terms{})
		return report.Lost == 0
	})
	if !report.OK() || report.Duplicates > 0 {
		t.Errorf("%+v\n%v", report.Counts, report.Faults)
	}
	for _, a := range []*actor{first, second, sender} {
		a.stop(t)
	}
}
