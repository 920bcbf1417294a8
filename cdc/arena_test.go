package cdc

import (
	"runtime"
	"testing"
)

// A row that was stored long ago, and was large, does not stay in memory until as many
// rows have come as share a block of values.
func TestArena_LetsLargeRowsGo(t *testing.T) {
	var a arena
	large := make([]byte, 2<<20)
	inUse := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := inUse()
	for range 200 {
		for i, row := 0, a.tuple(4); i < len(row); i++ {
			row[i].Text = a.bytes([]byte("x"))
		}
		a.tuple(4)[0].Text = a.bytes(large)
	}
	if held := inUse() - before; held > 8<<20 {
		t.Errorf("rows that nobody refers to hold %d MiB", held>>20)
	}
	runtime.KeepAlive(&a)
}
