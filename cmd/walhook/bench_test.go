package main

import (
	"slices"
	"strings"
	"testing"

	"walhook/internal/bench"
)

func TestBench_RefusesSizesThatMeanNothing(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"bench speed", "see 'walhook bench --help'"},
		{"bench --repetitions 0", "repetitions 0: want 1 to 100"},
		{"bench --hanging 60 --refusing 60", "want some healthy ones"},
		{"bench drain --batch 101", "batch 101: want 0 to 100"},
		{"bench latency --batch 10", "add drain"},
		{"bench --rates 0.1", "rate 0.1: want 1 to 100000 a second"},
	} {
		_, err := walhook(t, strings.Fields(test.line)...)
		if err == nil || exitStatus(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.line, err)
		}
	}
	if measures := bench.DefaultMeasures(); !slices.Contains(measures, "drain") || slices.Contains(measures, "aged") {
		t.Errorf("the default measures are %v", measures)
	}
}
