package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// spareHeap is how much garbage may accumulate between two collections. A busy
	// walhook has a live heap of a few tens of megabytes. By default Go would collect
	// each time that the heap has doubled.
	spareHeap = 40 << 20

	leastPercent = 60
	mostPercent  = 300

	collectorLook = 2 * time.Second

	// restingAllocs is the most that an idle process allocates between two looks.
	// After restingLooks idle looks in a row, tuneCollector returns memory to the
	// system, and again after each restingAgain, if the process holds at least
	// restingHeld; less is not worth a collection.
	restingAllocs = 4 << 20
	restingLooks  = 3
	restingAgain  = 30
	restingHeld   = 64 << 20
)

// tuneCollector sets GOGC after each collection so that Go collects again when the heap
// has grown by spareHeap, within bounds, and returns memory to the system when the
// process is idle. It does nothing if the environment sets GOGC or GOMEMLIMIT (package
// runtime). It returns when ctx ends.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	look := time.NewTicker(collectorLook)
	defer look.Stop()
	tuneAtCollections(ctx, look.C)
}

// tuneAtCollections sets GOGC after each collection, since a busy time fills the heap
// within a fraction of a second, and looks with each tick whether the process is idle.
func tuneAtCollections(ctx context.Context, look <-chan time.Time) {
	collected := make(chan struct{}, 1)
	signalCollections(ctx, collected)
	var memory memoryWatch
	for set := 0; ; {
		percent := collectorPercent(liveHeap())
		// Each change of the setting stops the world for a moment, so avoid small ones.
		if percent > set*5/4 || percent < set*4/5 {
			set = percent
			debug.SetGCPercent(percent)
		}
		select {
		case <-ctx.Done():
			return
		case <-collected:
		case <-look:
			if memory.read(); memory.rests() {
				debug.FreeOSMemory()
			}
		}
	}
}

// signalCollections sends to collected after each collection, until ctx ends. It sends
// nothing while collected is full, and may miss a collection that begins while the one
// before it is being signalled.
func signalCollections(ctx context.Context, collected chan<- struct{}) {
	// Nothing refers to the object, so the next collection finds it. The pointer in it
	// keeps it out of a block shared with other small objects (runtime.AddCleanup).
	runtime.AddCleanup(&struct{ self *byte }{}, func(collected chan<- struct{}) {
		if ctx.Err() != nil {
			return
		}
		signalCollections(ctx, collected)
		select {
		case collected <- struct{}{}:
		default:
		}
	}, collected)
}

// liveHeap returns how many bytes were in use after the last collection.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// memoryWatch holds the runtime's memory statistics from one look to the next.
type memoryWatch struct {
	held      uint64 // bytes that the process holds
	allocated uint64 // bytes allocated since the start
	resting   int    // idle looks in a row
}

func (m *memoryWatch) read() {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	allocated := samples[0].Value.Uint64()
	m.held = samples[1].Value.Uint64() - samples[2].Value.Uint64()
	if m.resting++; allocated-m.allocated >= restingAllocs {
		m.resting = 0
	}
	m.allocated = allocated
}

// rests reports whether it is time to return memory.
func (m *memoryWatch) rests() bool {
	due := m.resting == restingLooks || m.resting > 0 && m.resting%restingAgain == 0
	return due && m.held >= restingHeld
}

// collectorPercent returns the GOGC for a heap with so many live bytes: the growth, in
// percent of them, after which Go collects.
func collectorPercent(live uint64) int {
	return int(min(max(100*spareHeap/max(live, 1), leastPercent), mostPercent))
}
