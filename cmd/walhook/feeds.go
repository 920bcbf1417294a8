package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"walhook/outbox/address"
	"walhook/outbox/admin"
	"walhook/sender/deliver"
)

const feedsLong = `Lists the operator's feeds. A feed gets the events of every account, also of those
without a URL, for your own systems: billing, CRM, analytics. No account sees a
feed. docs/FEEDS.md describes what a feed receives.

A feed is an endpoint like any other: order per record, retries, breaker, dead
letters and metrics are the same. 'walhook endpoints' lists it, too, and
'walhook replay --endpoint NUMBER' sends its events again.

It needs only the outbox: --outbox, or --source if they are one database.`

func newFeedsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "feeds",
		Short: "List, add, change and remove the operator's own feeds of every account's events",
		Long:  feedsLong,
		Example: `  walhook feeds --outbox postgres://walhook@db/walhook
  walhook feeds add billing --url https://billing.internal/hook --schemas dids,transactions
  walhook feeds add analytics --url nats://nats-1.internal:4222,nats-2.internal:4222
  walhook feeds show billing
  walhook feeds disable billing --reason "billing is being moved"
  walhook feeds remove billing`,
		Args: cobra.NoArgs,
		RunE: withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, _ []string) error {
			feeds, err := a.Feeds(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return writeFeedsJSON(out, feeds)
			}
			return writeFeeds(out, feeds)
		}),
	}
	addSettings(cmd, "source", "outbox", "secret-key")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.AddCommand(newFeedsAddCommand(), newFeedsShowCommand(), newFeedsChangeCommand(), newFeedsRemoveCommand(), newFeedsEnableCommand(), newFeedsDisableCommand(), newFeedsSecretCommand())
	return cmd
}

// feedFlags are what is set of a feed.
type feedFlags struct{ url, prefix, hook, schemas, types string }

func (f *feedFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "url", "", "`URL` that gets the events: https://… or http://…; or servers of NATS, nats://host:4222 or tls://host:4222, further ones after commas")
	flags.StringVar(&f.prefix, "prefix", deliver.DefaultPrefix, "what the subjects of a feed over NATS begin with: `name`.account.schema.type")
	flags.StringVar(&f.hook, "hook", admin.HookRecords, "`events` that the feed gets: records, or all, which is records and every other event")
	flags.StringVar(&f.schemas, "schemas", "", "only records of these `schemas`, comma separated, or all (default all)")
	flags.StringVar(&f.types, "types", "", "only these `types` of changes, comma separated: insert, update, delete, or all (default all)")
}

// feedFlagNames are the flags that add sets.
func feedFlagNames() []string { return []string{"url", "prefix", "hook", "schemas", "types"} }

// set changes what the command line gives.
func (f *feedFlags) set(flags *pflag.FlagSet, w *admin.Webhook) (err error) {
	if flags.Changed("url") {
		w.URL = f.url
	}
	switch {
	case flags.Changed("prefix"), address.IsServers(w.URL) && w.SubjectPrefix == "":
		w.SubjectPrefix = f.prefix
	case !address.IsServers(w.URL):
		w.SubjectPrefix = ""
	}
	if flags.Changed("hook") || w.Hook == "" {
		w.Hook = f.hook
	}
	if flags.Changed("schemas") {
		if w.Schemas, err = filterOf(f.schemas); err != nil {
			return fmt.Errorf("--schemas %w", err)
		}
	}
	if flags.Changed("types") {
		if w.Types, err = filterOf(f.types); err != nil {
			return fmt.Errorf("--types %w", err)
		}
	}
	return nil
}

// filterOf is a list; "all" passes everything.
func filterOf(text string) ([]string, error) {
	if text == "all" {
		return nil, nil
	}
	return list(text)
}

func newFeedsAddCommand() *cobra.Command {
	var f feedFlags
	cmd := &cobra.Command{
		Use:   "add <name>",
		Short: "Add a feed",
		Long: `Adds a feed, which gets the events that are committed from then on. The name is for
you; the other commands take it.

You name the URL, so it may be in a private network: --allow-cidr and --allow-ports
are for accounts' URLs. --deny-cidr applies to feeds, too.

A feed over NATS publishes to JetStream. 'walhook doctor' says whether a stream
takes its subjects, and prints the command that makes one. Senders sign in with
the file of --nats-credentials; the URL holds no secret. Two feeds need two
streams: one stream would store an event of both for only one of them. What would
publish the same on the same subjects is refused.

If secrets are encrypted at rest, --secret-key must be the senders' key.`,
		Example: `  walhook feeds add billing --url https://billing.internal/hook
  walhook feeds add analytics --url tls://nats-1.internal:4222 --prefix carrier.walhook
  walhook feeds add crm --url https://crm.internal/in --schemas dids,sub_users --types insert,delete`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w := admin.Webhook{Name: args[0]}
		if err := f.set(cmd.Flags(), &w); err != nil {
			return usage(err)
		}
		if err := admin.CheckFeed(&w); err != nil {
			return usage(err)
		}
		return withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, _ []string) error {
			if err := a.CheckKey(ctx); err != nil {
				return err
			}
			added, err := a.AddFeed(ctx, w)
			if wrong, is := errors.AsType[*admin.FeedFault](err); is {
				return usage(wrong)
			}
			if err == nil {
				err = warnFeed(ctx, a, &added, cmd.ErrOrStderr())
			}
			if err == nil {
				_, err = fmt.Fprintln(out, printable(fmt.Sprintf("feed %s gets every account's events from now on, at %s (endpoint %d)", added.Name, address.Redact(added.URL), added.Endpoint)))
			}
			return err
		})(cmd, args)
	}
	addSettings(cmd, "source", "outbox", "secret-key")
	f.add(cmd.Flags())
	return cmd
}

func newFeedsChangeCommand() *cobra.Command {
	var f feedFlags
	cmd := &cobra.Command{
		Use:   "change <name>",
		Short: "Change a feed's URL or filters",
		Long: `Changes what the flags name, and leaves everything else as it is. What is not
delivered yet goes to a new URL; attempts in flight finish at the old one. A new
filter counts for what is committed from then on.`,
		Example: `  walhook feeds change billing --url https://billing-2.internal/hook
  walhook feeds change billing --schemas all`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.ContainsFunc(feedFlagNames(), cmd.Flags().Changed) {
			return usage(errors.New("nothing to change: set one or more of --" + strings.Join(feedFlagNames(), ", --")))
		}
		if err := f.set(cmd.Flags(), &admin.Webhook{}); err != nil {
			return usage(err)
		}
		return withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			if err := a.CheckKey(ctx); err != nil {
				return err
			}
			w, err := a.ChangeFeed(ctx, args[0], func(w *admin.Webhook) error { return f.set(cmd.Flags(), w) })
			if wrong, is := errors.AsType[*admin.FeedFault](err); is {
				return usage(wrong)
			}
			if err == nil {
				err = warnFeed(ctx, a, &w, cmd.ErrOrStderr())
			}
			if err == nil {
				_, err = fmt.Fprintln(out, printable(fmt.Sprintf("feed %s is changed: it gets its events at %s", w.Name, address.Redact(w.URL))))
			}
			return err
		})(cmd, args)
	}
	addSettings(cmd, "source", "outbox", "secret-key")
	f.add(cmd.Flags())
	return cmd
}

// warnFeed warns of schemas that the catalog in force does not have, and of feeds that may
// be in one stream with this one.
func warnFeed(ctx context.Context, a *admin.Admin, w *admin.Webhook, warnings io.Writer) error {
	unknown, err := a.UnknownSchemas(ctx, w)
	for _, one := range unknown {
		fmt.Fprintln(warnings, "walhook: --schemas:", printable(one.Error())+"; it matches only async results of that name")
	}
	if err != nil {
		return err
	}
	feeds, err := a.Feeds(ctx)
	for _, one := range admin.StreamWarnings(w, feeds) {
		fmt.Fprintln(warnings, "walhook: warning:", printable(one))
	}
	return err
}

func newFeedsShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show <name>",
		Short: "Show a feed and how its delivery stands",
		Long: `Shows what a feed gets, where, and how its delivery stands: state, lane, the last
reason, what is in retry, and the dead letters.`,
		Example: "  walhook feeds show billing --outbox postgres://walhook@db/walhook",
		Args:    cobra.ExactArgs(1),
		RunE: withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			feed, err := a.FeedNamed(ctx, args[0])
			switch {
			case err != nil:
				return err
			case asJSON:
				return writeJSON(out, feedLine(&feed))
			}
			return writeFeed(out, &feed)
		}),
	}
	addSettings(cmd, "source", "outbox", "secret-key")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func newFeedsRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove <name>",
		Short: "Remove a feed",
		Long: `Ends a feed. walhook does not send what it has not delivered, and keeps it as
expired until retention ends. To interrupt a feed, use 'walhook feeds disable'.`,
		Example: "  walhook feeds remove billing --outbox postgres://walhook@db/walhook",
		Args:    cobra.ExactArgs(1),
		RunE: withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			err := a.RemoveFeed(ctx, args[0])
			if err == nil {
				_, err = fmt.Fprintln(out, printable(fmt.Sprintf("feed %s is removed", args[0])))
			}
			return err
		}),
	}
	addSettings(cmd, "source", "outbox")
	return cmd
}

func newFeedsEnableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enable <name>",
		Short: "Send to a disabled feed again",
		Long: `Makes a disabled feed active again. walhook first sends what was held, in order;
breaker and retries start fresh. A running sender notices within seconds.`,
		Example: "  walhook feeds enable billing --outbox postgres://walhook@db/walhook",
		Args:    cobra.ExactArgs(1),
		RunE: withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			e, err := a.EnableFeed(ctx, args[0])
			if err == nil {
				_, err = fmt.Fprintln(out, printable(fmt.Sprintf("feed %s is %s", args[0], e.State)))
			}
			return err
		}),
	}
	addSettings(cmd, "source", "outbox")
	return cmd
}

func newFeedsDisableCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "disable <name>",
		Short: "Hold a feed's events",
		Long: `Stops sending to a feed. walhook holds its events until 'walhook feeds enable', or
until retention ends. A running sender notices within seconds; attempts in flight
finish.`,
		Example: `  walhook feeds disable billing --reason "billing is being moved"`,
		Args:    cobra.ExactArgs(1),
		RunE: withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			e, err := a.DisableFeed(ctx, args[0], reason)
			if err == nil {
				_, err = fmt.Fprintln(out, printable(fmt.Sprintf("feed %s is disabled: walhook holds its events (%s)", args[0], e.Reason)))
			}
			return err
		}),
	}
	addSettings(cmd, "source", "outbox")
	cmd.Flags().StringVar(&reason, "reason", "disabled by an operator", "why, a `text` for people")
	return cmd
}

func newFeedsSecretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret <name>",
		Short: "Print a feed's signing secret",
		Long: `Prints the whsec_ secret that signs what a feed over HTTP receives. If secrets are
encrypted at rest, --secret-key must be the key that encrypted them.`,
		Example: "  walhook feeds secret billing --outbox postgres://walhook@db/walhook",
		Args:    cobra.ExactArgs(1),
		RunE: withFeeds(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			secrets, err := a.FeedSecrets(ctx, args[0])
			for _, secret := range secrets {
				fmt.Fprintln(out, printable(secret))
			}
			return err
		}),
	}
	addSettings(cmd, "source", "outbox", "secret-key")
	return cmd
}

// withFeeds is [withOutbox], and says where feeds are listed.
func withFeeds(f func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error) func(*cobra.Command, []string) error {
	run := withOutbox(f)
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		switch {
		case errors.Is(err, admin.ErrNoFeed):
			return fmt.Errorf("%w; 'walhook feeds' lists them", err)
		case errors.Is(err, admin.ErrFeedExists):
			return fmt.Errorf("%w: choose another name, or use 'walhook feeds change'", err)
		}
		return err
	}
}
