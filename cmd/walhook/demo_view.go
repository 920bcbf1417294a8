package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"walhook/sender"
)

// demoView prints deliveries as they happen, for a person. A person can read a few
// lines a second, so the view shows only that many successes. It shows every failure,
// up to a bound.
type demoView struct {
	out     io.Writer
	colour  bool
	reports chan sender.AttemptReport

	mu sync.Mutex // guards out
}

const (
	viewBuffer     = 4096
	linesPerSecond = 12
)

func newDemoView(out io.Writer) *demoView {
	return &demoView{out: steering(out), colour: isTerminal(out), reports: make(chan sender.AttemptReport, viewBuffer)}
}

// step prints what the demo does next.
func (v *demoView) step(what string) { v.print("· %s\n", what) }

func (v *demoView) print(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprintf(v.out, format, args...)
}

func (v *demoView) begin(o demoOptions) {
	v.print("\nFor %s, changes become POSTs to %d accounts' receivers. 1 in 10 of them is dead, 1 in 10 slow, 2 in 10 flaky.\n\n",
		o.duration, o.accounts)
}

// attempt is called by the sender and must not block: the view drops attempts that it
// cannot keep up with.
func (v *demoView) attempt(report sender.AttemptReport) {
	select {
	case v.reports <- report:
	default:
	}
}

// run prints until ctx ends.
func (v *demoView) run(ctx context.Context) error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	delivered, failed, shown := 0, 0, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case report := <-v.reports:
			if report.Outcome == "delivered" {
				delivered++
			} else {
				failed++
			}
			if shown < linesPerSecond {
				shown++
				v.line(report)
			}
		case <-second.C:
			if more := delivered + failed - shown; more > 0 {
				v.print("%s\n", v.paint(grey, fmt.Sprintf("             … and %d more in this second (%d delivered, %d failed)", more, delivered, failed)))
			}
			delivered, failed, shown = 0, 0, 0
		}
	}
}

func (v *demoView) line(r sender.AttemptReport) {
	mark, colour, answer := "✓", green, fmt.Sprint(r.Status)
	if r.Outcome != "delivered" {
		mark, colour, answer = "✗", red, r.Reason
	}
	age := ""
	if r.Outcome == "delivered" {
		age = fmt.Sprintf("%.1f ms after commit", milliseconds(time.Since(r.CommittedAt)))
	} else if r.Attempt > 1 {
		age = fmt.Sprintf("attempt %d", r.Attempt)
	}
	v.print("%s %s %-16s account %s (%-7s)  %-6s %-18s %s\n", time.Now().Format("15:04:05.000"),
		v.paint(colour, mark), answer, r.Account, accountClass(r.Account), r.Type, r.Schema, v.paint(grey, age))
}

// The colours of a terminal (ECMA-48, SGR).
const (
	red   = 31
	green = 32
	grey  = 90
)

func (v *demoView) paint(colour int, text string) string {
	if !v.colour {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, text)
}
