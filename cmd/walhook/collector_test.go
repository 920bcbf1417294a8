package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
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

// A burst fills the heap between two ticks of a timer: here there are none.
func TestCollector_FollowsABurst(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tuneAtCollections(ctx, nil)
	}()
	defer func() { stop(); <-done }()
	goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	for _, size := range []int{20 << 20, 60 << 20, 20 << 20, 60 << 20} {
		live := make([]byte, size)
		grows := 0
		for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
			runtime.GC()
			metrics.Read(goal)
			if grows = int(goal[0].Value.Uint64() - liveHeap()); grows > spareHeap*2/3 && grows < spareHeap*3/2 {
				break
			}
		}
		if grows < spareHeap*2/3 || grows > spareHeap*3/2 {
			t.Errorf("with %d MiB in use Go lets the heap grow by %d MiB, want about %d", size>>20, grows>>20, spareHeap>>20)
		}
		runtime.KeepAlive(live)
	}
}
