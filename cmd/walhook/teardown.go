package main

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/outbox/admin"
)

const teardownLong = `Undoes what setup did to the source: drops the replication slot and the
publication, and restores the replica identities that setup or a running walhook
changed, unless somebody has changed them since. It first lists all of that;
--dry-run only lists it. A slot that nobody reads makes the source keep its WAL
until its disk is full: run this when you take walhook out of use.

With --outbox it drops the outbox too, with every event that is not delivered
yet: the configured one (the source's database unless set), or the one whose URL
follows. The outbox records which identities were changed. Teardown names what it
leaves, with the reason.`

// configured stands for --outbox without a value.
const configured = "configured"

func newTeardownCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "teardown",
		Short: "Drop the slot and the publication, and on request the outbox",
		Long:  teardownLong,
		Example: `  walhook teardown --source postgres://walhook@db/carrier
  walhook teardown --source postgres://walhook@db/carrier --outbox`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			outboxToo, err := takeOutboxFlag(cmd, args)
			if err != nil {
				return err
			}
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if err := tearDown(cmd, s, dryRun); err != nil || !outboxToo || dryRun {
				return err
			}
			if err := outbox.Drop(cmd.Context(), s.Outbox); err != nil {
				return outboxFault(err)
			}
			// The audit went with the outbox.
			newLogger(s).Info("audit", zap.String("action", admin.ActTeardown), zap.String("who", "operator, "+cmd.CommandPath()), zap.String("detail", "the outbox, too"))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "dropped the outbox")
			return err
		},
	}
	addSettings(cmd, "source", "outbox", "slot", "publication")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "list what teardown would undo and leave, and change nothing")
	flag := cmd.Flags().Lookup("outbox")
	flag.Usage = "drop the outbox too, with undelivered events; a `URL` overrides the configured outbox"
	flag.NoOptDefVal = configured
	return cmd
}

// tearDown undoes walhook's changes of the source. It drops the slot also when the
// outbox does not answer. Without the outbox it does not know which replica identities
// were changed.
func tearDown(cmd *cobra.Command, s settings, dryRun bool) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	store, err := outbox.Open(ctx, s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return usageError{err}
	}
	defer store.Close()
	changes, unknown := store.SourceChanges(ctx)
	stored, _ := store.Checkpoint(ctx) // without it, teardown finds the publication by its name
	plan, err := source.PlanTeardown(ctx, s.cdcConfig(), changes, stored.Source.PublicationOID)
	if err != nil {
		return err
	}
	for _, step := range plan.Steps {
		fmt.Fprintf(out, "to do: %s;\n", sqlLine(step.SQL))
	}
	for _, left := range plan.Left {
		fmt.Fprintln(out, "unchanged:", printable(left))
	}
	if unknown != nil {
		fmt.Fprintln(out, "unchanged: replica identities, because the outbox, which records the changed ones, does not answer:", printable(unknown.Error()))
	}
	if len(plan.Steps) == 0 {
		fmt.Fprintln(out, "nothing to undo on the source")
	}
	if dryRun {
		return nil
	}
	err = plan.Apply(ctx, store, func(step source.TeardownStep) {
		if step.What == step.SQL {
			fmt.Fprintln(out, "restored:", sqlLine(step.SQL))
		} else {
			fmt.Fprintln(out, "dropped", printable(step.What))
		}
	})
	if unknown != nil || store.CheckMigrated(ctx) != nil {
		return err // there is no audit to write into
	}
	return recordAct(ctx, store, cmd.CommandPath(), admin.ActTeardown, fmt.Sprintf("steps: %d", len(plan.Steps)), err)
}

// takeOutboxFlag reports whether --outbox was given. Its optional value is the outbox's
// URL, joined with "=" or as the next argument.
func takeOutboxFlag(cmd *cobra.Command, args []string) (bool, error) {
	flag := cmd.Flags().Lookup("outbox")
	given := flag.Changed
	if len(args) > 0 && (!given || flag.Value.String() != configured) {
		return false, usageError{fmt.Errorf("unknown argument %q", args[0])}
	}
	if !given || flag.Value.String() != configured {
		return given, nil
	}
	url := ""
	if len(args) > 0 {
		url = args[0]
	}
	flag.Changed = url != ""
	return true, flag.Value.Set(url)
}
