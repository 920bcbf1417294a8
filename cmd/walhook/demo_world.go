package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walhook/cdc/source"
	"walhook/internal/carrier"
	"walhook/internal/pgcluster"
	"walhook/internal/pgsession"
	"walhook/outbox"
	"walhook/schemas/catalog"
	"walhook/sender"
	"walhook/sender/deliver"
)

// demo holds everything of one run.
type demo struct {
	options   demoOptions
	view      *demoView
	cluster   *pgcluster.Cluster
	receivers *demoReceivers
	source    string // URL of the carrier's database
	outbox    string // URL of the outbox's database
}

// build makes the carrier: server, tables, accounts, receivers.
func (d *demo) build(ctx context.Context) (err error) {
	d.view.step("starting a throwaway PostgreSQL")
	d.cluster, err = pgcluster.Start(ctx, pgcluster.Options{BinDir: d.options.binDir, Progress: d.view.step})
	if err != nil {
		return err
	}
	if d.source, err = d.cluster.CreateDatabase(ctx, "carrier"); err != nil {
		return err
	}
	if d.outbox, err = d.cluster.CreateDatabase(ctx, "outbox"); err != nil {
		return err
	}
	if d.receivers, err = startDemoReceivers(d.options.seed, d.outbox); err != nil {
		return err
	}
	d.view.step(fmt.Sprintf("creating the carrier's tables and %d accounts", d.options.accounts))
	conn, err := pgsession.ConnectCarrier(ctx, d.source)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := carrier.Create(ctx, conn); err != nil {
		return err
	}
	return carrier.Seed(ctx, conn, d.options.accounts, d.options.seed, d.receivers.url)
}

func (d *demo) close() {
	if d.receivers != nil {
		d.receivers.close()
	}
	if d.cluster != nil {
		if err := d.cluster.Stop(); err != nil {
			d.view.step(fmt.Sprintf("stopping PostgreSQL: %v", err))
		}
	}
}

// service returns walhook as 'walhook run --setup' would start it.
func (d *demo) service() service {
	return service{
		publish: true, send: true, setup: true,
		source: source.Config{URL: d.source, Catalog: catalog.Carrier()},
		outbox: outbox.Config{URL: d.outbox},
		sender: sender.Config{
			Name:      "demo",
			HTTP:      deliver.Config{Version: readBuild().version, AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			OnAttempt: d.view.attempt,
		},
	}
}

// run simulates the carrier's activity while walhook delivers, waits for outstanding
// deliveries, and calls the referee.
func (d *demo) run(ctx context.Context, log *zap.Logger) (*demoSummary, error) {
	service := d.service()
	d.view.step("preparing publication, slot and initial snapshot")
	if err := service.prepareNow(ctx, log); err != nil {
		return nil, err
	}
	activity, err := carrier.NewActivity(ctx, d.source, carrier.Options{
		Accounts: d.options.accounts, Seed: d.options.seed, URLFor: d.receivers.url, BulkRows: bulkRows,
	})
	if err != nil {
		return nil, err
	}
	defer activity.Close()

	d.view.begin(d.options)
	group, ctx := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(ctx)
	group.Go(func() error { return service.run(running, log) })
	group.Go(func() error { return d.view.run(running) })
	var summary *demoSummary
	group.Go(func() error {
		defer stop()
		if err := d.waitForReader(running); err != nil {
			return err
		}
		stats, err := activity.Run(running, d.options.rate, d.options.duration)
		if err != nil || ctx.Err() != nil {
			return err
		}
		d.view.step("the carrier is idle; waiting for outstanding deliveries")
		summary, err = d.verify(ctx, stats)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if summary == nil {
		return nil, context.Cause(ctx)
	}
	return summary, nil
}

// bulkRows is the size of the carrier's largest invoices.
const bulkRows = 150

// waitForReader waits until walhook reads, so that the first changes are not
// measured against its start.
func (d *demo) waitForReader(ctx context.Context) error {
	conn, err := pgsession.ConnectCarrier(ctx, d.source)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		var active bool
		const sql = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE active)"
		if err := conn.QueryRow(ctx, sql).Scan(&active); err != nil || active {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

const (
	// verifyWithin is long enough for a second attempt of every event to a flaky
	// receiver, one after the other.
	verifyWithin = time.Minute
	verifyEvery  = time.Second
)

// verify waits until every delivery that can succeed has arrived, and reports.
func (d *demo) verify(ctx context.Context, stats carrier.Stats) (*demoSummary, error) {
	conn, err := pgsession.ConnectCarrier(ctx, d.source)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	deadline := time.Now().Add(verifyWithin)
	for {
		expected, err := carrier.Read(ctx, conn)
		if err != nil {
			return nil, err
		}
		report := d.receivers.verify(expected)
		if report.Lost == 0 || time.Now().After(deadline) {
			changes, err := carrier.Changes(ctx, conn)
			if err != nil {
				return nil, err
			}
			open, err := d.openBreakers(ctx)
			if err != nil {
				return nil, err
			}
			return newDemoSummary(d, stats, changes, report, open), nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(verifyEvery):
		}
	}
}

const openBreakersSQL = `
	SELECT e.account FROM walhook.lane l JOIN walhook.endpoint e ON e.id = l.endpoint WHERE l.open ORDER BY 1`

// openBreakers lists the accounts whose endpoint's breaker is open, as the sender
// stored it.
func (d *demo) openBreakers(ctx context.Context) ([]string, error) {
	conn, err := pgsession.Connect(ctx, d.outbox)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, openBreakersSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
