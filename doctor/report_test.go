package doctor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestReport_HasAFindingForEveryCheck(t *testing.T) {
	t.Parallel()
	r := NewReport("a", "b", "c")
	r.OK("b", "well")
	r.Skip("a failed", "c")
	var got []Status
	for _, f := range r.Findings() {
		got = append(got, f.Status)
	}
	if want := []Status{Skipped, OK, Skipped}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The worst that a check finds counts, and nothing of what it found is lost.
func TestReport_KeepsTheWorstAndAllOfIt(t *testing.T) {
	t.Parallel()
	note := map[Status]func(*Report, string){
		OK:      func(r *Report, text string) { r.OK("a", "%s", text) },
		Warning: func(r *Report, text string) { r.Warn("a", Run("walhook "+text), "%s", text) },
		Failed:  func(r *Report, text string) { r.Fail("a", Run("walhook "+text), "%s", text) },
		Skipped: func(r *Report, text string) { r.Skip(text, "a") },
	}
	for first, one := range note {
		for second, other := range note {
			r := NewReport("a")
			one(r, "one")
			other(r, "other")
			f := r.Findings()[0]
			if want := max(first.rank(), second.rank()); f.Status.rank() != want {
				t.Errorf("%s and %s: %s", first, second, f.Status)
			}
			steps := 0
			for _, status := range []Status{first, second} {
				if status.rank() >= Warning.rank() {
					steps++
				}
			}
			if len(f.Fix) != steps {
				t.Errorf("%s and %s: %d steps, want %d", first, second, len(f.Fix), steps)
			}
		}
	}
}

// A thousand tables with the same fault fill no terminal, and each has its steps.
func TestReport_CutsLongEvidenceAndNoSteps(t *testing.T) {
	t.Parallel()
	r := NewReport("a")
	for i := range 1000 {
		r.Warn("a", Run(fmt.Sprintf("walhook %d", i)), "table %d", i)
	}
	f := r.Findings()[0]
	if !strings.HasPrefix(f.Evidence, "table 0; table 1; ") || !strings.HasSuffix(f.Evidence, "; table 19; and 980 more") || len(f.Fix) != 1000 {
		t.Errorf("%d steps: %s", len(f.Fix), f.Evidence)
	}
	for n, want := range map[int]string{1: "a", 2: "a, b", 3: "a, b and 1 more"} {
		if got := List([]string{"a", "b", "c"}[:n], 2); got != want {
			t.Errorf("%d of them: %s", n, got)
		}
	}
}

func TestQuoteLiteral_IsReadAsItIs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "''", "a": "'a'", "it's": "'it''s'", `a\b'`: `E'a\\b'''`} {
		if got := QuoteLiteral(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
