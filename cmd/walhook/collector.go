package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// spareHeap is how much garbage may gather between two collections. What a
	// busy walhook holds is a few tens of megabytes, and at the usual setting it
	// would collect as often as it has made as many again.
	spareHeap = 40 << 20

	leastPercent = 60
	mostPercent  = 300

	collectorLook = 2 * time.Second

	// restingAllocs is as much as is allocated between two looks at most while
	// there is next to nothing to do. Every restingLooks of that, what a busier
	// time left behind goes back to the system, where restingHeld is in use:
	// less is not worth a collection.
	restingAllocs = 4 << 20
	restingLooks  = 30
	restingHeld   = 64 << 20
)

// tuneCollector has the heap collected when it has grown by spareHeap, within
// bounds, unless the environment says otherwise (package runtime), and gives
// memory back when there is nothing to do. It returns when ctx ends.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	look := time.NewTicker(collectorLook)
	defer look.Stop()
	var memory memoryWatch
	for set := 0; ; {
		memory.read()
		// Each setting stops the world for a moment: only when it matters.
		if percent := collectorPercent(memory.live); percent > set*5/4 || percent < set*4/5 {
			set = percent
			debug.SetGCPercent(percent)
		}
		if memory.rests() {
			debug.FreeOSMemory()
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// memoryWatch is what the runtime says of memory, from one look to the next.
type memoryWatch struct {
	live      uint64 // bytes that were in use after the last collection
	held      uint64 // bytes that the system counts
	allocated uint64 // bytes, ever
	resting   int    // looks in a row that saw little allocated
}

func (m *memoryWatch) read() {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	m.live = samples[0].Value.Uint64()
	m.held = samples[2].Value.Uint64() - samples[3].Value.Uint64()
	allocated := samples[1].Value.Uint64()
	if m.resting++; allocated-m.allocated >= restingAllocs {
		m.resting = 0
	}
	m.allocated = allocated
}

// rests says that it is time to give memory back.
func (m *memoryWatch) rests() bool {
	return m.resting > 0 && m.resting%restingLooks == 0 && m.held >= restingHeld
}

// collectorPercent is the growth after which a heap with so many live bytes is
// collected, in percent of them.
func collectorPercent(live uint64) int {
	return int(min(max(100*spareHeap/max(live, 1), leastPercent), mostPercent))
}
