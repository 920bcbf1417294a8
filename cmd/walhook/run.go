package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"walhook/schemas"
)

const runLong = `Reads the source's write-ahead log, stores its events in the outbox and delivers
them, until it is told to stop (SIGINT or SIGTERM: running attempts finish, a
clean stop repeats nothing).

The source must have been prepared by 'walhook setup'; with --setup that is done
first. A database that does not answer yet is waited for. A second publisher on
the same slot waits as standby and takes over when the first one is gone. Any
number of senders share the endpoints.

The subscription API is served on --listen where the role holds it, to those
whose token the operator made. With --admin-token the operator makes tokens;
without it the API refuses all but health checks and metrics. With --tls-cert and
--tls-key it speaks HTTPS; both files are read again when they change. Without
them put a proxy that ends TLS before it, and name it with --trusted-proxies.

A line that repeats is written 20 times a minute at most (lines of level info
600 times), and then once more to say how many were left out. SIGUSR1 changes
the log level to debug, at which nothing is left out, and back.

Exit code: 0 after a signal, 1 for a fault, 2 for wrong usage or configuration,
3 when the source cannot be continued without a gap ('walhook setup
--accept-gap' starts over).`

func newRunCommand() *cobra.Command {
	var setup bool
	var skip string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service: read the log, store events, deliver them",
		Long:  runLong,
		Example: `  walhook run --source postgres://walhook@db/carrier --outbox postgres://walhook@db/walhook
  walhook run --source postgres://walhook@db/carrier --setup --allow-cidr 10.0.0.0/8
  walhook run --role sender --outbox postgres://walhook@db/walhook
  walhook run --role api --listen 10.0.0.7:8480 --outbox postgres://walhook@db/walhook`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if s.Roles.API && !s.Roles.Publisher && !s.Roles.Sender && s.Listen == "" {
				return usage(errors.New("--role api with --listen off does nothing: name an address to listen on"))
			}
			var unreadable schemas.LSN
			if skip != "" {
				if unreadable, err = schemas.ParseLSN(skip); err != nil || unreadable == 0 {
					return usage(fmt.Errorf("--skip-unreadable %q: want the position that 'walhook doctor' names, such as 0/16B3748", skip))
				}
			}
			log := newServiceLogger(s)
			defer log.summarise()
			ctx, end := context.WithCancel(cmd.Context())
			asked, ignore := levelSignals()
			defer ignore()
			var beside sync.WaitGroup
			defer beside.Wait()
			defer end()
			beside.Go(func() { log.run(ctx, asked) })
			service := s.service(setup)
			service.source.SkipUnreadable = unreadable
			return service.run(ctx, log.Logger)
		},
	}
	addSettings(cmd, "source", "outbox", "slot", "publication", "catalog", "role", "listen", "metrics-listen", "trusted-proxies", "tls-cert", "tls-key", "allow-cidr",
		"deny-cidr", "allow-ports", "egress-address", "http-client", "retention", "attempt-timeout", "retry-schedule", "max-event-bytes", "admin-token", "secret-key", "messages",
		"trace-endpoint", "trace-sample", "log-level", "log-format")
	cmd.Flags().BoolVar(&setup, "setup", false, "prepare a source that is not prepared yet")
	cmd.Flags().StringVar(&skip, "skip-unreadable", "", "give up the one transaction, by the `position` that doctor names, that the source cannot send; recorded as a gap")
	return cmd
}

// service is what the settings ask for.
func (s settings) service(setup bool) service {
	return service{
		publish: s.Roles.Publisher, send: s.Roles.Sender, subscribe: s.Roles.API, setup: setup,
		source: s.cdcConfig(), outbox: s.outboxConfig(), sender: s.senderConfig(), listen: s.Listen, metricsListen: s.MetricsListen, adminToken: s.AdminToken,
		trustedProxies: s.TrustedProxies, tlsCert: s.TLSCert, tlsKey: s.TLSKey, trace: s.Trace,
	}
}
