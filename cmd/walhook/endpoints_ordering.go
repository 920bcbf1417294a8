package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"walhook/outbox"
	"walhook/outbox/admin"
)

func newEndpointsOrderingCommand() *cobra.Command {
	orderings := []string{string(outbox.OrderingNone), string(outbox.OrderingRecord), string(outbox.OrderingStrict)}
	cmd := &cobra.Command{
		Use:   "ordering <account> [none|record|strict]",
		Short: "Show or set which of an account's events wait for each other",
		Long: `Prints or sets which of an account's events wait for each other. The setting
belongs to the account: each of its webhooks has it, also one that is made
later, and each is in order by itself.

  record  the default: a failing event holds back the later events of its own
          record, and no others
  none    nothing waits: events of one record may overtake each other, and
          walhook sends at once what waited behind a failed event
  strict  all events in commit order, one at a time: a failing event holds back
          everything later, until it is delivered or a dead letter

A running sender notices within seconds; attempts in flight finish.`,
		Example: `  walhook endpoints ordering 7
  walhook endpoints ordering 7 strict --outbox postgres://walhook@db/walhook`,
		Args: cobra.RangeArgs(1, 2),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 && !slices.Contains(orderings, args[1]) {
			return usage(fmt.Errorf("ordering %q: want one of %s", args[1], strings.Join(orderings, ", ")))
		}
		return withOutbox(orderEndpoint)(cmd, args)
	}
	addSettings(cmd, "source", "outbox")
	return cmd
}

func orderEndpoint(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
	if len(args) == 1 {
		ordering, err := a.Ordering(ctx, args[0])
		if err == nil {
			_, err = fmt.Fprintln(out, ordering)
		}
		return err
	}
	set, err := a.SetOrdering(ctx, args[0], outbox.Ordering(args[1]))
	if err == nil {
		_, err = fmt.Fprintln(out, printable(fmt.Sprintf("account %s has ordering %s; webhooks: %d", set.Account, set.Ordering, set.Webhooks)))
	}
	return err
}
