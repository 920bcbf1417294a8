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
it with --allow-cidr 127.0.0.0/8.`

// listenOptions are the flags of listen.
type listenOptions struct {
	addr   string
	secret string
	status int
}

func newListenCommand() *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive webhooks on this machine, check their signatures, print them",
		Long:  listenLong,
		Example: `  walhook listen
  walhook listen --addr 127.0.0.1:9090 --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
  walhook listen --status 503`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listen(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.addr, "addr", "127.0.0.1:9090", "`address` to listen on; port 0 picks a free one")
	flags.StringVar(&o.secret, "secret", "", "signing `secret` (whsec_…) to check signatures with (default: not checked)")
	flags.IntVar(&o.status, "status", http.StatusOK, "HTTP `status` to answer with")
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
