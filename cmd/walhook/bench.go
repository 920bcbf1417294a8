package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"walhook/internal/bench"
)

const benchLong = `Measures walhook on this machine, with nothing to prepare: a throwaway
PostgreSQL with fsync on, a carrier's tables, receivers that count deliveries by
webhook-id, and walhook itself, each in a process of its own.

The measures:

  drain    single-row transactions, committed before walhook starts, until the
           last 2xx; in the same run also plain POSTs by net/http to the same
           receivers, and walhook's reader alone; with --batch also the same
           stored events one by one and in batches, and the ratio of the two
  bulk     the same from one transaction
  latency  from commit to 2xx, at fixed rates of single-row transactions; each
           transaction has a start time that is fixed in advance; under the same
           load also the floor: walhook's reader hands each change, rendered and
           signed, straight to walhook's HTTP client, and nothing is stored
  trouble  the same for the healthy ones of many endpoints, without and with
           others that hang or refuse connections
  fan-out  each event to several endpoints of its account

Long measures, which run when you name them, or with --long:

  scale    a publisher and several senders, each a process of its own, and the
           outbox on a PostgreSQL of its own: a backlog, and a fixed rate
  edits    latency without and with edits of many other accounts' webhooks
  idle     memory and CPU of many endpoints that get nothing
  memory   the peak during many changes, and during one large transaction
  waiting  cost of a delivery with few and with many events in the outbox
  aged     cost of a delivery before and after many events, and after retention

Figures are medians of the repetitions, with minimum and maximum. A delivery
that is lost or wrong is an error.`

// benchHelper is the hidden command that runs the benchmark's helper processes.
const benchHelper = "bench-helper"

func newBenchCommand() *cobra.Command {
	o := bench.Defaults()
	var asJSON, long bool
	cmd := &cobra.Command{
		Use:   "bench [measure…]",
		Short: "Measure throughput, latency and cost on this machine",
		Long:  benchLong,
		Example: `  walhook bench
  walhook bench drain --changes 200000 --json
  walhook bench drain --batch 100 --accounts 100`,
		Args:      cobra.OnlyValidArgs,
		ValidArgs: bench.Measures(),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				o.Measures = args
			case long:
				o.Measures = bench.Measures()
			}
			return runBench(cmd.Context(), o, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print only the report, as JSON, on standard output")
	flags.BoolVar(&long, "long", false, "run the long measures too")
	flags.IntVar(&o.Repetitions, "repetitions", o.Repetitions, "repetitions of each measure")
	flags.IntVar(&o.Changes, "changes", o.Changes, "number of changes of drain and bulk")
	flags.IntVar(&o.Accounts, "accounts", o.Accounts, "number of accounts with changes")
	flags.IntVar(&o.Receivers, "receivers", o.Receivers, "number of addresses of the accounts' endpoints")
	flags.IntVar(&o.Concurrency, "concurrency", o.Concurrency, "concurrent plain POSTs")
	flags.IntVar(&o.Batch, "batch", o.Batch, "drain also measures batches of up to this number of events, 1 to 100, against the same events one by one; 0: no")
	flags.Float64SliceVar(&o.Rates, "rates", o.Rates, "rates of latency, transactions per second, comma separated")
	flags.DurationVar(&o.Length, "length", o.Length, "duration of each rate")
	flags.IntVar(&o.Endpoints, "endpoints", o.Endpoints, "endpoints of trouble")
	flags.IntVar(&o.Hanging, "hanging", o.Hanging, "percentage of them that hang")
	flags.IntVar(&o.Refusing, "refusing", o.Refusing, "percentage of them that refuse connections")
	flags.Float64Var(&o.TroubleRate, "trouble-rate", o.TroubleRate, "transactions per second of trouble")
	flags.DurationVar(&o.TroubleLength, "trouble-length", o.TroubleLength, "duration of trouble, and of calm before it")
	flags.IntSliceVar(&o.FanOut, "fan-out", o.FanOut, "endpoints per account of fan-out, comma separated")
	flags.IntVar(&o.FanOutDeliveries, "fan-out-deliveries", o.FanOutDeliveries, "deliveries of fan-out")
	flags.IntSliceVar(&o.Senders, "senders", o.Senders, "sender processes of scale, comma separated")
	flags.IntVar(&o.ScaleChanges, "scale-changes", o.ScaleChanges, "number of changes of scale's backlog")
	flags.Float64Var(&o.ScaleRate, "scale-rate", o.ScaleRate, "transactions per second of scale")
	flags.DurationVar(&o.ScaleLength, "scale-length", o.ScaleLength, "duration of scale at that rate")
	flags.IntVar(&o.EditWebhooks, "edit-webhooks", o.EditWebhooks, "webhooks of edits")
	flags.Float64Var(&o.Edits, "edits", o.Edits, "edits per second of edits")
	flags.Float64Var(&o.EditRate, "edit-rate", o.EditRate, "transactions per second of edits")
	flags.IntVar(&o.IdleEndpoints, "idle-endpoints", o.IdleEndpoints, "endpoints of idle")
	flags.DurationVar(&o.IdleLength, "idle-length", o.IdleLength, "duration of idle's measurement")
	flags.DurationVar(&o.IdleSettle, "idle-settle", o.IdleSettle, "pause of idle before it measures again")
	flags.IntVar(&o.MemoryChanges, "memory-changes", o.MemoryChanges, "single-row transactions of memory")
	flags.IntVar(&o.MemoryRows, "memory-rows", o.MemoryRows, "rows of memory's one transaction")
	flags.IntSliceVar(&o.Waiting, "waiting", o.Waiting, "events in the outbox of waiting, comma separated")
	flags.IntVar(&o.Age, "age", o.Age, "events of aged")
	flags.StringVar(&o.PGBin, "pg-bin", "", "directory of the PostgreSQL programs (initdb, postgres); by default walhook searches for them")
	return cmd
}

func runBench(ctx context.Context, o bench.Options, asJSON bool, out, errOut io.Writer) error {
	if err := o.Validate(); err != nil {
		return usage(err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	o.Walhook = bench.Program{Path: self, Helper: []string{benchHelper}}
	o.Version = readBuild().version
	o.Step = func(message string) { fmt.Fprintln(errOut, "·", message) }
	report, err := bench.Run(ctx, o)
	if err != nil {
		return interrupted(ctx, err)
	}
	if asJSON {
		return report.WriteJSON(out)
	}
	return report.Write(out)
}

func newBenchHelperCommand() *cobra.Command {
	return &cobra.Command{
		Use:   benchHelper + " name",
		Short: "A helper process of 'walhook bench'",
		Long: strings.TrimSpace(`
A helper process that 'walhook bench' starts: it answers requests on
its standard input, in JSON, and has no use of its own.`),
		Example: "  walhook " + benchHelper + " receive",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Serve(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// interrupted drops the error of an end by a signal.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
