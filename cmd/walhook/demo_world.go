package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
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
	portal    *demoPortal // nil for none
	source    string      // URL of the carrier's database
	outbox    string      // URL of the outbox's database
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
	if d.options.portal {
		if d.portal, err = newDemoPortal(); err != nil {
			return err
		}
	}
	if d.receivers, err = startDemoReceivers(d.options.seed, d.outbox, d.portal); err != nil {
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
	if d.portal != nil {
		d.portal.close()
	}
	if d.cluster != nil {
		if err := d.cluster.Stop(); err != nil {
			d.view.step(fmt.Sprintf("stopping PostgreSQL: %v", err))
		}
	}
}

// service returns walhook as 'walhook run --setup' would start it.
func (d *demo) service() service {
	s := service{
		publish: true, send: true, setup: true,
		source: source.Config{URL: d.source, Catalog: catalog.Carrier()},
		outbox: outbox.Config{URL: d.outbox},
		sender: sender.Config{
			Name:      "demo",
			HTTP:      deliver.Config{Version: readBuild().version, AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			OnAttempt: d.view.attempt,
		},
	}
	if d.portal != nil {
		s.subscribe, s.listen, s.adminToken, s.portalURL = true, d.portal.address, d.portal.token, d.portal.url()
		s.console = &console{d.options.cmd, settings{
			Source: d.source, Outbox: d.outbox, Slot: "walhook", Publication: "walhook", Catalog: s.source.Catalog, Listen: s.listen, AdminToken: s.adminToken, AllowCIDR: s.sender.HTTP.AllowCIDR,
		}}
	}
	return s
}

// prepare makes publication, slot and initial snapshot.
func (d *demo) prepare(ctx context.Context, log *zap.Logger) error {
	d.view.step("preparing publication, slot and initial snapshot")
	return d.service().prepareNow(ctx, log)
}

// run simulates the carrier's activity while walhook delivers, until its time is over or
// ctx ends. Then it waits for outstanding deliveries, and calls the referee.
func (d *demo) run(ctx context.Context, log *zap.Logger) (*demoSummary, error) {
	activity, err := carrier.NewActivity(ctx, d.source, carrier.Options{
		Accounts: d.options.accounts, Seed: d.options.seed, URLFor: d.receivers.url, BulkRows: bulkRows,
	})
	if err != nil {
		return nil, err
	}
	defer activity.Close()

	if d.portal == nil {
		d.view.begin()
	}
	// A signal ends the activity, not the deliveries.
	group, working := errgroup.WithContext(context.WithoutCancel(ctx))
	running, stop := context.WithCancel(working)
	acting, end := context.WithCancel(working)
	defer context.AfterFunc(ctx, end)()
	group.Go(func() error { return d.service().run(running, log) })
	group.Go(func() error { return d.follow(running, log, activity) })
	var summary *demoSummary
	group.Go(func() error {
		defer stop()
		defer end()
		if err := d.waitForReader(acting); err != nil && acting.Err() == nil {
			return err
		}
		if d.portal != nil {
			link, err := d.portal.open(acting, d.receivers.dead.URL("billing"))
			if err != nil && acting.Err() == nil {
				return err
			}
			d.view.invite(d.portal.invite(link))
			d.view.begin()
		}
		began := time.Now()
		stats, err := activity.Run(acting, d.options.rate, d.options.duration)
		if err != nil || working.Err() != nil {
			return err
		}
		d.view.idle()
		d.view.step("the carrier is idle; waiting for outstanding deliveries")
		took := min(time.Since(began).Round(100*time.Millisecond), d.options.duration)
		if summary, err = d.verify(working, stats, ctx.Done()); err == nil && summary.Interrupted != "" {
			summary.DurationSeconds = took.Seconds()
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return summary, nil
}

const (
	appendedSQL = `
		SELECT e.endpoint, p.account, count(*), max(e.id)
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint WHERE e.id > $1 GROUP BY 1, 2`

	openSQL = `SELECT endpoint FROM walhook.lane WHERE open`

	endedSQL = `
		SELECT id FROM walhook.endpoint p WHERE ended_at IS NOT NULL
			AND NOT EXISTS (SELECT FROM walhook.lane l WHERE l.endpoint = p.id)`
)

// follow reads for the view what attempts do not tell: how much was committed and
// appended, and which breakers are open.
func (d *demo) follow(ctx context.Context, log *zap.Logger, activity *carrier.Activity) error {
	conn, err := pgsession.Connect(ctx, d.outbox)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	last := int64(0) // id of the newest event that was counted: ids rise in the order of commits
	return d.view.follow(ctx, log, func(ctx context.Context) (demoReading, error) {
		r := demoReading{committed: activity.Stats().Committed, appended: map[int64]demoBacklog{}, open: map[int64]bool{}}
		rows, _ := conn.Query(ctx, appendedSQL, last) // rows have its error
		var endpoint, newest int64
		var one demoBacklog
		if _, err := pgx.ForEachRow(rows, []any{&endpoint, &one.account, &one.events, &newest}, func() error {
			r.appended[endpoint] = one
			last = max(last, newest)
			return nil
		}); err != nil {
			return r, err
		}
		rows, _ = conn.Query(ctx, openSQL)
		if _, err := pgx.ForEachRow(rows, []any{&endpoint}, func() error {
			r.open[endpoint] = true
			return nil
		}); err != nil {
			return r, err
		}
		rows, _ = conn.Query(ctx, endedSQL)
		r.ended, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return r, err
	})
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

// verify waits until every delivery that can succeed has arrived, or not much longer
// once interrupted is closed, and reports.
func (d *demo) verify(ctx context.Context, stats carrier.Stats, interrupted <-chan struct{}) (*demoSummary, error) {
	conn, err := pgsession.ConnectCarrier(ctx, d.source)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	flakyOpen := func() (bool, error) {
		open, err := d.openBreakers(ctx)
		return slices.ContainsFunc(open, func(account string) bool { return accountClass(account) == classFlaky }), err
	}
	for wait := newDemoWait(time.Now()); ; {
		if isClosed(interrupted) {
			wait.interrupt(time.Now())
			interrupted = nil
		}
		expected, err := carrier.Read(ctx, conn)
		if err != nil {
			return nil, err
		}
		over, err := wait.over(time.Now(), flakyOpen)
		if err != nil {
			return nil, err
		}
		report := d.receivers.verify(expected, wait.early && over)
		if report.Lost == 0 || over {
			changes, err := carrier.Changes(ctx, conn)
			if err != nil {
				return nil, err
			}
			open, err := d.openBreakers(ctx)
			if err != nil {
				return nil, err
			}
			summary := newDemoSummary(d.options, stats, changes, report, open)
			if wait.early {
				summary.Interrupted = "early"
			}
			return summary, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-interrupted:
		case <-time.After(verifyEvery):
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
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
