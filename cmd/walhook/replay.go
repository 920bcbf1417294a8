package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"walhook/doctor"
	"walhook/outbox/admin"
)

const replayLong = `Sends delivered and dead-lettered events again: those of an account or of one
endpoint, since a time or with given ids. --id alone finds the endpoints that got
the event. Events keep their webhook-id, and those of one record keep their
order. walhook does not send an event twice that still waits. A replayed dead
letter is no longer a dead letter.

The command only places a request. The publisher sends the events, at --rate, and
resumes after a restart. The command shows the progress until the end. You may
interrupt it at any moment; with --detach it does not wait.

--cancel ends a replay by the number that the command printed. What the publisher
has appended by then is delivered; the other events stay as they were.

It needs only the outbox: --outbox, or --source if they are one database.`

// replayFlags are the flags of replay.
type replayFlags struct {
	account, webhook, since string
	endpoint, cancel        int64
	ids                     idList
	rate                    float64
	dryRun, detach          bool
}

func newReplayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send events again: since a time, or with given ids",
		Long:  replayLong,
		Example: `  walhook replay --account 7 --since 2h --dry-run
  walhook replay --account 7 --since 2026-03-09T00:00:00Z --rate 50
  walhook replay --account 7 --webhook 51840ffc8bde832a1f5477def32cd665 --since 24h
  walhook replay --id evt_0000000001A2B3C4_7
  walhook replay --cancel 42`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("endpoint") && f.endpoint <= 0 {
			return usage(fmt.Errorf("--endpoint %d: want the number of an endpoint; 'walhook endpoints' lists them", f.endpoint))
		}
		if cmd.Flags().Changed("cancel") {
			if err := f.checkCancel(cmd.Flags()); err != nil {
				return usage(err)
			}
			return withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, _ []string) error {
				return cancelReplay(ctx, a, f.cancel, out)
			})(cmd, args)
		}
		since, err := f.check(time.Now())
		if err != nil {
			return usage(err)
		}
		return withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, _ []string) error {
			endpoints, err := f.endpoints(ctx, a)
			if err != nil {
				return err
			}
			return f.replay(ctx, a, endpoints, since, out, cmd.ErrOrStderr())
		})(cmd, args)
	}
	addSettings(cmd, "source", "outbox")
	flags := cmd.Flags()
	flags.StringVar(&f.account, "account", "", "`account` whose events are sent again, to all of its webhooks")
	flags.StringVar(&f.webhook, "webhook", "", "with --account, the one webhook with this `id`; 'account' is the account's own URL")
	flags.Int64Var(&f.endpoint, "endpoint", 0, "`number` of one endpoint, as in log lines")
	flags.StringVar(&f.since, "since", "", "`time` since which events are sent again: 2026-03-09T00:00:00Z, or an age: 2h")
	flags.Var(&f.ids, "id", "`webhook-id` of an event to send again; repeatable")
	flags.Float64Var(&f.rate, "rate", 100, "`events` per second at most, to each endpoint")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only count the events")
	flags.BoolVar(&f.detach, "detach", false, "do not wait until the events are sent")
	flags.Int64Var(&f.cancel, "cancel", 0, "end the replay with this `number`")
	return cmd
}

// checkCancel refuses what has no meaning for --cancel.
func (f *replayFlags) checkCancel(flags *pflag.FlagSet) error {
	for _, name := range []string{"account", "webhook", "endpoint", "since", "id", "rate", "dry-run", "detach"} {
		if flags.Changed(name) {
			return fmt.Errorf("--cancel and --%s exclude each other", name)
		}
	}
	if f.cancel <= 0 {
		return fmt.Errorf("--cancel %d: want the number of a replay; 'walhook audit' lists it as request", f.cancel)
	}
	return nil
}

func cancelReplay(ctx context.Context, a *admin.Admin, id int64, out io.Writer) error {
	r, err := a.Request(ctx, id)
	var cancelled bool
	if err == nil {
		r, cancelled, err = a.CancelRequest(ctx, admin.Caller{}, r.Endpoint, id)
	}
	if err != nil {
		return err
	}
	if !cancelled {
		return fmt.Errorf("replay %d was over already: %s sent again", id, doctor.Count(int(r.Sent), "event"))
	}
	_, err = fmt.Fprintf(out, "replay %d is cancelled: %s sent again, of %d that were counted\n", id, doctor.Count(int(r.Sent), "event"), r.Total)
	return err
}

// idList is the value of --id: every use adds ids, comma separated.
type idList []string

func (l *idList) String() string { return strings.Join(*l, ",") }
func (l *idList) Type() string   { return "ids" }

func (l *idList) Set(text string) error {
	ids, err := list(text)
	if err == nil && len(ids) == 0 {
		err = errors.New("empty") // flagError says what to do
	}
	*l = append(*l, ids...)
	return err
}

// check validates the flags and returns the time of --since.
func (f *replayFlags) check(now time.Time) (since time.Time, err error) {
	switch {
	case f.account == "" && f.endpoint == 0 && len(f.ids) == 0:
		return since, errors.New("whose events? set --account, --endpoint or --id")
	case f.account != "" && f.endpoint != 0:
		return since, errors.New("--account and --endpoint exclude each other")
	case f.webhook != "" && f.account == "":
		return since, errors.New("--webhook needs --account")
	case (f.since == "") == (len(f.ids) == 0):
		return since, errors.New("which events? set either --since or --id")
	}
	if f.since != "" {
		if since, err = time.Parse(time.RFC3339, f.since); err != nil {
			ago, err := parseDuration(f.since)
			if err != nil {
				return since, fmt.Errorf("--since %q: want a time such as 2026-03-09T00:00:00Z, or an age such as 2h", f.since)
			}
			since = now.Add(-ago)
		}
	}
	return since, admin.Request{Since: since, WebhookIDs: f.ids, Rate: f.rate}.Validate()
}

// endpoints returns the endpoints that the flags select, each with a name for people.
func (f *replayFlags) endpoints(ctx context.Context, a *admin.Admin) (found map[int64]string, err error) {
	found = map[int64]string{}
	if f.account == "" {
		ids := []int64{f.endpoint}
		if f.endpoint == 0 {
			if ids, err = a.EndpointsOf(ctx, f.ids); err != nil {
				return nil, err
			}
		}
		for _, id := range ids {
			found[id] = fmt.Sprintf("endpoint %d", id)
		}
	}
	for after := int64(0); f.account != ""; {
		list, err := a.Webhooks(ctx, f.account, after, 100)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if w := &list[i]; f.webhook == "" && w.URL != "" || f.webhook == w.ID {
				found[w.Endpoint] = fmt.Sprintf("account %s, webhook %s", w.Account, w.ID)
			}
			after = list[i].Endpoint
		}
		if len(list) < 100 {
			break
		}
	}
	if len(found) == 0 && f.webhook != "" {
		if w, err := a.KeptWebhook(ctx, f.account, f.webhook); err == nil && w.Deleted {
			return nil, admin.ErrWebhookDeleted
		}
	}
	if len(found) == 0 {
		return nil, admin.ErrNoEndpoint
	}
	return found, nil
}

func (f *replayFlags) replay(ctx context.Context, a *admin.Admin, endpoints map[int64]string, since time.Time, out, terminal io.Writer) error {
	var open []admin.Request
	total := int64(0)
	for id, name := range endpoints {
		r := admin.Request{Endpoint: id, Since: since, WebhookIDs: f.ids, Rate: f.rate}
		var err error
		atLeast := ""
		if f.dryRun {
			var counted admin.ReplayCount
			if counted, err = a.CountReplay(ctx, r); counted.More {
				atLeast = "at least "
			}
			r.Total = counted.Total
		} else if r, err = a.CreateRequest(ctx, r, admin.Once{}, nil); err == nil {
			open = append(open, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		total += r.Total
		number := ""
		if r.ID > 0 {
			number = fmt.Sprintf(" (replay %d)", r.ID)
		}
		fmt.Fprintln(out, printable(fmt.Sprintf("%s: %s%s to send again%s", name, atLeast, doctor.Count(int(r.Total), "event"), number)))
	}
	if f.dryRun || f.detach {
		return nil
	}
	return watchReplay(ctx, a, open, total, out, terminal)
}

// replayLook is how often the command reads the progress.
const replayLook = 300 * time.Millisecond

// watchReplay shows the progress of requests until all are done. The publisher
// continues when the command ends early.
func watchReplay(ctx context.Context, a *admin.Admin, open []admin.Request, total int64, out, terminal io.Writer) error {
	progress := newProgress(terminal, "sent again", total)
	defer progress.close()
	for {
		sent, left := int64(0), 0
		for i := range open {
			r, err := a.Request(ctx, open[i].ID)
			if err != nil {
				if ctx.Err() != nil {
					break
				}
				return err
			}
			open[i] = r
			sent += r.Sent
			if r.DoneAt.IsZero() {
				left++
			}
		}
		progress.at(sent, total)
		if left == 0 && ctx.Err() == nil {
			progress.close()
			for _, r := range open {
				if r.Reason != "" {
					return fmt.Errorf("endpoint %d: %s", r.Endpoint, r.Reason)
				}
			}
			_, err := fmt.Fprintf(out, "events sent again: %d\n", sent)
			return err
		}
		select {
		case <-ctx.Done():
			progress.close()
			_, err := fmt.Fprintln(out, "the publisher continues; walhook replay --cancel NUMBER ends a replay")
			return err
		case <-time.After(replayLook):
		}
	}
}
