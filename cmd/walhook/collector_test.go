package main

import (
	"runtime/debug"
	"testing"
)

func TestCollector_LetsAHeapGrowByTheSameWithinBounds(t *testing.T) {
	for live, want := range map[uint64]int{
		0: mostPercent, 1 << 20: mostPercent, 20 << 20: 200, 40 << 20: 100, 500 << 20: leastPercent, 1 << 40: leastPercent,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d live bytes: %d %%, want %d %%", live, got, want)
		}
	}
}

func TestCollector_ReleasesMemoryAfterABusyTime(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var memory memoryWatch
	memory.read()
	busy := make([][]byte, 100)
	for i := range busy {
		busy[i] = make([]byte, 1<<20)
		for at := 0; at < len(busy[i]); at += 4 << 10 {
			busy[i][at] = 1
		}
	}
	memory.read()
	if memory.resting != 0 || memory.rests() {
		t.Errorf("%d looks are taken for resting after 100 MiB were allocated", memory.resting)
	}
	before := memory.held
	clear(busy)
	for range restingLooks {
		memory.read()
	}
	if !memory.rests() {
		t.Fatalf("%d looks of nothing allocated, %d MiB held, and nothing is given back", memory.resting, memory.held>>20)
	}
	debug.FreeOSMemory()
	if memory.read(); memory.held > before-(90<<20) {
		t.Errorf("%d of %d MiB are still held", memory.held>>20, before>>20)
	}
	for memory.resting%restingLooks != 0 {
		memory.read()
	}
	if memory.rests() {
		t.Errorf("%d MiB are to be given back, with nothing to gain", memory.held>>20)
	}
}
