package main

import "testing"

func TestCollector_LetsAHeapGrowByTheSameWithinBounds(t *testing.T) {
	for live, want := range map[uint64]int{
		0: mostPercent, 1 << 20: mostPercent, 20 << 20: 200, 40 << 20: 100, 500 << 20: leastPercent, 1 << 40: leastPercent,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d live bytes: %d %%, want %d %%", live, got, want)
		}
	}
}
