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

// TestFleet_APublisherTakesOverHoweverLongThatTakes has an outbox that sends what the
// publisher reads at first so slowly that it takes several times the source's
// wal_sender_timeout. The publisher must keep the slot meanwhile, and then deliver.
func TestFleet_APublisherTakesOverHoweverLongThatTakes(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second // the publisher reports every second
	arrived := make(chan receiver.Delivery, 100)
	server, err := receiver.Start(receiver.Options{OnDelivery: func(d receiver.Delivery) { arrived <- d }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newShop(t, 8, server.URL)
	s.db.Exec(t, "ALTER DATABASE "+s.db.Name+" SET wal_sender_timeout = '6s'")
	s.outbox.Exec(t, `
		INSERT INTO walhook.endpoint (account, webhook, url, state, secret)
		SELECT 'other' || n, 'account', 'https://receiver.example.com/' || repeat('x', 80) || n, 'active', 'whsec_eA==' FROM generate_series(1, 20000) n`)
	outbox, source := s.outbox.Connect(t), s.db.Connect(t)
	epoch := func() (n int64) {
		if err := outbox.QueryRow(t.Context(), "SELECT epoch FROM walhook.epoch").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := epoch()
	publisher := newActor(t, "publisher")
	publisher.args = append(publisher.args, "--role", "publisher", "--source", s.db.URL, "--outbox", publisher.link(t, s.outbox.URL), "--slot", s.slot, "--catalog", s.catalog)
	publisher.links[0].Set(chaos.Weather{Bandwidth: 300_000})
	sender := s.sender(t, "sender", "--outbox", s.outbox.URL)
	startAll(t, publisher, sender)
	eventually(t, patience, func() bool { return epoch() > before })
	began := time.Now()
	// What is committed meanwhile waits in the connection.
	if _, err := source.Exec(t.Context(), "INSERT INTO item (id, account) SELECT n, n % 8 + 1 FROM generate_series(1, 50) n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func() bool { return publisher.said(t, `"replication started"`) > 0 })
	if took := time.Since(began); took < 2*timeout {
		t.Errorf("the take-over took %s, which proves nothing", took)
	}
	if publisher.said(t, `"reading the outbox"`) == 0 {
		t.Error("the log does not show that a take-over takes long")
	}
	publisher.links[0].Set(chaos.Weather{})
	late := time.After(patience)
	for got := map[string]bool{}; len(got) < 50; {
		select {
		case d := <-arrived:
			got[d.Record] = true
		case <-late:
			t.Fatalf("%d of 50 events arrived", len(got))
		}
	}
	// A connection that ended during the take-over is noticed only after it.
	if n := epoch() - before; n != 1 {
		t.Errorf("took over %d times, want once", n)
	}
	for _, a := range []*actor{publisher, sender} {
		a.stop(t)
	}
}
