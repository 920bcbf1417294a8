package main

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/outbox/admin"
	"walhook/portal"
)

// console answers the operator's pages of the portal with what the commands print.
type console struct {
	cmd *cobra.Command // whose flags the printed commands get
	settings
}

// doctor makes the checks of 'walhook doctor'.
func (c *console) doctor(ctx context.Context) ([]portal.Check, error) {
	findings, err := examine(ctx, c.settings, doctor.Options{OldTransaction: 15 * time.Minute})
	if err != nil {
		return nil, err
	}
	var checks []portal.Check
	for _, f := range withSettings(c.cmd, findings) {
		var fix strings.Builder
		writeSteps(&fix, f.Fix)
		checks = append(checks, portal.Check{ID: f.ID, Status: string(f.Status), Evidence: printable(f.Evidence), Fix: unindented(fix.String())})
	}
	return checks, nil
}

// unindented removes the indentation that a terminal's columns need.
func unindented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimPrefix(line, "         "))
	}
	return strings.TrimRight(b.String(), "\n")
}

// source returns what tells how the source stands; nil without a source.
func (c *console) source() func(context.Context, *admin.Status) (portal.Source, error) {
	if c.Source == "" {
		return nil
	}
	return func(ctx context.Context, st *admin.Status) (portal.Source, error) {
		report, err := source.ReportSlot(ctx, c.cdcConfig())
		if err != nil {
			return portal.Source{}, err
		}
		view := statusView{slot: c.Slot, source: &report, outbox: st}
		facts := portal.Source{Slot: c.Slot, State: report.WALStatus, Retained: report.Retained, Limit: report.Limit}
		if math.IsInf(facts.Limit, 0) {
			facts.Limit = 0
		}
		if report.Reader.PID != 0 {
			facts.Reader = report.Reader.String()
		}
		for _, one := range report.Waiting {
			facts.Standbys = append(facts.Standbys, one.String())
		}
		facts.LagBytes, facts.LagSeconds, facts.LagKnown = view.lag()
		return facts, nil
	}
}
