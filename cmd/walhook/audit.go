package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"walhook/outbox/admin"
)

// actJSON is one line of audit --json.
type actJSON struct {
	At        time.Time `json:"at"`
	Actor     string    `json:"actor"`
	Action    string    `json:"action"`
	Account   string    `json:"account,omitempty"`
	Webhook   string    `json:"webhook,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
	Detail    string    `json:"detail,omitempty"`
}

// maxActs bounds what one call prints.
const maxActs = 100_000

func newAuditCommand() *cobra.Command {
	var filter admin.ActFilter
	var since, until string
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List who changed what, and who read secrets",
		Long: `Lists who did what, the newest first: every change of every account, every read of
a secret and every test, by the API, the portal and the commands of walhook, setup
and teardown among them. 'teardown --outbox' drops the list too, and logs a line.
The list holds no secret, no body and no URL. It reaches back 90 days.`,
		Example: `  walhook audit --account 7 --outbox postgres://walhook@db/walhook
  walhook audit --action "secret read" --since 2026-03-01T00:00:00Z --json`,
		Args: cobra.NoArgs,
	}
	run := withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, _ []string) error {
		list, err := acts(ctx, a, filter, limit)
		if err != nil {
			return err
		}
		if asJSON {
			lines := make([]actJSON, len(list))
			for i, one := range list {
				lines[i] = actJSON{one.At.UTC(), one.Actor, one.Action, one.Account, one.Webhook, one.RequestID, one.Detail}
			}
			return writeJSON(out, lines)
		}
		return writeActs(out, list)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if limit < 1 || limit > maxActs {
			return usage(fmt.Errorf("--limit %d: want 1 to %d", limit, maxActs))
		}
		if filter.Action != "" && !slices.Contains(admin.Actions(), filter.Action) {
			return usage(fmt.Errorf("--action %q: want one of %q", filter.Action, admin.Actions()))
		}
		for _, one := range []struct {
			name, text string
			to         *time.Time
		}{{"since", since, &filter.Since}, {"until", until, &filter.Until}} {
			if one.text == "" {
				continue
			}
			if *one.to, err = time.Parse(time.RFC3339, one.text); err != nil {
				return usage(fmt.Errorf("--%s %q: want a time such as 2026-03-09T00:00:00Z", one.name, one.text))
			}
		}
		if !filter.Since.IsZero() && !filter.Until.IsZero() && !filter.Since.Before(filter.Until) {
			return usage(errors.New("--until is not after --since"))
		}
		return run(cmd, args)
	}
	addSettings(cmd, "source", "outbox")
	cmd.Flags().StringVar(&filter.Account, "account", "", "only what concerns this `account`")
	cmd.Flags().StringVar(&filter.Actor, "actor", "", "only what this `actor` did, as the list shows it")
	cmd.Flags().StringVar(&filter.Action, "action", "", "only this `action`, such as \"webhook edited\"")
	cmd.Flags().StringVar(&since, "since", "", "only at this `time` or later (RFC 3339)")
	cmd.Flags().StringVar(&until, "until", "", "only before this `time` (RFC 3339)")
	cmd.Flags().IntVar(&limit, "limit", 100, "list at most this `many`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// acts reads page after page.
func acts(ctx context.Context, a *admin.Admin, filter admin.ActFilter, limit int) (list []admin.Act, err error) {
	const page = 1000
	var before *admin.ActKey
	for len(list) < limit {
		next, err := a.Acts(ctx, filter, before, min(page, limit-len(list)))
		if err != nil {
			return nil, err
		}
		if list = append(list, next...); len(next) == 0 {
			break
		}
		before = new(next[len(next)-1].Key())
	}
	return list, nil
}

func writeActs(out io.Writer, list []admin.Act) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "nothing in the audit, as far as the filters select")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AT\tACTOR\tACTION\tACCOUNT\tWEBHOOK\tDETAIL")
	for _, one := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", one.At.UTC().Format(time.RFC3339), cell(one.Actor), one.Action, cell(one.Account), cell(one.Webhook), printable(one.Detail))
	}
	return table.Flush()
}
