package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"walhook/internal/carrier"
	"walhook/internal/receiver"
)

// demoOptions are the demo's flags.
type demoOptions struct {
	duration time.Duration
	rate     float64
	accounts int
	seed     uint64
	json     bool
	portal   bool
	binDir   string
	logLevel string
	cmd      *cobra.Command // whose flags the operator's pages know
}

const demoLong = `Shows the whole pipeline on this machine, with nothing to set up.

It starts a throwaway PostgreSQL (14 or newer: found on this machine, otherwise
downloaded), creates a phone carrier's tables in it, and simulates the carrier's
business: numbers are bought and reassigned, ports progress, faxes arrive,
accounts change their web_hook_url. walhook reads the write-ahead log and
delivers every change to receivers on loopback. Some of them are healthy, some
slow, some flaky and some dead.

At the end a referee compares what the receivers got with a ledger that triggers
in the database kept: byte for byte, in order, nothing lost. The exit status is 0
when everything matches. The demo leaves nothing behind.

On a terminal it shows totals, the receivers by kind and the latest attempts in
one place; elsewhere, and with TERM=dumb, it prints a line a second, or every ten
seconds while nothing changes. NO_COLOR turns colours off. Ctrl-C ends the
activity at any moment, and the summary follows; a second Ctrl-C ends the demo at
once.

With --portal it runs until Ctrl-C, with fewer transactions, and prints a link to
the page of an account whose server fails and recovers.`

// The limits of the flags.
const (
	demoShortest   = time.Second
	demoLongest    = 24 * time.Hour
	demoFewest     = 10
	demoMost       = 100_000
	demoPortalRate = 8       // unless --rate is set: the portal is looked at for longer
	demoFastest    = 100_000 // transactions per second: more than one PostgreSQL commits
)

func newDemoCommand() *cobra.Command {
	o := demoOptions{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole pipeline on this machine, with nothing to set up",
		Long:  demoLong,
		Example: `  walhook demo
  walhook demo --duration 1m --rate 200 --accounts 40
  walhook demo --duration 20s --json
  walhook demo --portal`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.portal && !cmd.Flags().Changed("duration") {
				o.duration = demoLongest
			}
			if o.portal && !cmd.Flags().Changed("rate") {
				o.rate = demoPortalRate
			}
			if err := o.validate(); err != nil {
				return usageError{err}
			}
			o.cmd = cmd
			return runDemo(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&o.duration, "duration", 30*time.Second, fmt.Sprintf("duration of the simulated activity, %s to %s", shortDuration(demoShortest), shortDuration(demoLongest)))
	flags.Float64Var(&o.rate, "rate", 40, fmt.Sprintf("transactions per second, at most %d; 0 means as many as possible", demoFastest))
	flags.IntVar(&o.accounts, "accounts", 24, fmt.Sprintf("accounts at the start, %d to %d; more sign up", demoFewest, demoMost))
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the simulated activity")
	flags.BoolVar(&o.json, "json", false, "print only the summary, as JSON, on standard output")
	flags.BoolVar(&o.portal, "portal", false, "run until Ctrl-C unless --duration is set, and print a one-time link to an account's page")
	flags.StringVar(&o.binDir, "pg-bin", "", "directory of the PostgreSQL programs (initdb, postgres); by default walhook searches for them")
	flags.StringVar(&o.logLevel, "log-level", "error", "log level of walhook itself, on standard error: debug, info, warn or error")
	return cmd
}

func (o demoOptions) validate() error {
	var faults []error
	if o.duration < demoShortest || o.duration > demoLongest {
		faults = append(faults, fmt.Errorf("--duration %s: want %s to %s", o.duration, shortDuration(demoShortest), shortDuration(demoLongest)))
	}
	if !(o.rate >= 0 && o.rate <= demoFastest) { // not a number is neither
		faults = append(faults, fmt.Errorf("--rate %g: want 0 to %d", o.rate, demoFastest))
	}
	if o.accounts < demoFewest || o.accounts > demoMost {
		faults = append(faults, fmt.Errorf("--accounts %d: want %d to %d, so that every kind of receiver is there", o.accounts, demoFewest, demoMost))
	}
	return errors.Join(faults...)
}

// shortDuration writes whole hours and seconds as people type them.
func shortDuration(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%gs", d.Seconds())
}

// runDemo shows the demo on out, or with --json on errOut, and prints its summary.
func runDemo(ctx context.Context, o demoOptions, out, errOut io.Writer) error {
	shown := out
	if o.json {
		shown = errOut
	}
	if _, err := demoLogLevel(o.logLevel); err != nil {
		return usageError{err}
	}
	view := newDemoView(o, shown)
	d := &demo{options: o, view: view}
	defer d.close()
	summary, err := d.show(ctx, errOut)
	if closed := view.close(errOut); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if o.json {
		err = writeJSON(out, summary)
	} else {
		err = summary.write(out)
	}
	if err == nil && !summary.OK {
		err = errors.New("the demo found errors in the deliveries: its summary lists them")
	}
	return err
}

// show runs the demo to its summary. A signal ends it early, also while it starts.
func (d *demo) show(ctx context.Context, errOut io.Writer) (*demoSummary, error) {
	log, err := demoLogger(d.options.logLevel, d.view.logTo(errOut))
	if err != nil {
		return nil, usageError{err}
	}
	if err = d.build(ctx); err == nil {
		err = d.prepare(ctx, log)
	}
	if ctx.Err() != nil {
		summary := newDemoSummary(d.options, carrier.Stats{}, nil, receiver.Report{}, nil)
		summary.Interrupted, summary.DurationSeconds = "while "+d.view.doing(), 0
		return summary, nil
	}
	if err != nil {
		return nil, err
	}
	return d.run(ctx, log)
}

func demoLogLevel(level string) (zapcore.Level, error) {
	parsed, err := zapcore.ParseLevel(level)
	if err != nil {
		return parsed, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	return parsed, nil
}

func demoLogger(level string, to io.Writer) (*zap.Logger, error) {
	parsed, err := demoLogLevel(level)
	if err != nil {
		return nil, err
	}
	return newLoggerTo(settings{LogLevel: parsed, LogFormat: "console"}, zapcore.AddSync(to)), nil
}
