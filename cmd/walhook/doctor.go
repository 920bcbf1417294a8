package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/admin"
	"walhook/sender/deliver"
)

const doctorLong = `Checks source, outbox, slot, catalog and configuration, before walhook runs and
while it runs. Each check is ok, a warning (walhook works, but somebody should
know) or failed (walhook cannot start, or loses or delays something), with the
evidence and the exact statement or command that fixes it. skipped means that
doctor could not make the check.

The commands that it prints use doctor's own settings. Give it the settings of
'walhook run', so that it checks the same databases and catalog.

It writes nothing, waits at most half a second for a lock, and ends within
seconds: run it against a live system. --json is for machines; the ids of the
checks do not change.

The exit status is 0 when no check failed, 1 when one did, 2 for wrong usage or
configuration.`

// doctorTimeout bounds all checks together.
const doctorTimeout = 45 * time.Second

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	var o doctor.Options
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check source, outbox and configuration; say what is wrong and how to fix it",
		Long:  doctorLong,
		Example: `  walhook doctor --source postgres://walhook@db/carrier
  walhook doctor --json | jq '.checks[] | select(.status == "failed")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if o.OldTransaction <= 0 {
				return usage(fmt.Errorf("--old-transaction %s: want a positive duration, such as 15m", o.OldTransaction))
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), doctorTimeout, errors.New("doctor: timed out"))
			defer cancel()
			findings, err := examine(ctx, s, o)
			if err != nil {
				return err
			}
			write := writeFindings
			if asJSON {
				write = writeFindingsJSON
			} else {
				findings = withSettings(cmd, findings)
			}
			if err := write(cmd.OutOrStdout(), findings); err != nil {
				return err
			}
			return checksFailed(findings)
		},
	}
	addSettings(cmd, "source", "outbox", "slot", "publication", "catalog", "secret-key", "trusted-proxies", "tls-cert", "tls-key", "allow-cidr", "deny-cidr", "allow-ports", "egress-address", "client-cert", "client-key", "client-certs", "ca-file", "nats-credentials")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	cmd.Flags().DurationVar(&o.OldTransaction, "old-transaction", 15*time.Minute, "`age` above which an open transaction is a warning")
	return cmd
}

// configSettings is the check of the settings. loadSettings refuses wrong ones, so it
// finds only warnings.
const configSettings = "config.settings"

// examine makes every check. It checks the outbox first, because the checks of the
// source need the stored position. The report begins with the source.
func examine(ctx context.Context, s settings, o doctor.Options) ([]doctor.Finding, error) {
	r := doctor.NewReport(configSettings)
	for _, warning := range s.warnings {
		r.Warn(configSettings, warningSteps(warning), "%s", warning)
	}
	r.OK(configSettings, "the settings are valid")
	own := append(r.Findings(), examineProcess(s, time.Now())...)

	store, err := outbox.Open(ctx, s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return nil, usage(err)
	}
	defer store.Close()
	stored := outbox.Examine(ctx, s.outboxConfig(), o)
	findings := own
	if s.Source != "" { // a process of the API alone need not know it
		findings = append(findings, source.Examine(ctx, s.cdcConfig(), storedPosition(store, stored), o)...)
	}
	findings = append(append(findings, stored...), deliver.Examine(ctx, s.deliverConfig())...)
	return append(findings, examineFeeds(ctx, s, store)...), nil
}

// examineFeeds checks the feeds over NATS. Without an outbox that can be read there are none
// to check, and its own checks say why.
func examineFeeds(ctx context.Context, s settings, store *outbox.Store) []doctor.Finding {
	feeds, err := admin.New(store).Feeds(ctx)
	if err != nil {
		r := doctor.NewReport(deliver.FeedChecks()...)
		r.SkipRest("the outbox has no feeds that can be read")
		return r.Findings()
	}
	var over []deliver.NATSFeed
	for i := range feeds {
		if f := &feeds[i]; address.IsServers(f.URL) && f.State == outbox.EndpointActive {
			one := deliver.NATSFeed{Name: f.Name, URL: f.URL, Prefix: f.SubjectPrefix}
			for j := range feeds {
				if f.Apart(&feeds[j].Webhook) {
					one.Apart = append(one.Apart, feeds[j].Name)
				}
			}
			over = append(over, one)
		}
	}
	return deliver.ExamineFeeds(ctx, s.deliverConfig(), over)
}

// warningSteps returns the fix of a warning about the settings.
func warningSteps(warning string) doctor.Steps {
	name, _, _ := strings.Cut(warning, " ")
	switch {
	case strings.HasPrefix(name, envPrefix):
		return doctor.Steps{{Kind: doctor.Shell, Text: "unset " + name}}
	case strings.HasPrefix(name, "--"):
		return doctor.Steps{{Kind: doctor.Setting, Text: strings.TrimSuffix(name, ":"), Note: "without these parameters"}}
	}
	return nil
}

// storedPosition reads the stored position, unless the outbox could not be checked. An
// outbox that does not exist yet has none.
func storedPosition(store *outbox.Store, findings []doctor.Finding) func(context.Context) (source.Stored, error) {
	var broken error
	for _, f := range findings {
		switch {
		case f.Status == doctor.Failed && (f.ID == "outbox.reachable" || f.ID == "outbox.rights" || f.ID == "outbox.migrations"):
			broken = errors.New(f.ID)
		case f.ID == "outbox.migrations" && f.Status == doctor.OK && broken != nil && broken.Error() == "outbox.rights":
			broken = nil // its position can still be read
		}
	}
	return func(ctx context.Context) (stored source.Stored, err error) {
		if broken != nil {
			return stored, broken
		}
		if err = store.CheckMigrated(ctx); err != nil {
			if errors.Is(err, outbox.ErrNotSetUp) {
				err = nil
			}
			return stored, err
		}
		if stored.Checkpoint, err = store.Checkpoint(ctx); err == nil {
			stored.Catalog, err = store.CatalogInForce(ctx)
		}
		if err == nil {
			stored.Pending, _, err = store.PendingCatalog(ctx)
		}
		return stored, err
	}
}

// checksFailed returns an error if a check failed.
func checksFailed(findings []doctor.Finding) error {
	var failed []string
	for _, f := range findings {
		if f.Status == doctor.Failed {
			failed = append(failed, f.ID)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d checks failed: %s", len(failed), len(findings), strings.Join(failed, ", "))
}
