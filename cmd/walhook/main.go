// Command walhook sends each account of a carrier a signed webhook for every committed
// change of the account's own records.
//
//	walhook run:  cdc.Reader ──▶ outbox.Publisher ──▶ event log ──▶ sender.Sender ──▶ receivers
//	                                    ▲                               │
//	              api ──────────────────┴────────── outbox ◀────────────┘
//
// # What is where
//
// Each command has a file of its own: run.go, setup.go, doctor.go, status.go,
// endpoints.go and so on. service.go joins the packages for `walhook run` and `walhook
// demo`. setting.go has one table of all settings; only this package reads flags, the
// environment and files. screen.go shows what changes in one place of a terminal, and
// screen_guard.go restores the terminal however the process ends.
//
// # How a service starts and stops
//
//	waiting ── outbox answers ─▶ checked or prepared ─▶ running ── signal, error ─▶ draining ─▶ exit
//
// A service answers /healthz from the first moment. It waits for an outbox that does not
// answer yet. Then it starts the parts of its --role in one errgroup; the first error
// ends all. After a signal it starts no new attempt, settles the running ones and
// releases its shards. A second signal ends it at once.
//
// # Exit status
//
// 0 is success or an end by a signal, 1 an error, 2 wrong usage or configuration, and 3
// a source that cannot be continued without a gap.
//
// # What it does not do
//
// It decides nothing about changes, events or deliveries; the packages do.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"walhook/cdc/source"
)

// The exit statuses (docs/CONTRACT.md §5).
const (
	exitOK    = 0 // success, or a signal
	exitFault = 1
	exitUsage = 2 // wrong usage or configuration
	exitGap   = 3 // the source cannot be continued without a gap
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := newRootCommand()
	root.SetOut(newTerminal(os.Stdout))
	root.SetErr(newTerminal(os.Stderr))
	err := root.ExecuteContext(ctx)
	status := exitStatus(ctx, err)
	if status != exitOK {
		fmt.Fprintln(newTerminal(os.Stderr), "walhook:", err)
	}
	os.Exit(status)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "walhook",
		Short: "Webhooks from PostgreSQL's write-ahead log",
		Long: `walhook tails the write-ahead log of a carrier's PostgreSQL, turns each
committed row change into an event for the account that owns the row, stores it
in an outbox, and sends it as a signed POST to that account's web_hook_url.

See it work, with nothing to prepare:

  walhook demo

Run it on a real database:

  walhook setup --source postgres://user@host/database
  walhook run   --source postgres://user@host/database

Each setting is a flag, an environment variable (--allow-cidr is
WALHOOK_ALLOW_CIDR) or a key of the YAML file that --config names. A flag
overrides the environment, and the environment overrides the file.

The exit status is 0 for success or a signal, 1 for an error, 2 for wrong usage
or configuration, and 3 when walhook cannot continue the source without a gap.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.Version = readBuild().String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.PersistentPreRunE = refuseEmpty
	root.AddCommand(newDemoCommand(), newInitCommand(), newSetupCommand(), newTeardownCommand(), newDoctorCommand(), newRunCommand(), newStatusCommand(),
		newListenCommand(), newEndpointsCommand(), newFeedsCommand(), newCatalogCommand(), newSchemasCommand(), newReplayCommand(), newResyncCommand(), newPortalCommand(), newAuditCommand(), newMonitoringCommand(), newBenchCommand(),
		newBenchHelperCommand(), newReasonsCommand(), newManCommand(), newVersionCommand())
	checkArgs(root)
	return root
}

// exitStatus returns the exit status for err. An end by a signal is a success.
func exitStatus(ctx context.Context, err error) int {
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitOK
	}
	if _, ok := errors.AsType[*source.GapError](err); ok {
		return exitGap
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFault
}
