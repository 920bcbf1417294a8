package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"walhook/internal/httpd"
)

const listenLong = `Receives webhooks on this machine, checks their signatures and prints what
arrives. Account users run it to try things out; it needs nothing but this
binary.

With --secret (the account's whsec_… secret, which 'walhook endpoints secret'
prints) it checks each signature by Standard Webhooks 1.0, and the timestamp to
five minutes. It marks a repeated webhook-id as "again". It answers every request
with --status, whatever its signature: try 500 to see retries, 410 to see the
endpoint disabled.

walhook sends only to public addresses. To let it deliver to this machine, start
it with --allow-cidr 127.0.0.0/8.

With --from and --token nothing has to reach this machine: listen reads the
feed of a webhook (GET …/webhooks/ID/feed) and prints it, and with --forward
posts each event to a URL of yours, with the body and the headers of a delivery.
It checks signatures by the webhook's own secret. Without --webhook it makes a
webhook of delivery pull, which gets what happens from then on, prints the new
secret of that webhook, and removes it at the end. It connects again after a cut
and continues after the last event. An event that --forward does not accept is
printed and not repeated. One that the feed could not render is read again until
it can be forwarded. What was signed more than a minute ago is read again first,
with a new signature.

With --cursor-file no event is lost between two runs of listen, however the first
one ends: it continues where the file says, the first time with --replay-last or
with what happens from then on. Then an event counts once --forward has answered
2xx. Until then listen posts it again, with another signature, and nothing passes
it. A second listen on the same file ends at once.`

// listenOptions are the flags of listen.
type listenOptions struct {
	addr   string
	secret string
	status int

	// Of a feed.
	from, token, webhook, forward string
	cursorFile                    string
	hook, schemas                 string
	replayLast                    int
	json                          bool
}

func newListenCommand() *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive webhooks on this machine, check their signatures, print them",
		Long:  listenLong,
		Example: `  walhook listen
  walhook listen --addr 127.0.0.1:9090 --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
  walhook listen --status 503
  walhook listen --from https://api.example.com/v2/accounts/7 --token whtok_… --forward http://localhost:3000/hook`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.from != "" {
				for _, name := range []string{"addr", "status"} {
					if cmd.Flags().Changed(name) {
						return usage(fmt.Errorf("--%s does not go with --from: nothing is received there", name))
					}
				}
				return listenFrom(cmd.Context(), o, cmd.OutOrStdout())
			}
			for _, name := range []string{"token", "webhook", "forward", "cursor-file", "hook", "schemas", "replay-last", "json"} {
				if cmd.Flags().Changed(name) {
					return usage(fmt.Errorf("--%s needs --from, the address of the account's API", name))
				}
			}
			return listen(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.addr, "addr", "127.0.0.1:9090", "`address` to listen on; port 0 picks a free one")
	flags.StringVar(&o.secret, "secret", "", "signing `secret` (whsec_…) to check signatures with (default: not checked)")
	flags.IntVar(&o.status, "status", http.StatusOK, "HTTP `status` to answer with")
	flags.StringVar(&o.from, "from", "", "`URL` of the account's API whose feed to read, such as https://api.example.com/v2/accounts/7")
	flags.StringVar(&o.token, "token", "", "the account's `token` of the API (default: WALHOOK_TOKEN)")
	flags.StringVar(&o.webhook, "webhook", "", "`id` of the webhook to read (default: one that is made and removed at the end)")
	flags.StringVar(&o.forward, "forward", "", "`URL` that each event is posted to")
	flags.StringVar(&o.cursorFile, "cursor-file", "", "`file` that keeps the place in the feed of --webhook; an event counts once --forward has answered 2xx")
	flags.StringVar(&o.hook, "hook", "", "event `type` of the webhook that is made (default: records)")
	flags.StringVar(&o.schemas, "schemas", "", "comma-separated `schemas` of the webhook that is made (default: all)")
	flags.IntVar(&o.replayLast, "replay-last", 0, "begin with the last `N` events of --webhook")
	flags.BoolVar(&o.json, "json", false, "print a line of JSON for each event")
	return cmd
}

// listen serves until ctx ends, which is no error.
func listen(ctx context.Context, o listenOptions, out io.Writer) error {
	printer, err := newHookPrinter(o, out)
	if err != nil {
		return usage(err)
	}
	server, err := httpd.NewListeners(zap.NewNop(), nil).Listen(ctx, httpd.Config{Setting: "addr", Address: o.addr, Handler: printer})
	if err != nil {
		return err
	}
	checked := "signatures are not checked: set --secret"
	if o.secret != "" {
		checked = "signatures are checked"
	}
	fmt.Fprintf(out, "listening on http://%s, answering %d; %s; Ctrl-C ends it\n", server.Addr(), o.status, checked)
	return server.Serve(ctx, 2*time.Second)
}
