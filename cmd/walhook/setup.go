package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/outbox"
	"walhook/outbox/admin"
)

const setupLong = `Prepares source and outbox. You may run it again at any time: it leaves alone
what is already there.

On the outbox it creates the schema walhook and its tables. On the source it
creates a publication of the catalog's tables, sets REPLICA IDENTITY FULL on each
of them, so that the WAL carries old rows (a warning if the role may not), and
creates the replication slot with an initial snapshot of accounts and owners.

The role needs REPLICATION, SELECT on the catalog's tables, and CREATE on the
outbox's database. The publication and the replica identity need ownership of the
tables: --dry-run prints that SQL for a DBA instead of running it.

Creating the slot waits for all transactions that run on the server.

A changed catalog takes effect at one position of the WAL, without a gap, also
while 'walhook run' publishes: what committed before is sent by the former
catalog, what comes after by the new one. Setup asks for it and waits until it is
in force. If rows have to be read, of a new table or for another owner, setup
waits for the transactions that run, and events wait while the rows are read.

A catalog whose account table or account.id gives other ids ends every account
that has no row with its id any more: its webhooks, secrets, tokens and
undelivered events, for good. Setup refuses that and says how many there are;
--accept-account-change adopts it nevertheless. A renamed table or column with the
same ids ends nothing.

After a gap --accept-gap starts over from a fresh snapshot. It compares that with
what the outbox knows and sends every endpoint what it missed, before anything
newer: new records as inserts, changed ones as updates, and deletes with the key
of those that are gone. Results and emitted events of the gap follow where their
rows are still there. States in between and logical messages are missed for good.
--no-reconcile leaves this out. The catalog in force counts for the gap; another
file takes effect after it, as any changed catalog. Where the source has no more
what the catalog in force says (a table or column has another name), the file
counts for the gap too.`

func newSetupCommand() *cobra.Command {
	var dryRun, acceptGap, noReconcile, acceptAccounts bool
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Prepare source and outbox: migrations, publication, slot, initial snapshot",
		Long:  setupLong,
		Example: `  walhook setup --source postgres://walhook@db/carrier
  walhook setup --source postgres://walhook@db/carrier --dry-run
  walhook setup --source postgres://walhook@db/carrier --accept-gap   # after exit code 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if dryRun && acceptGap {
				return usage(errors.New("--dry-run and --accept-gap exclude each other: the one changes nothing, the other starts over"))
			}
			if dryRun {
				return printPlan(cmd.Context(), s.cdcConfig(), cmd.OutOrStdout())
			}
			log := newLogger(s)
			store, err := outbox.Open(cmd.Context(), s.outboxConfig(), log, prometheus.NewRegistry())
			if err != nil {
				return usageError{err}
			}
			defer store.Close()
			over, detail := source.Refuse, ""
			switch {
			case acceptGap && noReconcile:
				over, detail = source.Forget, "--accept-gap --no-reconcile"
			case acceptGap:
				over, detail = source.Reconcile, "--accept-gap"
			case noReconcile:
				return usage(errors.New("--no-reconcile goes with --accept-gap"))
			}
			if acceptAccounts {
				detail = strings.TrimSpace(detail + " --" + acceptAccountChange)
			} else if err := checkAccounts(cmd.Context(), s.cdcConfig(), store); err != nil {
				return outboxFault(err)
			}
			asked, err := prepare(cmd.Context(), s.cdcConfig(), store, s.Outbox, over, log)
			if err == nil && asked {
				log.Info("the catalog has changed: the process that publishes adopts it at one position of the WAL, without a gap")
				err = adopt(cmd.Context(), s.cdcConfig(), store, log)
			}
			if err = recordAct(cmd.Context(), store, cmd.CommandPath(), admin.ActSetup, detail, err); err != nil {
				return outboxFault(err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "source and outbox are ready: start 'walhook run'")
			return err
		},
	}
	addSettings(cmd, "source", "outbox", "slot", "publication", "catalog", "secret-key", "log-level", "log-format")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the SQL that the source needs, for a DBA, and change nothing")
	cmd.Flags().BoolVar(&acceptGap, "accept-gap", false, "after a gap: start over from a fresh snapshot, and send every endpoint what it missed")
	cmd.Flags().BoolVar(&acceptAccounts, acceptAccountChange, false, acceptAccountChangeUsage)
	cmd.Flags().BoolVar(&noReconcile, "no-reconcile", false, "with --accept-gap: do not send what was missed")
	return cmd
}

// printPlan prints the SQL that a source still needs, without the slot, which walhook
// creates itself together with its snapshot. A line end in a name would end a comment, and
// what follows it would run: each line is printable text.
func printPlan(ctx context.Context, cfg source.Config, w io.Writer) error {
	plan, err := source.PlanSetup(ctx, cfg)
	if err != nil {
		return printAccess(ctx, cfg, w, err)
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintf(w, "-- warning: %s\n", printable(warning))
	}
	suggest := func() {
		for _, s := range plan.Suggestions {
			fmt.Fprintf(w, "-- suggestion: %s:\n-- %s;\n", printable(s.Why), sqlLine(s.SQL))
		}
	}
	if len(plan.Statements) == 0 {
		suggest()
		_, err := fmt.Fprintln(w, "-- the source needs only the slot, which 'walhook setup' creates")
		return err
	}
	// A superuser may run it whose search_path contains schemas of other users.
	if _, err := fmt.Fprintln(w, "SET search_path = pg_catalog, pg_temp;"); err != nil {
		return err
	}
	for _, s := range plan.Statements {
		note := "needs " + s.Needs
		if s.Optional {
			note += "; " + source.OptionalNote
		}
		if _, err := fmt.Fprintf(w, "%s; -- %s\n", sqlLine(s.SQL), printable(note)); err != nil {
			return err
		}
	}
	for _, s := range plan.Statements {
		if s.Undo != "" {
			fmt.Fprintf(w, "-- 'walhook teardown' undoes it, if setup ran it, with: %s\n", sqlLine(s.Undo))
		}
	}
	suggest()
	_, err = fmt.Fprintln(w, "-- then 'walhook setup' creates the slot with its snapshot")
	return err
}

// printAccess prints for psql what a source needs on which setup cannot even look at all
// tables: the role lacks rights, or the server has other settings. It returns fault where no
// statement of a DBA's helps.
func printAccess(ctx context.Context, cfg source.Config, w io.Writer, fault error) error {
	plan, err := source.PlanAccess(ctx, cfg, "")
	if err != nil || len(plan.Role)+len(plan.Settings)+len(plan.Rights) == 0 {
		return fault
	}
	var script dbaScript
	script.comment("%v", fault)
	for _, warning := range plan.Warnings {
		script.comment("warning: %s", warning)
	}
	script.begin()
	for _, steps := range []doctor.Steps{plan.Role, plan.Settings, plan.Rights, plan.Tables} {
		script.steps(steps)
	}
	for _, s := range plan.Suggestions {
		script.comment("suggestion: %s:", s.Why)
		script.advice(s.SQL)
	}
	script.comment("then 'walhook setup' creates the slot with its snapshot")
	_, err = script.WriteTo(w)
	return err
}
