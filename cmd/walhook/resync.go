package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"walhook/doctor"
	"walhook/outbox/admin"
)

const resyncLong = `Sends the present state of an account's records again, as update events: to each of
its webhooks that gets records, or with --webhook to one; with --schema of one
schema. It is for a receiver that starts empty, or that has lost its own data.

Everything keeps changing meanwhile. A receiver that applies the events of a
record in the order of their arrival ends with the present state, and no record
goes back. A record that changes meanwhile is sent by its change alone. Last comes
one event with the schema resync.

The command only places a request, one for each webhook. The publisher works it
off, and resumes after a restart. --wait shows the progress until the end; you may
interrupt it at any moment. --dry-run counts the records that the outbox knows.

It needs only the outbox: --outbox, or --source if they are one database.`

// resyncFlags are the flags of resync.
type resyncFlags struct {
	webhook, schema string
	dryRun, wait    bool
}

func newResyncCommand() *cobra.Command {
	var f resyncFlags
	cmd := &cobra.Command{
		Use:   "resync <account>",
		Short: "Send the present state of an account's records again",
		Long:  resyncLong,
		Example: `  walhook resync 7 --dry-run
  walhook resync 7 --wait
  walhook resync 7 --webhook 51840ffc8bde832a1f5477def32cd665 --schema dids`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.dryRun && f.wait {
			return usage(errors.New("--dry-run and --wait exclude each other: a dry run sends nothing"))
		}
		return withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			return f.resync(ctx, a, args[0], out, cmd.ErrOrStderr())
		})(cmd, args)
	}
	addSettings(cmd, "source", "outbox")
	flags := cmd.Flags()
	flags.StringVar(&f.webhook, "webhook", "", "only the webhook with this `id`; 'account' is the account's own URL")
	flags.StringVar(&f.schema, "schema", "", "only records of this `schema`")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only count the records")
	flags.BoolVar(&f.wait, "wait", false, "show the progress until all is sent")
	return cmd
}

// webhooks returns the webhooks that the flags select. Without --webhook it leaves out
// those that get no such records.
func (f *resyncFlags) webhooks(ctx context.Context, a *admin.Admin, account string) (list []admin.Webhook, err error) {
	if f.webhook != "" {
		w, err := a.KeptWebhook(ctx, account, f.webhook)
		return []admin.Webhook{w}, err
	}
	var last error = fmt.Errorf("account %s has no URL and no webhook of records, or does not exist: there is nobody to send to, and nothing was asked for. "+
		"Set its URL in the account table, or make a webhook", account)
	for after := int64(0); ; {
		page, err := a.Webhooks(ctx, account, after, 100)
		if err != nil {
			return nil, err
		}
		for _, w := range page {
			after = w.Endpoint
			if w.URL == "" && w.Delivery != admin.DeliveryPull {
				continue
			}
			if fault := w.ResyncFault(f.schema, "update"); fault != nil {
				last = fmt.Errorf("webhook %s: %w", w.ID, fault)
			} else {
				list = append(list, w)
			}
		}
		if len(page) < 100 {
			break
		}
	}
	if len(list) == 0 {
		return nil, last
	}
	return list, nil
}

func (f *resyncFlags) resync(ctx context.Context, a *admin.Admin, account string, out, terminal io.Writer) error {
	webhooks, err := f.webhooks(ctx, a, account)
	if err != nil {
		return err
	}
	var open []admin.Resync
	for i := range webhooks {
		w, r := &webhooks[i], admin.Resync{Schema: f.schema}
		name := fmt.Sprintf("account %s, webhook %s", w.Account, w.ID)
		if f.dryRun {
			r.Total, err = a.CountResync(ctx, w, f.schema)
		} else if r, err = a.CreateResync(ctx, w, r, admin.Once{}, nil); err == nil {
			open = append(open, r)
		}
		if unknown, ok := errors.AsType[*admin.UnknownSchemaError](err); ok {
			return usage(unknown)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		what := fmt.Sprintf("request %d", r.ID)
		if f.dryRun {
			what = doctor.Count(int(r.Total), "record") + " to send"
		}
		fmt.Fprintln(out, printable(name+": "+what))
	}
	if !f.wait {
		return nil
	}
	return watchResyncs(ctx, a, open, out, terminal)
}

// watchResyncs shows the progress of resyncs until all are done. The publisher continues
// when the command ends early.
func watchResyncs(ctx context.Context, a *admin.Admin, open []admin.Resync, out, terminal io.Writer) error {
	progress := newProgress(terminal, "sent", 0)
	defer progress.close()
	for {
		sent, total, left := int64(0), int64(0), 0
		for i := range open {
			r, err := a.Resync(ctx, open[i].ID)
			if err != nil {
				if ctx.Err() != nil {
					break
				}
				return err
			}
			open[i] = r
			sent, total = sent+r.Sent, total+r.Total
			if r.DoneAt.IsZero() {
				left++
			}
		}
		progress.at(sent, total)
		if left == 0 && ctx.Err() == nil {
			progress.close()
			for _, r := range open {
				if r.Reason != "" {
					return fmt.Errorf("account %s, webhook %s: %s", r.Account, r.Webhook, r.Reason)
				}
			}
			_, err := fmt.Fprintf(out, "records sent: %d\n", sent)
			return err
		}
		select {
		case <-ctx.Done():
			progress.close()
			_, err := fmt.Fprintln(out, "the publisher continues the resync")
			return err
		case <-time.After(replayLook):
		}
	}
}
