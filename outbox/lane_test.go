package outbox

import (
	"testing"
)

// The whole input space: what is said first in the list wins.
func TestLaneStatus_IsTheFirstFactThatHoldsTheLaneBack(t *testing.T) {
	t.Parallel()
	bools := []bool{false, true}
	counts := map[LaneStatus]int{}
	for _, state := range []EndpointState{EndpointActive, EndpointCleared, EndpointUnusable, EndpointDisabled} {
		for bits := range 32 {
			f := LaneFacts{
				Endpoint: state, Current: bools[bits&1], Open: bools[bits>>1&1], Waits: bools[bits>>2&1],
				Paused: bools[bits>>3&1], Behind: bools[bits>>4&1],
			}
			var hold []LaneStatus
			if state != EndpointActive {
				hold = append(hold, LaneHeld)
			}
			if f.Current { // an older revision's breaker and pause do not bind
				if f.Open {
					hold = append(hold, map[bool]LaneStatus{true: LaneOpen, false: LaneHalfOpen}[f.Waits])
				}
				if f.Paused {
					hold = append(hold, LanePaused)
				}
			}
			if f.Behind {
				hold = append(hold, LaneBehind)
			}
			want := append(hold, LaneLive)[0]
			if got := f.Status(); got != want {
				t.Errorf("%+v is %s, want %s", f, got, want)
			}
			counts[f.Status()]++
		}
	}
	want := map[LaneStatus]int{LaneHeld: 96, LaneOpen: 4, LaneHalfOpen: 4, LanePaused: 4, LaneBehind: 10, LaneLive: 10}
	for _, status := range LaneStatuses() {
		if counts[status] != want[status] {
			t.Errorf("%d of the 128 are %s, want %d", counts[status], status, want[status])
		}
	}
}
