package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Report is all that was measured. The names of its JSON form are stable.
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
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Write writes the report for people: medians, and between what they lie.
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
	return t.Flush()
}

// table prints rows under titles.
type table struct{ *tabwriter.Writer }

func (t *table) title(format string, args ...any) {
	fmt.Fprintf(t, "\n"+format+"\n", args...)
}

func (t *table) row(name string, value any) { fmt.Fprintf(t, "  %s\t%v\n", name, value) }

func (r *Throughput) write(t *table, what string) {
	t.title("%s; %d changes over %d accounts and %d receivers", what, r.Changes, r.Accounts, r.Receivers)
	t.row("deliveries/s, from the process's start", r.PerSecond.text())
	t.row("deliveries/s, from the first 2xx", r.Steady.text())
	t.row("first 2xx after, s", r.FirstSeconds.text())
	t.row("plain POSTs/s", r.PlainPosts.text())
	t.row("share of plain POSTs", r.ShareOfPosts.text())
	t.row("decode-only changes/s", r.Decoded.text())
	t.row("share of decode-only", r.ShareOfRead.text())
	if r.Recvlogical != nil {
		t.row("pg_recvlogical changes/s", r.Recvlogical.text())
		t.row("decode-only's share of it", r.ShareOfRecv.text())
	}
	r.Cost.write(t)
}

func (c CostSpread) write(t *table) {
	t.row("CPU s per 1,000 deliveries: walhook", c.WalhookCPU.text())
	t.row("CPU s per 1,000 deliveries: PostgreSQL", c.PostgresCPU.text())
	t.row("peak resident memory, MiB", c.PeakRSS.text())
	t.row("WAL bytes per delivery", c.WAL.text())
}

func (l Latency) write(t *table) {
	t.title("latency at %g transactions/s for %g s over %d accounts, ms", l.Rate, l.Seconds, l.Accounts)
	l.Commit.write(t, "commit to 2xx")
	l.Due.write(t, "due to 2xx")
	l.Late.write(t, "begun late")
	t.row("committed/s", l.Committed.text())
	t.row("cores: walhook", l.WalhookCores.text())
	t.row("cores: PostgreSQL", l.PostgresCores.text())
}

func (q Quantiles) write(t *table, what string) {
	t.row(what+": p50", q.P50.text())
	t.row(what+": p99", q.P99.text())
	t.row(what+": p99.9", q.P999.text())
}

func (r *Trouble) write(t *table) {
	t.title("trouble: the healthy of %d endpoints, of which %d %% hang and %d %% refuse, at %g transactions/s for %g s, ms",
		r.Endpoints, r.Hanging, r.Refusing, r.Rate, r.Seconds)
	r.Calm.write(t, "calm: commit to 2xx")
	r.Trouble.write(t, "in trouble: commit to 2xx")
	t.row("p99 in trouble to p99 calm", r.Ratio.text())
	t.row("most requests in flight", r.Hung.text())
	t.row("peak resident memory, MiB", r.PeakRSS.text())
}
