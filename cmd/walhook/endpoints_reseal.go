package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"walhook/doctor"
	"walhook/outbox/admin"

	"github.com/spf13/cobra"
)

func newEndpointsResealCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "reseal",
		Short: "Encrypt the stored signing secrets under the present key",
		Long: `Encrypts every stored signing secret under --secret-key, bound to its endpoint,
without changing it: no account needs another one. --old-secret-key is the key
that encrypted them before, if there was another one.

You may run it while services run, interrupt it, and run it again. Services with
the old key continue with the secrets that they have read; restart them with the
new key. Once all secrets are encrypted, a secret that is not, or that belongs to
another endpoint, holds that endpoint.`,
		Example: "  walhook endpoints reseal --outbox postgres://walhook@db/walhook --secret-key-file /etc/walhook/key",
		Args:    cobra.NoArgs,
	}
	reseal := withOutbox(func(ctx context.Context, a *admin.Admin, out io.Writer, _ []string) error {
		found, err := a.Reseal(ctx, s.OldSecretKey)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d encrypted, %d already encrypted, %d unreadable\n", found.Sealed, found.Already, len(found.Unreadable))
		if n := len(found.Unreadable); n > 0 {
			return fmt.Errorf("neither key decrypts the secrets of %s: set --old-secret-key to the key that encrypted them, or rotate them",
				doctor.List(found.Unreadable, 10))
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if s, err = loadSettings(cmd); err != nil {
			return err
		}
		if s.SecretKey == nil {
			return usage(errors.New("--secret-key is missing: set the key to encrypt with"))
		}
		return reseal(cmd, args)
	}
	addSettings(cmd, "source", "outbox", "secret-key", "old-secret-key")
	return cmd
}
