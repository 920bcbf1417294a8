package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"walhook/outbox/admin"
)

func newEndpointsRotateCommand() *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate <account>",
		Short: "Give an account's endpoint a new signing secret",
		Long: `Generates a new whsec_ secret and prints it, alone on standard output. Give it to
the account and to nobody else. Until the overlap ends, deliveries carry two
signatures, by the new and by the previous secret, so that the account can switch
at any moment; earlier secrets sign until their own time, ten in all. --overlap 0
expires all of them: walhook signs no attempt with them that begins after the
command has ended. An attempt in flight may still arrive.

An account whose secret is in a column of the account table changes it there;
then both secrets sign for 24 hours. If secrets are encrypted at rest,
--secret-key must be the senders' key.`,
		Example: `  walhook endpoints rotate 7 --outbox postgres://walhook@db/walhook
  walhook endpoints rotate 7 --overlap 0`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, args []string) error {
		if overlap < 0 {
			return usage(errors.New("--overlap is negative: want how long the previous secret still signs, or 0"))
		}
		secret, until, err := a.RotateSecret(ctx, args[0], overlap)
		late := errors.Is(err, admin.ErrNotConfirmed)
		if err != nil && !late {
			return err
		}
		fmt.Fprintln(out, secret)
		note := "all earlier secrets have expired"
		if late {
			note = err.Error()
		}
		if !until.IsZero() {
			note = "the previous secret also signs until " + until.UTC().Format(time.RFC3339)
		}
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "walhook:", note)
		return err
	})
	addSettings(cmd, "source", "outbox", "secret-key")
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the previous secret still signs, at most 720h")
	return cmd
}
