package bench

import (
	"encoding/json"
	"io"
	"text/tabwriter"
	"time"
)

// Report has all figures of a run. The names of its JSON form are stable.
type Report struct {
	Walhook string    `json:"walhook"` // version
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"` // that the measures took
	Machine Machine   `json:"machine"`

	Drain *Throughput `json:"drain,omitempty"`
	Bulk  *Throughput `json:"bulk,omitempty"`
	// Latency has an element for each rate.
	Latency []Latency `json:"latency,omitempty"`
	Trouble *Trouble  `json:"trouble,omitempty"`
	// FanOut has an element for each number of endpoints.
	FanOut []FanOut `json:"fan_out,omitempty"`
	// Scale has an element for each number of senders.
	Scale   []Scale   `json:"scale,omitempty"`
	Edits   *Edits    `json:"edits,omitempty"`
	Idle    *Idle     `json:"idle,omitempty"`
	Memory  *Memory   `json:"memory,omitempty"`
	Waiting []Waiting `json:"waiting,omitempty"`
	Aged    *Aged     `json:"aged,omitempty"`
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Write writes the report for people: medians, with minimum and maximum.
func (r *Report) Write(w io.Writer) error {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	m := r.Machine
	t.title("walhook %s on %d CPUs (%s), %.1f GiB, %s %s, %s, PostgreSQL %s", r.Walhook, m.CPUs, m.CPU,
		float64(m.Memory)/(1<<30), m.OS, m.Kernel, m.Go, m.Postgres)
	if r.Drain != nil {
		r.Drain.write(t, "drain: single-row transactions")
	}
	if r.Bulk != nil {
		r.Bulk.write(t, "bulk: one transaction")
	}
	for _, l := range r.Latency {
		l.write(t)
	}
	if r.Trouble != nil {
		r.Trouble.write(t)
	}
	for _, f := range r.FanOut {
		f.write(t)
	}
	for _, s := range r.Scale {
		s.write(t)
	}
	if r.Edits != nil {
		r.Edits.write(t)
	}
	if r.Idle != nil {
		r.Idle.write(t)
	}
	if r.Memory != nil {
		r.Memory.write(t)
	}
	for _, one := range r.Waiting {
		one.write(t)
	}
	if r.Aged != nil {
		r.Aged.write(t)
	}
	return t.Flush()
}
