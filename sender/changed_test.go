package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/outbox"
)

func TestSender_EndpointsThatOnlyChangedCostNoLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const idle = 10_000
		log := newFakeLog()
		r := startSender(t, Config{}, log, always(ok, 0))
		after(time.Second)
		for id := int64(1); id <= idle; id++ {
			log.set(active(id))
		}
		after(saveEvery) // lanes are counted at each save, before those that rest are let go of
		if n := value(t, r.metrics.lanes.WithLabelValues(string(outbox.LaneLive))); n != 0 {
			t.Errorf("%g lanes for %d endpoints that only changed", n, idle)
		}
		log.append(events(7, 1, 1, 1)...)
		after(saveEvery)
		if n := value(t, r.metrics.lanes.WithLabelValues(string(outbox.LaneLive))); n != 1 {
			t.Errorf("%g lanes for one endpoint with an event and %d that only changed", n, idle-1)
		}
		r.end()
		wantOnce(t, log, 1)
	})
}

// The tailer reads the endpoint, then it changes, and the change is noticed before
// the tailer's batch is taken.
func TestDispatcher_ABatchReadBeforeAChangeDoesNotSendToTheOldURL(t *testing.T) {
	s := quietSender(t)
	d := newDispatcher(s, newLease(time.Now().Add(time.Hour)))
	now := time.Now()
	of := outbox.ShardOf(1)
	d.shards[of] = &shard{id: of}
	newer := active(1)
	newer.Revision, newer.URL = 2, "http://new"
	d.takeChanged([]outbox.EndpointRevision{{ID: 1, Revision: 2}}, now)
	d.takeBatch(tailBatch{shards: []int{of}, upto: 1, events: events(1, 1, 1, 1), endpoints: []outbox.Endpoint{active(1)}}, now)
	l := d.laneOf(1)
	if l == nil || l.startable(now) || d.readQueue.len() != 1 {
		t.Fatalf("lane %+v, %d readQueue; want one that waits for its endpoint", l, d.readQueue.len())
	}
	ask := d.readQueue.pop()
	ask.found = []outbox.Endpoint{newer}
	d.reading++
	d.takeAnswer(ask, now)
	if j, ok := l.start(now); !ok || j.endpoint.URL != "http://new" {
		t.Errorf("job %+v, %v", j.endpoint, ok)
	}
}

func quietSender(t *testing.T) *Sender {
	t.Helper()
	s, err := New(Config{}, newFakeLog(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
