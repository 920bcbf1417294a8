package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Report collects the findings of a fixed list of checks.
type Report struct {
	ids   []string
	found map[string]*Finding
	said  map[string][]string // the evidence of each finding, one for each time it was noted
}

// mostEvidence is how much evidence of one kind a finding shows. Its steps are complete.
const mostEvidence = 20

// NewReport returns an empty report of the named checks, in this order.
func NewReport(ids ...string) *Report {
	return &Report{ids: ids, found: map[string]*Finding{}, said: map[string][]string{}}
}

// OK notes that a check passed, unless it already has another result.
func (r *Report) OK(id, format string, args ...any) {
	r.add(Finding{ID: id, Status: OK, Evidence: fmt.Sprintf(format, args...)})
}

// Warn notes a warning.
func (r *Report) Warn(id string, fix Steps, format string, args ...any) {
	r.add(Finding{ID: id, Status: Warning, Evidence: fmt.Sprintf(format, args...), Fix: fix})
}

// Fail notes a failure.
func (r *Report) Fail(id string, fix Steps, format string, args ...any) {
	r.add(Finding{ID: id, Status: Failed, Evidence: fmt.Sprintf(format, args...), Fix: fix})
}

// Skip notes why checks were not made. A check that has a result keeps it.
func (r *Report) Skip(because string, ids ...string) {
	for _, id := range ids {
		r.add(Finding{ID: id, Status: Skipped, Evidence: because})
	}
}

// SkipRest notes why all checks without a result were not made.
func (r *Report) SkipRest(because string) { r.Skip(because, r.ids...) }

// Bad reports whether any of the checks found something to fix.
func (r *Report) Bad(ids ...string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return r.found[id] != nil && r.found[id].Bad() })
}

// Failed returns the first of the checks that failed; "" for none.
func (r *Report) Failed(ids ...string) string {
	i := slices.IndexFunc(ids, func(id string) bool { return r.found[id] != nil && r.found[id].Status == Failed })
	if i < 0 {
		return ""
	}
	return ids[i]
}

// Finding returns what a check found so far.
func (r *Report) Finding(id string) Finding {
	if f := r.found[id]; f != nil {
		return *f
	}
	return Finding{ID: id, Status: Skipped}
}

// Findings returns a finding for every check, in the report's order.
func (r *Report) Findings() []Finding {
	r.SkipRest("this was not checked")
	findings := make([]Finding, len(r.ids))
	for i, id := range r.ids {
		findings[i] = *r.found[id]
		findings[i].Evidence = evidence(r.said[id])
	}
	return findings
}

// add keeps the worst result of a check, and the evidence of all.
func (r *Report) add(f Finding) {
	if !slices.Contains(r.ids, f.ID) {
		panic("no such check: " + f.ID) // the tests of the command would find it
	}
	had := r.found[f.ID]
	switch {
	case had == nil || had.Status.rank() < f.Status.rank():
		r.found[f.ID] = &f
		said := []string{f.Evidence}
		if had != nil && had.Bad() { // a failure joins a warning
			said = append(said, r.said[f.ID]...)
			f.Fix = join(f.Fix, had.Fix)
		}
		r.said[f.ID] = said
	case had.Status == f.Status && f.Status != Skipped, had.Bad() && f.Bad():
		r.said[f.ID] = append(r.said[f.ID], f.Evidence)
		had.Fix = join(had.Fix, f.Fix)
	}
}

// evidence joins what was said, each once, and says how much more there is.
func evidence(said []string) string {
	var once []string
	for _, text := range said {
		if !slices.Contains(once, text) {
			once = append(once, text)
		}
	}
	text := strings.Join(once[:min(len(once), mostEvidence)], "; ")
	if more := len(once) - mostEvidence; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

func join(steps, more Steps) Steps {
	for _, step := range more {
		if !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	return steps
}
