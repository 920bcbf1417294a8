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
them, until SIGINT or SIGTERM stops it. Then running attempts finish, and a clean
stop causes no duplicates.

'walhook setup' must have prepared the source; --setup does that first. walhook
waits for a database that does not answer yet. A second publisher on the same
slot waits as standby and takes over when the first one ends. Any number of
senders share the endpoints.

The process serves the subscription API on --listen if its role includes api, to
clients with a token. The operator creates tokens with --admin-token; without it
the API refuses everything but health checks and metrics. With --tls-cert and
--tls-key the API speaks HTTPS; walhook reloads both files when they change.
Without them put a proxy that terminates TLS in front, and name it with
--trusted-proxies.

The process that serves the API also serves the portal, the page on which an
account sees what became of its events: 'walhook portal <account>' prints a link,
and --portal off leaves it out.

walhook writes a repeated line at most 20 times a minute (600 times for level
info), and then once how many more there were. SIGUSR1 switches the log level to
debug, which leaves nothing out, and back.

The exit status is 0 after a signal, 1 for an error, 2 for wrong usage or
configuration, and 3 when walhook cannot continue the source without a gap; then
'walhook setup --accept-gap' starts over.`

func newRunCommand() *cobra.Command {
	var setup, acceptAccounts bool
	var skip string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service: read the WAL, store events, deliver them",
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
				return usage(errors.New("--role api with --listen off does nothing: set an address to listen on"))
			}
			var unreadable schemas.LSN
			if skip != "" {
				if unreadable, err = schemas.ParseLSN(skip); err != nil || unreadable == 0 {
					return usage(fmt.Errorf("--skip-unreadable %q: want the position that 'walhook doctor' prints, such as 0/16B3748", skip))
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
			service.acceptAccounts, service.source.SkipUnreadable = acceptAccounts, unreadable
			service.console = &console{cmd, s}
			return service.run(ctx, log.Logger)
		},
	}
	addSettings(cmd, "source", "outbox", "slot", "publication", "catalog", "role", "listen", "metrics-listen", "trusted-proxies", "tls-cert", "tls-key", "allow-cidr",
		"deny-cidr", "allow-ports", "egress-address", "http-client", "client-cert", "client-key", "client-certs", "ca-file", "nats-credentials", "retention", "attempt-timeout", "retry-schedule", "max-event-bytes", "admin-token", "portal", "portal-url",
		"portal-name", "portal-logo", "portal-accent", "portal-support", "portal-frame-ancestors", "secret-key", "messages",
		"trace-endpoint", "trace-sample", "log-level", "log-format")
	cmd.Flags().BoolVar(&setup, "setup", false, "run setup first if the source is not prepared yet")
	cmd.Flags().BoolVar(&acceptAccounts, acceptAccountChange, false, "with --setup: "+acceptAccountChangeUsage)
	cmd.Flags().StringVar(&skip, "skip-unreadable", "", "skip the one transaction that the source cannot send, by the `position` that doctor prints; walhook records it as a gap")
	return cmd
}

// service returns the service that the settings describe.
func (s settings) service(setup bool) service {
	return service{
		publish: s.Roles.Publisher, send: s.Roles.Sender, subscribe: s.Roles.API, setup: setup,
		source: s.cdcConfig(), outbox: s.outboxConfig(), sender: s.senderConfig(), listen: s.Listen, metricsListen: s.MetricsListen, adminToken: s.AdminToken,
		trustedProxies: s.TrustedProxies, tlsCert: s.TLSCert, tlsKey: s.TLSKey, trace: s.Trace,
		portalURL: s.PortalURL, portalBrand: s.PortalBrand, portalFrameAncestors: s.PortalFrameAncestors,
	}
}
