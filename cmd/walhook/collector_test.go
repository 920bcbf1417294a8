package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
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
	for memory.resting < restingAgain {
		if memory.read(); memory.rests() {
			t.Errorf("%d MiB are to be given back, with nothing to gain", memory.held>>20)
		}
	}
	if memory.held = restingHeld; !memory.rests() {
		t.Errorf("after %d looks nothing is given back again", memory.resting)
	}
}

// TestCollector_FollowsABurst fills the heap faster than a timer would look, as a large
// transaction does, and reads what Go lets it grow to. What is allocated while Go collects
// counts as in use, so it may be somewhat more than spareHeap above what is kept; set by
// a timer it would be many times that.
func TestCollector_FollowsABurst(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tuneCollector(ctx)
	}()
	defer func() { stop(); <-done }()
	const live = 60 << 20
	var kept [][]byte
	goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	var highest uint64
	for made := 0; made < 600<<20; made += 64 << 10 {
		piece := make([]byte, 64<<10)
		if len(kept) < live/len(piece) {
			kept = append(kept, piece)
		}
		if made > 300<<20 { // several collections have seen what is kept
			metrics.Read(goal)
			highest = max(highest, goal[0].Value.Uint64())
		}
	}
	runtime.KeepAlive(kept)
	if least, most := uint64(live), uint64(live+3*spareHeap); highest < least || highest > most {
		t.Errorf("with %d MiB in use Go lets the heap grow to %d MiB, want at most %d", live>>20, highest>>20, most>>20)
	}
}
