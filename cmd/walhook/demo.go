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
)

// demoOptions are the demo's flags.
type demoOptions struct {
	duration time.Duration
	rate     float64
	accounts int
	seed     uint64
	json     bool
	binDir   string
	logLevel string
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
when everything matches. The demo leaves nothing behind.`

func newDemoCommand() *cobra.Command {
	o := demoOptions{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole pipeline on this machine, with nothing to set up",
		Long:  demoLong,
		Example: `  walhook demo
  walhook demo --duration 1m --rate 200 --accounts 40
  walhook demo --duration 20s --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return usageError{err}
			}
			return runDemo(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&o.duration, "duration", 30*time.Second, "duration of the simulated activity")
	flags.Float64Var(&o.rate, "rate", 40, "transactions per second; 0 means as many as possible")
	flags.IntVar(&o.accounts, "accounts", 24, "accounts at the start; more sign up")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the simulated activity")
	flags.BoolVar(&o.json, "json", false, "print only the summary, as JSON, on standard output")
	flags.StringVar(&o.binDir, "pg-bin", "", "directory of the PostgreSQL programs (initdb, postgres); by default walhook searches for them")
	flags.StringVar(&o.logLevel, "log-level", "error", "log level of walhook itself, on standard error")
	return cmd
}

func (o demoOptions) validate() error {
	var faults []error
	if o.duration < time.Second || o.duration > 24*time.Hour {
		faults = append(faults, fmt.Errorf("--duration %s: want 1s to 24h", o.duration))
	}
	if o.rate < 0 {
		faults = append(faults, fmt.Errorf("--rate %g: want 0 or more", o.rate))
	}
	if o.accounts < 10 || o.accounts > 100_000 {
		faults = append(faults, fmt.Errorf("--accounts %d: want 10 to 100000, so that every kind of receiver is there", o.accounts))
	}
	return errors.Join(faults...)
}

func runDemo(ctx context.Context, o demoOptions, out, errOut io.Writer) error {
	log, err := demoLogger(o.logLevel)
	if err != nil {
		return usageError{err}
	}
	view := newDemoView(out)
	if o.json {
		view = newDemoView(errOut)
	}
	d := &demo{options: o, view: view}
	defer d.close()
	if err := d.build(ctx); err != nil {
		return interrupted(ctx, err)
	}
	summary, err := d.run(ctx, log)
	if err != nil {
		return interrupted(ctx, err)
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

func demoLogger(level string) (*zap.Logger, error) {
	parsed, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	return newLogger(settings{LogLevel: parsed, LogFormat: "console"}), nil
}

// interrupted drops the error of an end by a signal.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
