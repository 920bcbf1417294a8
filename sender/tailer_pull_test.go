package sender

import (
	"testing"

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
