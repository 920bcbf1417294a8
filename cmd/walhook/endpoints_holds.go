package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"walhook/outbox/admin"
)

// holdJSON is one line of endpoints holds --json.
type holdJSON struct {
	Account string    `json:"account"`
	Host    string    `json:"host"` // "" stands for every host
	Reason  string    `json:"reason"`
	HeldAt  time.Time `json:"held_at"`
}

func newEndpointsHoldsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "holds [account]",
		Short: "List the holds of operators",
		Long: `Lists the holds of all accounts, or of one: account, host (* is every host),
time and reason. 'walhook endpoints disable' creates them, by a webhook, --host
or --all, and so does the API with the operator's token. 'walhook endpoints
enable' ends them. A hold outlives the webhook that it was created for, and its
account: a later account with the same id is held too.`,
		Example: `  walhook endpoints holds --outbox postgres://walhook@db/walhook
  walhook endpoints holds 7 --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			account := ""
			if len(args) > 0 {
				account = args[0]
			}
			holds, err := allHolds(ctx, a, account)
			if err != nil {
				return err
			}
			if asJSON {
				lines := make([]holdJSON, len(holds))
				for i, h := range holds {
					lines[i] = holdJSON{h.Account, h.Host, h.Reason, h.HeldAt.UTC()}
				}
				return writeJSON(out, lines)
			}
			return writeHolds(out, holds)
		}),
	}
	addSettings(cmd, "source", "outbox")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// allHolds reads page after page.
func allHolds(ctx context.Context, a *admin.Admin, account string) (holds []admin.Hold, err error) {
	const page = 1000
	for after := (admin.Hold{}); ; after = holds[len(holds)-1] {
		more, err := a.Holds(ctx, account, after, page)
		if err != nil {
			return nil, err
		}
		if holds = append(holds, more...); len(more) < page {
			return holds, nil
		}
	}
}

func writeHolds(out io.Writer, holds []admin.Hold) error {
	if len(holds) == 0 {
		_, err := fmt.Fprintln(out, "no holds")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ACCOUNT\tHOST\tSINCE\tREASON")
	for _, h := range holds {
		host := h.Host
		if host == "" {
			host = "*"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", cell(h.Account), cell(host), h.HeldAt.UTC().Format(time.RFC3339), printable(h.Reason))
	}
	return table.Flush()
}

// warnUnknown warns if the source does not have the account of a change, which it may
// get later. It returns err, the error of the change.
func warnUnknown(ctx context.Context, a *admin.Admin, out io.Writer, account string, err error) error {
	if err != nil {
		return err
	}
	unknown, err := a.IsUnknown(ctx, account)
	if unknown {
		_, err = fmt.Fprintln(out, printable(fmt.Sprintf("warning: account %s is not in the source: check the id; the hold takes effect once an account with that id exists", account)))
	}
	return err
}
