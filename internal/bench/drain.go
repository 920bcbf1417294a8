package bench

import (
	"context"
	"fmt"
	"time"

	"walhook/internal/carrier"
	"walhook/schemas"
)

// Throughput is the measures drain and bulk: so many changes, committed before
// walhook starts, to the last 2xx.
type Throughput struct {
	Changes     int `json:"changes"`
	Accounts    int `json:"accounts"`
	Receivers   int `json:"receivers"`
	Concurrency int `json:"plain_post_concurrency"`

	// PerSecond counts from the start of the process to the last 2xx.
	PerSecond Spread `json:"deliveries_per_second"`
	// Steady counts from the first 2xx to the last.
	Steady       Spread     `json:"steady_deliveries_per_second"`
	FirstSeconds Spread     `json:"first_2xx_after_seconds"`
	Cost         CostSpread `json:"cost"`

	// The ceilings, measured in the same repetition.
	PlainPosts   Spread  `json:"plain_posts_per_second"`
	ShareOfPosts Spread  `json:"share_of_plain_posts"`
	Decoded      Spread  `json:"decoded_changes_per_second"`
	ShareOfRead  Spread  `json:"share_of_decoded"`
	Recvlogical  *Spread `json:"pg_recvlogical_changes_per_second,omitempty"` // none where it is not installed
	ShareOfRecv  *Spread `json:"decoded_share_of_pg_recvlogical,omitempty"`

	Tallies []Tally `json:"tallies"`
}

// throughputRun is one repetition.
type throughputRun struct {
	total, steady, first      float64 // per second, per second, seconds
	cost                      Cost
	posts, decoded, recvlogic float64 // per second
	tally                     Tally
}

// drain measures single-row transactions.
func (b *bench) drain(ctx context.Context) error {
	result, err := b.throughput(ctx, "drain", (*world).backlog)
	b.report.Drain = result
	return err
}

// bulk measures one transaction.
func (b *bench) bulk(ctx context.Context) error {
	result, err := b.throughput(ctx, "bulk", (*world).bulk)
	b.report.Bulk = result
	return err
}

type commitFunc func(w *world, ctx context.Context, first int64, records int) error

func (b *bench) throughput(ctx context.Context, name string, commit commitFunc) (*Throughput, error) {
	o := b.options
	result := &Throughput{Changes: o.Changes, Accounts: o.Accounts, Receivers: o.Receivers, Concurrency: o.Concurrency}
	var runs []throughputRun
	for i := range o.Repetitions {
		b.step("%s: %d changes over %d accounts, %d of %d", name, o.Changes, o.Accounts, i+1, o.Repetitions)
		run, err := b.throughputRun(ctx, commit)
		if err != nil {
			return nil, err
		}
		b.step("%s: %s deliveries/s; plain POSTs %s/s, decode-only %s/s", name, number(run.total), number(run.posts), number(run.decoded))
		runs = append(runs, run)
		result.Tallies = append(result.Tallies, run.tally)
	}
	type r = throughputRun
	result.PerSecond = spreadOf(runs, func(r r) float64 { return r.total })
	result.Steady = spreadOf(runs, func(r r) float64 { return r.steady })
	result.FirstSeconds = spreadOf(runs, func(r r) float64 { return r.first })
	result.Cost = costSpread(runs, func(r r) Cost { return r.cost })
	result.PlainPosts = spreadOf(runs, func(r r) float64 { return r.posts })
	result.ShareOfPosts = spreadOf(runs, func(r r) float64 { return r.total / r.posts })
	result.Decoded = spreadOf(runs, func(r r) float64 { return r.decoded })
	result.ShareOfRead = spreadOf(runs, func(r r) float64 { return r.total / r.decoded })
	if b.recvlogical() != "" {
		result.Recvlogical = new(spreadOf(runs, func(r r) float64 { return r.recvlogic }))
		result.ShareOfRecv = new(spreadOf(runs, func(r r) float64 { return r.decoded / r.recvlogic }))
	}
	return result, nil
}

// throughputRun makes the backlog, measures the ceilings on it, and then
// walhook.
func (b *bench) throughputRun(ctx context.Context, commit commitFunc) (run throughputRun, err error) {
	n := b.options.Changes
	w, err := b.newWorld(ctx, b.options.Accounts, b.healthyURL)
	if err != nil {
		return run, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	decode, err := decodeSlot(ctx, w.source, w.name+"_decode")
	if err != nil {
		return run, err
	}
	recvlogical := b.recvlogical()
	if recvlogical != "" {
		if _, err := w.conn.Exec(ctx, makeRecvSlot, w.name+"_recv"); err != nil {
			return run, err
		}
	}
	first := w.next
	if err := commit(w, ctx, first, n); err != nil {
		return run, err
	}

	if recvlogical != "" {
		took, err := w.receiveAll(ctx, recvlogical, w.name+"_recv")
		if err != nil {
			return run, err
		}
		run.recvlogic = float64(n) / took.Seconds()
	}
	if run.decoded, err = w.decodeOnly(ctx, decode, n); err != nil {
		return run, err
	}
	if run.posts, err = w.plainPosts(ctx, n); err != nil {
		return run, err
	}

	before, err := b.meter(ctx)
	if err != nil {
		return run, err
	}
	w.next = first
	if _, err := w.expect(ctx, n, true); err != nil {
		return run, err
	}
	if err := w.run(); err != nil {
		return run, err
	}
	if err := w.delivered(ctx, n); err != nil {
		return run, err
	}
	walhook, peak := w.walhook, peakRSS(w.walhook.pid())
	if err := w.stop(); err != nil {
		return run, err
	}
	if run.tally, err = w.tally(ctx, n); err != nil {
		return run, err
	}
	run.total = float64(n) / run.tally.Last.Sub(w.started).Seconds()
	run.steady = float64(n) / run.tally.Last.Sub(run.tally.First).Seconds()
	run.first = run.tally.First.Sub(w.started).Seconds()
	run.cost, err = b.cost(ctx, walhook, peak, before, n)
	return run, err
}

// decodeOnly is how many changes a second go through walhook's reader alone.
// As with pg_recvlogical, the process's start and stop are in it.
func (w *world) decodeOnly(ctx context.Context, from schemas.Checkpoint, changes int) (float64, error) {
	began := time.Now()
	h, err := w.b.options.Walhook.help(w.b.dir, helpDecode)
	if err != nil {
		return 0, err
	}
	var result decodeResult
	job := decodeJob{Source: w.source, Slot: w.name + "_decode", Checkpoint: from, Changes: changes}
	if err := joined(h.ask(ctx, job, &result), h.end(ctx)); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if result.Changes != changes {
		return 0, fmt.Errorf("decode: %d changes, want %d", result.Changes, changes)
	}
	return float64(changes) / took.Seconds(), nil
}

// plainPosts is how many requests a second net/http makes, with bodies such as
// those of the records from w.next on, to the same receivers. All are counted
// as walhook's are.
func (w *world) plainPosts(ctx context.Context, n int) (float64, error) {
	rest, err := w.rest(ctx, w.next)
	if err != nil {
		return 0, err
	}
	first, err := w.expect(ctx, n, false)
	if err != nil {
		return 0, err
	}
	h, err := w.b.options.Walhook.help(w.b.dir, helpPost)
	if err != nil {
		return 0, err
	}
	job := postJob{
		Addresses: w.b.addresses, First: first, Count: int64(n), Rest: rest,
		Concurrency: w.b.options.Concurrency, Version: w.b.options.Version,
	}
	for i := range w.accounts {
		job.Accounts = append(job.Accounts, carrier.AccountID(i))
	}
	var result postResult
	if err := joined(h.ask(ctx, job, &result), h.end(ctx)); err != nil {
		return 0, err
	}
	t, err := w.tally(ctx, n)
	if err != nil {
		return 0, err
	}
	if t.Delivered != n || t.Again > 0 {
		return 0, fmt.Errorf("plain POSTs: %d arrived and %d again, want %d", t.Delivered, t.Again, n)
	}
	return float64(n) / result.Seconds, nil
}
