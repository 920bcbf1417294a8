package bench

import (
	"testing"
	"time"
)

func TestSpread_IsMedianLeastAndGreatest(t *testing.T) {
	identity := func(x float64) float64 { return x }
	for _, test := range []struct {
		values           []float64
		median, min, max float64
	}{
		{nil, 0, 0, 0},
		{[]float64{3}, 3, 3, 3},
		{[]float64{5, 1, 3}, 3, 1, 5},
		{[]float64{4, 1, 3, 2}, 2.5, 1, 4},
	} {
		if s := spreadOf(test.values, identity); s.Median != test.median || s.Min != test.min || s.Max != test.max || len(s.Values) != len(test.values) {
			t.Errorf("%v: %+v", test.values, s)
		}
	}
}

func TestQuantile_IsTheLeastTimeThatAShareDoNotExceed(t *testing.T) {
	var times []time.Duration
	for i := range 1000 {
		times = append(times, time.Duration(i+1)*time.Millisecond)
	}
	for share, want := range map[float64]float64{0: 1, .5: 500, .99: 990, .999: 999, 1: 1000} {
		if got := quantile(times, share); got != want {
			t.Errorf("%g of 1 to 1000 ms: %g, want %g", share, got, want)
		}
	}
	if got := quantile(times[:1], .999); got != 1 {
		t.Errorf("of one time: %g", got)
	}
}

func TestNumber_IsReadable(t *testing.T) {
	for x, want := range map[float64]string{0: "0.000", .0612: "0.061", 1.234: "1.23", 12.34: "12.3", 999.6: "1,000", 1234567: "1,234,567"} {
		if got := number(x); got != want {
			t.Errorf("%g: %s, want %s", x, got, want)
		}
	}
}
