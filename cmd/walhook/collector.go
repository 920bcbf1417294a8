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
)

// tuneCollector has the heap collected when it has grown by spareHeap, within
// bounds, unless the environment says otherwise (package runtime). It returns
// when ctx ends.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	look := time.NewTicker(collectorLook)
	defer look.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for set := 0; ; {
		metrics.Read(live)
		// Each setting stops the world for a moment: only when it matters.
		if percent := collectorPercent(live[0].Value.Uint64()); percent > set*5/4 || percent < set*4/5 {
			set = percent
			debug.SetGCPercent(percent)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// collectorPercent is the growth after which a heap with so many live bytes is
// collected, in percent of them.
func collectorPercent(live uint64) int {
	return int(min(max(100*spareHeap/max(live, 1), leastPercent), mostPercent))
}
