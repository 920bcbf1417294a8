package main

import (
	"github.com/spf13/cobra"
)

const runLong = `Reads the source's write-ahead log, stores its events in the outbox and delivers
them, until it is told to stop (SIGINT or SIGTERM: running attempts finish, a
clean stop repeats nothing).

The source must have been prepared by 'walhook setup'; with --setup that is done
first. A database that does not answer yet is waited for. A second publisher on
the same slot waits as standby and takes over when the first one is gone. Any
number of senders share the endpoints.

Exit code: 0 after a signal, 1 for a fault, 2 for wrong usage or configuration,
3 when the source cannot be continued without a gap ('walhook setup
--accept-gap' starts over).`

func newRunCommand() *cobra.Command {
	var setup bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service: read the log, store events, deliver them",
		Long:  runLong,
		Example: `  walhook run --source postgres://walhook@db/carrier --outbox postgres://walhook@db/walhook
  walhook run --source postgres://walhook@db/carrier --setup --allow-cidr 10.0.0.0/8
  walhook run --role sender --outbox postgres://walhook@db/walhook`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			log, err := newLogger(s)
			if err != nil {
				return err
			}
			return service{
				publish: s.Roles.Publisher, send: s.Roles.Sender, setup: setup,
				source: s.cdcConfig(), outbox: s.outboxConfig(), sender: s.senderConfig(), listen: s.Listen,
			}.run(cmd.Context(), log)
		},
	}
	addSettings(cmd, "source", "outbox", "slot", "publication", "catalog", "role", "listen", "allow-cidr",
		"egress-address", "retention", "attempt-timeout", "retry-schedule", "max-event-bytes", "secret-key",
		"log-level", "log-format")
	cmd.Flags().BoolVar(&setup, "setup", false, "prepare a source that is not prepared yet")
	return cmd
}
