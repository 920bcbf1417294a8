package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/admin"
)

const endpointsLong = `Lists the endpoints: account, webhook (account is the account's own URL, the API
made the others), URL (without user name, password and query), state and
details: why walhook sends nothing, since when the endpoint only fails and how
many warnings there were, whether its breaker is open, how many events are in
retry, and how many dead letters there are. Texts of more than 80 characters are
cut; --json prints them whole.

  active    walhook sends its events
  cleared   the account cleared its web_hook_url; setting one starts a new feed
  unusable  the URL cannot be used; the account must set another one
  disabled  held, by walhook or by an operator: walhook sends nothing, and keeps
            the events until retention ends; 'walhook endpoints enable' ends it

walhook disables an endpoint that has only failed for five days, and notifies
the parent account if that has an endpoint. Warnings 1, 2 and 3 come after one,
three and four days.

It needs only the outbox: --outbox, or --source if they are one database.`

func newEndpointsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "List endpoints, print and rotate their secrets, enable, disable, hold and order them",
		Long:  endpointsLong,
		Example: `  walhook endpoints --outbox postgres://walhook@db/walhook
  walhook endpoints secret 7
  walhook endpoints rotate 7 --overlap 24h
  walhook endpoints disable 7 --reason "asked for by the account"
  walhook endpoints enable 7
  walhook endpoints holds
  walhook endpoints ordering 7 strict`,
		Args: cobra.NoArgs,
		RunE: withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, _ []string) error {
			endpoints, err := a.ListEndpoints(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return writeEndpointsJSON(out, endpoints)
			}
			return writeEndpoints(out, endpoints)
		}),
	}
	addSettings(cmd, "source", "outbox")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.AddCommand(newEndpointsSecretCommand(), newEndpointsRotateCommand(), newEndpointsResealCommand(), newEndpointsEnableCommand(), newEndpointsDisableCommand(), newEndpointsHoldsCommand(), newEndpointsOrderingCommand())
	return cmd
}

func newEndpointsSecretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret <account>",
		Short: "Print an account's signing secret",
		Long: `Prints the whsec_ secret that signs an account's deliveries. Give it to the
account and to nobody else. During a rotation it prints two, the newer one first.
If secrets are encrypted at rest, --secret-key must be the key that encrypted
them.`,
		Example: "  walhook endpoints secret 7 --outbox postgres://walhook@db/walhook",
		Args:    cobra.ExactArgs(1),
		RunE: withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			if err := a.Audit(ctx, admin.Act{Action: admin.ActSecretRead, Account: args[0], Webhook: outbox.AccountWebhook}); err != nil {
				return err
			}
			secrets, err := a.EndpointSecrets(ctx, args[0])
			for _, secret := range secrets {
				fmt.Fprintln(out, printable(secret))
			}
			return err
		}),
	}
	addSettings(cmd, "source", "outbox", "secret-key")
	return cmd
}

func newEndpointsEnableCommand() *cobra.Command {
	var all bool
	var webhook, host string
	cmd := &cobra.Command{
		Use:   "enable <account>",
		Short: "Send to a disabled endpoint again",
		Long: `Makes a disabled endpoint active again, also one that an operator disabled.
walhook first sends what was held, in order; breaker and retries start fresh. A
running sender notices within seconds.

With --host it ends the hold on one host, with --all every hold of the account;
'walhook endpoints holds' lists them. What the account or walhook has disabled,
too, stays disabled then.`,
		Example: `  walhook endpoints enable 7 --outbox postgres://walhook@db/walhook
  walhook endpoints enable 7 --host hooks.example.com`,
		Args:    cobra.ExactArgs(1),
		PreRunE: exclusive("host", "webhook", "all"),
		RunE: withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			if all {
				r, err := a.ReleaseAccount(ctx, args[0])
				if err == nil {
					_, err = fmt.Fprintln(out, printable(fmt.Sprintf("account %s is no longer held; %s", args[0], releasedText(r))))
				}
				return err
			}
			if host != "" {
				r, err := a.ReleaseHost(ctx, args[0], host)
				if err == nil {
					_, err = fmt.Fprintln(out, printable(fmt.Sprintf("account %s: %s is no longer held; %s", args[0], address.NamedHost(host), releasedText(r))))
				}
				return err
			}
			e, err := a.EnableEndpoint(ctx, args[0], webhook)
			if err != nil {
				return err
			}
			line := fmt.Sprintf("account %s is active: walhook sends its events to %s", e.Account, e.URL)
			switch {
			case e.State != outbox.EndpointActive:
				line = fmt.Sprintf("account %s is no longer held, but %s (%s): walhook sends its events once it has a usable URL", e.Account, e.State, e.Reason)
			case !e.EndedAt.IsZero():
				line += "; the account was deleted: walhook sends what was held, and nothing after it"
			}
			_, err = fmt.Fprintln(out, printable(line))
			return err
		}),
	}
	addSettings(cmd, "source", "outbox")
	cmd.Flags().StringVar(&webhook, "webhook", outbox.AccountWebhook, "the webhook with this `id`; 'account' is the account's own URL")
	cmd.Flags().BoolVar(&all, "all", false, "end every hold on the account")
	cmd.Flags().StringVar(&host, "host", "", "end the hold on this `host`")
	return cmd
}

// releasedText says what the end of holds did.
func releasedText(r outbox.Released) string {
	text := fmt.Sprintf("webhooks enabled: %d", r.Enabled)
	if r.Stay > 0 {
		text += fmt.Sprintf("; still disabled, by the account or by walhook: %d", r.Stay)
	}
	return text
}

func newEndpointsDisableCommand() *cobra.Command {
	var reason, webhook, host string
	var all bool
	cmd := &cobra.Command{
		Use:   "disable <account>",
		Short: "Hold an account's events",
		Long: `Stops sending to an account's endpoint. walhook holds its events until retention
ends, whatever the account does with its URL, clearing it and setting it again
included. It notifies the parent account if that has an endpoint. A running
sender notices within seconds; attempts in flight finish.

This holds the host too: no other webhook of the account may use it, nor one that
its tokens set in sub-accounts, in whatever form the host is written. --host
holds a host by its name, --all the whole account. walhook does not compare what
a name resolves to: if an account keeps moving, hold all of it.`,
		Example: `  walhook endpoints disable 7 --reason "asked for by the account"
  walhook endpoints disable 7 --host hooks.example.com --reason abuse
  walhook endpoints disable 7 --all --reason unpaid`,
		Args:    cobra.ExactArgs(1),
		PreRunE: exclusive("host", "webhook", "all"),
		RunE: withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
			if all {
				err := a.HoldAccount(ctx, args[0], reason)
				if err == nil {
					_, err = fmt.Fprintln(out, printable(fmt.Sprintf("account %s is held: walhook sends nothing to any of its webhooks, new ones included (%s)", args[0], reason)))
				}
				return warnUnknown(ctx, a, out, args[0], err)
			}
			if host != "" {
				if address.NamedHost(host) == "" {
					return usage(fmt.Errorf("--host %q: want the name or the address of a host, such as hooks.example.com", host))
				}
				n, err := a.HoldHost(ctx, args[0], host, reason)
				if err == nil {
					_, err = fmt.Fprintln(out, printable(fmt.Sprintf("account %s: walhook sends nothing to %s (%s); webhooks disabled: %d", args[0], address.NamedHost(host), reason, n)))
				}
				return warnUnknown(ctx, a, out, args[0], err)
			}
			e, err := a.DisableEndpoint(ctx, args[0], webhook, reason)
			if err == nil {
				_, err = fmt.Fprintln(out, printable(fmt.Sprintf("account %s is disabled: walhook holds its events (%s)", e.Account, e.Reason)))
			}
			return err
		}),
	}
	addSettings(cmd, "source", "outbox")
	cmd.Flags().StringVar(&webhook, "webhook", outbox.AccountWebhook, "the webhook with this `id`; 'account' is the account's own URL")
	cmd.Flags().BoolVar(&all, "all", false, "hold the whole account, including webhooks that it creates later")
	cmd.Flags().StringVar(&host, "host", "", "hold this `host` for the account, whether it has a webhook there or not")
	cmd.Flags().StringVar(&reason, "reason", "disabled by an operator", "why, a `text` for people")
	return cmd
}

// withOutbox opens the outbox of cmd's settings and calls f with it.
func withOutbox(f func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := loadSettings(cmd)
		if err != nil {
			return err
		}
		for _, warning := range s.warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "walhook:", warning)
		}
		ctx := admin.WithActor(cmd.Context(), admin.Actor{Name: "operator, " + cmd.CommandPath()})
		store, err := outbox.Open(ctx, s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
		if err != nil {
			return usage(err)
		}
		defer store.Close()
		if err = store.CheckMigrated(ctx); err == nil {
			err = f(ctx, admin.New(store), cmd.OutOrStdout(), args)
		}
		if errors.Is(err, admin.ErrNoEndpoint) {
			return fmt.Errorf("%w; 'walhook endpoints' lists them", err)
		}
		if errors.Is(err, admin.ErrNoHold) {
			return fmt.Errorf("%w; 'walhook endpoints holds' lists them", err)
		}
		if outbox.IsUnencodable(err) {
			return unencodable(cmd, admin.New(store), args, err)
		}
		return outboxFault(err)
	}
}

// unencodable names what of a command line holds a character that the encoding of the
// outbox's database does not have. Nothing in the outbox has such an account or id.
func unencodable(cmd *cobra.Command, a *admin.Admin, args []string, err error) error {
	const encoding = "has a character that the encoding of the outbox's database cannot store"
	for _, arg := range args {
		if can, bad := a.CanHold(cmd.Context(), arg); bad == nil && !can {
			return fmt.Errorf("account not found: %q %s", arg, encoding)
		}
	}
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		text := flag.Value.String()
		can, bad := a.CanHold(cmd.Context(), text)
		switch {
		case bad != nil || can || isRegistered(cmd.Flags(), flag.Name):
		case flag.Name == "reason":
			err = usage(fmt.Errorf("--%s %q %s: write it in other characters", flag.Name, text, encoding))
		default:
			err = fmt.Errorf("--%s: not found: %q %s", flag.Name, text, encoding)
		}
	})
	return outboxFault(err)
}
