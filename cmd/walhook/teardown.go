package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"walhook/cdc"
	"walhook/outbox"
)

const teardownLong = `Drops the replication slot and the publication. A slot that nobody reads makes
the source keep its write-ahead log until its disk is full: run this when
walhook is taken out of use.

With --outbox the outbox goes as well, with every event that is not delivered
yet: the one that is configured (the source's database unless set), or the one
whose URL follows. Replica identities stay as they are.`

// configured stands for --outbox without a value.
const configured = "configured"

func newTeardownCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "teardown",
		Short: "Drop the slot and the publication, and on request the outbox",
		Long:  teardownLong,
		Example: `  walhook teardown --source postgres://walhook@db/carrier
  walhook teardown --source postgres://walhook@db/carrier --outbox`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			outboxToo, err := takeOutboxFlag(cmd, args)
			if err != nil {
				return err
			}
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			dropped, err := cdc.Teardown(cmd.Context(), s.cdcConfig())
			for _, what := range dropped {
				fmt.Fprintln(cmd.OutOrStdout(), "dropped", what)
			}
			if err != nil || !outboxToo {
				return err
			}
			if err := outbox.Drop(cmd.Context(), s.Outbox); err != nil {
				return outboxFault(err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "dropped the outbox")
			return err
		},
	}
	addSettings(cmd, "source", "outbox", "slot", "publication")
	flag := cmd.Flags().Lookup("outbox")
	flag.Usage = "drop the outbox too, with what is not delivered; a `URL` names another than the configured one"
	flag.NoOptDefVal = configured
	return cmd
}

// takeOutboxFlag says whether --outbox was given. Its value, if it has one, is
// the outbox's URL, joined with "=" or as the next argument.
func takeOutboxFlag(cmd *cobra.Command, args []string) (bool, error) {
	flag := cmd.Flags().Lookup("outbox")
	given := flag.Changed
	if len(args) > 0 && (!given || flag.Value.String() != configured) {
		return false, usageError{fmt.Errorf("unknown argument %q", args[0])}
	}
	if !given || flag.Value.String() != configured {
		return given, nil
	}
	url := ""
	if len(args) > 0 {
		url = args[0]
	}
	flag.Changed = url != ""
	return true, flag.Value.Set(url)
}
