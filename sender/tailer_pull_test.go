package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
)

// Nothing is sent to an endpoint whose receiver reads its feed: its events reach no lane,
// also those that come after the dispatcher has got its endpoint's batch.
func TestTailer_LeavesOutWhatIsPulled(t *testing.T) {
	tail := newTailer(nil, nil, nil, nil)
	first := tailBatch{
		endpoints: []outbox.Endpoint{{ID: 1}, {ID: 2, Pull: true}},
		events:    []outbox.Event{{ID: 10, Endpoint: 1}, {ID: 11, Endpoint: 2}, {ID: 12, Endpoint: 1}},
	}
	tail.leaveOutPulls(&first)
	if len(first.endpoints) != 1 || first.endpoints[0].ID != 1 || len(first.events) != 2 || first.events[1].ID != 12 {
		t.Errorf("the first batch: %+v", first)
	}
	later := tailBatch{events: []outbox.Event{{ID: 20, Endpoint: 2}, {ID: 21, Endpoint: 1}}}
	tail.leaveOutPulls(&later)
	if len(later.events) != 1 || later.events[0].ID != 21 {
		t.Errorf("a later batch: %+v", later)
	}
}

// From the log to the destination: nothing is sent to who pulls, it gets no lane and no
// attempt, and the sender's place moves on.
func TestSender_SendsNothingToWhoPulls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pulls := active(2)
		pulls.Pull, pulls.URL = true, ""
		log := newFakeLog(active(1), pulls)
		r := startSender(t, Config{}, log, always(ok, time.Millisecond))
		log.append(events(2, 1, 10, 3)...)
		log.append(events(1, 11, 10, 3)...)
		after(time.Minute)
		log.append(events(2, 21, 10, 3)...)
		after(time.Minute)
		r.end()
		if n := len(r.of(2)); n > 0 {
			t.Errorf("%d attempts at a webhook that is read by its feed", n)
		}
		wantOnce(t, log, 10)
		v := log.view()
		if _, has := v.lanes[2]; has || len(v.retry) > 0 || len(v.dead) > 0 || len(v.attempts) != 10 {
			t.Errorf("lanes %v, retries %v, dead letters %v, %d events with attempts", v.lanes, v.retry, v.dead, len(v.attempts))
		}
		if tail := v.tails[outbox.ShardOf(2)]; tail < 30 {
			t.Errorf("the tail of its shard stays at %d", tail)
		}
	})
}
