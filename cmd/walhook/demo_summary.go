package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"walhook/doctor"
	"walhook/internal/carrier"
	"walhook/internal/receiver"
)

// demoSummary is the demo's result. The names of its JSON form are stable.
type demoSummary struct {
	OK              bool    `json:"ok"`
	Interrupted     string  `json:"interrupted,omitempty"` // what a signal ended; "" for none
	DurationSeconds float64 `json:"duration_seconds"`
	Accounts        int     `json:"accounts"`
	Transactions    int     `json:"transactions"`
	Changes         int     `json:"changes_committed"`
	Expected        int     `json:"events_expected"`
	Delivered       int     `json:"delivered"`
	Retried         int     `json:"retried"`
	Waiting         int     `json:"waiting_for_dead_receivers"`
	Expired         int     `json:"expired"`
	Lost            int     `json:"lost"`
	Duplicated      int     `json:"duplicated"`
	OrderViolations int     `json:"order_violations"`
	WrongBodies     int     `json:"wrong_bodies"`
	BadSignatures   int     `json:"bad_signatures"`
	Unexpected      int     `json:"unexpected"`

	Schemas        map[string]int         `json:"schemas"` // events delivered
	SchemasMissing []string               `json:"schemas_missing"`
	Latency        map[string]demoLatency `json:"latency"` // by kind of receiver
	BreakersOpen   []string               `json:"breakers_open"`
	Faults         []string               `json:"faults"`
}

// demoLatency is the time from commit to 2xx, in milliseconds.
type demoLatency struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// resultSchema is the schema of the demo's async results.
const resultSchema = "sms_enablement"

func newDemoSummary(o demoOptions, stats carrier.Stats, changes map[string]map[string]int, report receiver.Report, open []string) *demoSummary {
	s := &demoSummary{
		OK:              report.OK(),
		DurationSeconds: o.duration.Seconds(),
		Accounts:        o.accounts,
		Transactions:    stats.Committed,
		Expected:        report.Expected,
		Delivered:       report.Delivered,
		Retried:         report.Retried,
		Waiting:         report.Waiting,
		Expired:         report.Expired,
		Lost:            report.Lost,
		Duplicated:      report.Duplicates,
		OrderViolations: report.OrderViolations,
		WrongBodies:     report.WrongBodies + report.Differing,
		BadSignatures:   report.BadSignatures,
		Unexpected:      report.Unexpected,
		Schemas:         maps.Clone(report.Schemas),
		SchemasMissing:  []string{},
		Latency:         map[string]demoLatency{},
		BreakersOpen:    append([]string{}, open...),
		Faults:          append([]string{}, report.Faults...),
	}
	if s.Schemas == nil {
		s.Schemas = map[string]int{}
	}
	for _, types := range changes {
		for _, n := range types {
			s.Changes += n
		}
	}
	for _, name := range append(carrier.Schemas(), resultSchema) {
		if report.Schemas[name] == 0 {
			s.SchemasMissing = append(s.SchemasMissing, name)
		}
	}
	for class, l := range report.Latency {
		s.Latency[class] = demoLatency{l.Count, milliseconds(l.P50), milliseconds(l.P99), milliseconds(l.Max)}
	}
	return s
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond).Microseconds()) / 1000
}

// write prints the summary for a person.
func (s *demoSummary) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any, note string) { fmt.Fprintf(t, "  %s\t%v\t%s\n", name, value, note) }
	if s.Interrupted != "" {
		fmt.Fprintf(t, "\nA signal ended the demo %s.\n", s.Interrupted)
	}
	fmt.Fprintf(t, "\nIn %gs the carrier made %s with %s.\n\n", s.DurationSeconds, doctor.Count(s.Transactions, "transaction"), doctor.Count(s.Changes, "row change"))
	row("events expected", s.Expected, "by the ledger that the database's triggers kept")
	row("delivered", s.Delivered, "with the right bytes and a valid signature")
	waiting := "for dead receivers; nothing is lost"
	if s.Interrupted != "" {
		waiting = "for dead receivers, or under way; nothing is lost"
	}
	row("waiting", s.Waiting, waiting)
	row("retried", s.Retried, "requests, after a flaky receiver failed")
	row("lost", s.Lost, "")
	row("duplicated", s.Duplicated, "")
	row("out of order", s.OrderViolations, "")
	row("wrong or unexpected", s.WrongBodies+s.Unexpected+s.BadSignatures, "")
	if len(s.Latency) > 0 {
		fmt.Fprintf(t, "\n  commit to 2xx\tevents\tp50\tp99\n")
	}
	for _, class := range slices.Sorted(maps.Keys(s.Latency)) {
		l := s.Latency[class]
		fmt.Fprintf(t, "  %s\t%d\t%.1f ms\t%.1f ms\n", class, l.Count, l.P50, l.P99)
	}
	fmt.Fprintf(t, "\n  schemas delivered\t%d of %d\n", len(carrier.Schemas())+1-len(s.SchemasMissing), len(carrier.Schemas())+1)
	if len(s.SchemasMissing) > 0 && s.Expected > 0 {
		fmt.Fprintf(t, "  not seen\t%s\n", strings.Join(s.SchemasMissing, ", "))
	}
	if len(s.BreakersOpen) > 0 {
		fmt.Fprintf(t, "  breakers open\t%s\n", doctor.List(s.BreakersOpen, 8))
	}
	for _, fault := range s.Faults {
		fmt.Fprintf(t, "  ERROR: %s\n", fault)
	}
	return t.Flush()
}
