package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Spread is a figure over the repetitions. The zero Spread was not measured.
type Spread struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"` // in the order of the repetitions
}

// spreadOf returns the spread of a figure of each run.
func spreadOf[R any](runs []R, figure func(R) float64) Spread {
	var values []float64
	for _, r := range runs {
		values = append(values, figure(r))
	}
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Spread{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1], Values: values}
}

// text returns the spread for people: the median, with minimum and maximum.
func (s Spread) text() string {
	if len(s.Values) == 0 {
		return "not measured"
	}
	if len(s.Values) == 1 {
		return number(s.Median)
	}
	return fmt.Sprintf("%s  (%s … %s)", number(s.Median), number(s.Min), number(s.Max))
}

// number writes three significant digits, or all digits before the point.
func number(x float64) string {
	switch {
	case x >= 100 || x <= -100:
		return grouped(fmt.Sprintf("%.0f", x))
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

// grouped puts commas between thousands.
func grouped(digits string) string {
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, parts...), ",")
}
