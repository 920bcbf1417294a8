package portal

import (
	"testing"
	"time"
)

// Every attempt is in one bar, whichever time the picture covers.
func TestChart_CountsEachAttemptOnce(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 7, 30, 0, time.UTC)
	for name, c := range map[string]struct {
		oldest time.Duration // how long ago the first attempts were
		span   string
		bars   int
	}{
		"a day":       {24*time.Hour - 8*time.Minute, "day", 48},
		"this hour":   {40 * time.Minute, "hour", 12},
		"this moment": {0, "hour", 12},
		"some hours":  {5 * time.Hour, "quarter", 36},
	} {
		all := counts{From: now.Add(-24 * time.Hour).Truncate(5 * time.Minute).Add(5 * time.Minute), To: now}
		for at := now.Add(-c.oldest).Truncate(5 * time.Minute); !at.After(now); at = at.Add(5 * time.Minute) {
			all.Steps = append(all.Steps, countStep{at, 3, 1})
			all.Delivered, all.Failed = all.Delivered+3, all.Failed+1
		}
		made := newChart(all, nil)
		var good, bad int64
		for i, b := range made.Bars {
			good, bad = good+b.Good, bad+b.Bad
			if b.X+made.BarWidth() > chartWidth || b.BadY < 0 || i > 0 && b.X <= made.Bars[i-1].X {
				t.Errorf("%s: bar %d is at %d, %d", name, i, b.X, b.BadY)
			}
		}
		if good != all.Delivered || bad != all.Failed || made.Span != c.span || len(made.Bars) < c.bars || len(made.Bars) > c.bars+1 {
			t.Errorf("%s: %s of %d bars with %d and %d of %d and %d", name, made.Span, len(made.Bars), good, bad, all.Delivered, all.Failed)
		}
		if n := len(made.Bars); name == "this moment" && made.Bars[n-1].Good != 3 {
			t.Errorf("the newest are not in the last bar: %v", made.Bars)
		}
	}
}
