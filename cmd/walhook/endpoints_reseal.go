package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"walhook/outbox"
)

func newEndpointsResealCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Encrypt the stored signing secrets under the present key",
		Long: `Encrypts every stored signing secret under --secret-key, bound to its endpoint,
without changing it: no account has to be given another one. --old-secret-key is
the key that they were stored under before, if there was another one.

It may be run while services run, interrupted, and run again. Services that have
the old key go on with what they have read; restart them with the new one. Once
all are encrypted, a secret that is not, or that is of another endpoint, holds
that endpoint.`,
		Example: "  walhook endpoints reseal --outbox postgres://walhook@db/walhook --secret-key-file /etc/walhook/key",
		Args:    cobra.NoArgs,
	}
	reseal := withOutbox(func(ctx context.Context, store *outbox.Store, out io.Writer, _ []string) error {
		found, err := store.Reseal(ctx, s.OldSecretKey)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d encrypted, %d were already, %d cannot be read\n", found.Sealed, found.Already, len(found.Unreadable))
		if n := len(found.Unreadable); n > 0 {
			return fmt.Errorf("the secrets of %s open under neither key: give the --old-secret-key that they were stored under, or rotate them",
				strings.Join(found.Unreadable[:min(n, 10)], ", "))
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if s, err = loadSettings(cmd); err != nil {
			return err
		}
		if s.SecretKey == nil {
			return usage(errors.New("--secret-key is missing: the key to encrypt under"))
		}
		return reseal(cmd, args)
	}
	addSettings(cmd, "source", "outbox", "secret-key", "old-secret-key")
	return cmd
}
