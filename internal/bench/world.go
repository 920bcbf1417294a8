package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/pgcluster"
	"walhook/internal/pgsession"
)

// world is a carrier, its outbox and a walhook: two databases, created for one run and
// dropped after it.
type world struct {
	b        *bench
	name     string
	source   string // database URLs
	outbox   string
	server   *pgcluster.Cluster // of the outbox
	slot     string
	conn     *pgx.Conn // on the source
	accounts int
	next     int64 // id of the next record
	copies   int   // endpoints of each account

	onlyWebhook string // the one endpoint of each account; "": its own URL is the first
	batch       int    // that the endpoints have

	walhook *child // nil while none runs
	started time.Time

	senders     []*child // of the measure scale, where walhook is the publisher
	sendersMade int
}

// firstRecord is the id of a world's first record.
const firstRecord = 1_000_001

// newWorld creates the databases, the carrier's tables and a number of accounts, each
// with a receiver, and runs 'walhook setup'.
func (b *bench) newWorld(ctx context.Context, accounts int, url func(index int) string) (*world, error) {
	return b.newWorldOn(ctx, b.cluster, accounts, url)
}

// newWorldOn creates a world whose outbox is on another server.
func (b *bench) newWorldOn(ctx context.Context, server *pgcluster.Cluster, accounts int, url func(index int) string) (*world, error) {
	b.worlds++
	w := &world{b: b, server: server, name: fmt.Sprintf("bench%d", b.worlds), accounts: accounts, next: firstRecord, copies: 1}
	w.slot = w.name
	err := w.build(ctx, url)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare a carrier: %w", err), w.close(ctx))
	}
	return w, nil
}

func (w *world) build(ctx context.Context, url func(index int) string) (err error) {
	if w.source, err = w.b.cluster.CreateDatabase(ctx, w.name); err != nil {
		return err
	}
	if w.outbox, err = w.server.CreateDatabase(ctx, w.name+"_outbox"); err != nil {
		return err
	}
	if w.conn, err = pgsession.ConnectCarrier(ctx, w.source); err != nil {
		return err
	}
	if _, err := w.conn.PgConn().Exec(ctx, carrier.Tables).ReadAll(); err != nil {
		return err
	}
	rows := pgx.CopyFromSlice(w.accounts, func(i int) ([]any, error) {
		return []any{carrier.AccountID(i), "account" + strconv.Itoa(i), url(i)}, nil
	})
	if _, err := w.conn.CopyFrom(ctx, pgx.Identifier{"users"}, []string{"id", "username", "web_hook_url"}, rows); err != nil {
		return err
	}
	setup, err := w.b.options.Walhook.start(w.b.dir, w.name+"-setup", w.environ(), nil, nil, "setup")
	if err != nil {
		return err
	}
	return setup.wait(ctx)
}

// environ returns walhook's configuration: what an operator must set, and the permission
// to deliver to this machine.
func (w *world) environ() []string {
	return []string{
		"WALHOOK_SOURCE=" + w.source, "WALHOOK_OUTBOX=" + w.outbox, "WALHOOK_SLOT=" + w.slot,
		"WALHOOK_ALLOW_CIDR=127.0.0.0/8", "WALHOOK_LISTEN=off",
	}
}

// run starts 'walhook run'.
func (w *world) run(args ...string) (err error) {
	w.started = time.Now()
	w.walhook, err = w.b.options.Walhook.start(w.b.dir, w.name+"-run", w.environ(), nil, nil, append([]string{"run"}, args...)...)
	return err
}

// stop ends walhook as an operator would.
func (w *world) stop() error {
	walhook := w.walhook
	w.walhook = nil
	return walhook.stop()
}

// close ends the running processes and drops the databases.
func (w *world) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if w.walhook != nil {
		w.walhook.kill()
	}
	for _, sender := range w.senders {
		sender.kill()
	}
	if w.conn != nil {
		_ = w.conn.Close(ctx)
	}
	if err := w.dropSlots(ctx); err != nil {
		return err
	}
	if err := dropDatabase(ctx, w.b.admin, w.name); err != nil {
		return err
	}
	admin, err := pgsession.Connect(ctx, w.server.URL("postgres"))
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	return dropDatabase(ctx, admin, w.name+"_outbox")
}

// dropDatabase drops a database of a server, with its sessions.
func dropDatabase(ctx context.Context, admin *pgx.Conn, name string) error {
	if _, err := admin.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop the databases of a run: %w", err)
	}
	return nil
}

// dropSlots drops the slots of a world. It retries, because the server may notice late
// that a reader is gone.
func (w *world) dropSlots(ctx context.Context) error {
	const (
		endReaders = `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = $1 AND active`
		drop       = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active`
		left       = `SELECT count(*) FROM pg_replication_slots WHERE database = $1`
	)
	for deadline := time.Now().Add(stopWithin); ; time.Sleep(pollEvery) {
		for _, sql := range []string{endReaders, drop} {
			if _, err := w.b.admin.Exec(ctx, sql, w.name); err != nil {
				return fmt.Errorf("drop the slots of a run: %w", err)
			}
		}
		var slots int
		if err := w.b.admin.QueryRow(ctx, left, w.name).Scan(&slots); err != nil || slots == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("drop the slots of a run: %d are still read after %s", slots, stopWithin)
		}
	}
}

// expect announces the next records to the receivers.
func (w *world) expect(ctx context.Context, records int, sampled bool) (first int64, err error) {
	first = w.next
	w.next += int64(records)
	_, err = w.b.receivers(ctx, receiveOrder{Expect: &expectation{
		First: first, Count: int64(records), Copies: int64(w.copies), Batch: w.batch, Sampled: sampled,
	}})
	return first, err
}

const (
	// pollEvery is how often the benchmark asks the receivers for their progress. Their
	// own clocks say when the last delivery came.
	pollEvery = 20 * time.Millisecond
	// stalledAfter is how long no delivery may arrive before the run fails.
	stalledAfter = time.Minute
)

// delivered waits for a number of deliveries. It calls note, which may be nil, with the
// number so far, from time to time and at the end.
func (w *world) delivered(ctx context.Context, deliveries int, note func(delivered int)) error {
	last, at := -1, time.Now()
	for {
		report, err := w.b.receivers(ctx, receiveOrder{})
		if err != nil {
			return err
		}
		if note != nil {
			note(report.Delivered)
		}
		switch {
		case report.Delivered >= deliveries:
			return nil
		case report.Delivered > last:
			last, at = report.Delivered, time.Now()
		case time.Since(at) > stalledAfter:
			return fmt.Errorf("%d of %d deliveries arrived, and none for %s%s", last, deliveries, stalledAfter, w.walhook.lastWords())
		}
		if err := w.failed(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollEvery):
		}
	}
}

// failed returns the error of a walhook that has ended by itself; nil while all run.
func (w *world) failed() error {
	for _, sender := range w.senders {
		if err := sender.failed(); err != nil {
			return err
		}
	}
	return w.walhook.failed()
}
