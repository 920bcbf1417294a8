package bench

import (
	"context"
)

// Throughput is the measures drain and bulk: a number of changes, committed before
// walhook starts, until the last 2xx.
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
	Cores        Cores      `json:"cores"`

	// The ceilings, measured in the same repetition.
	PlainPosts   Spread  `json:"plain_posts_per_second"`
	ShareOfPosts Spread  `json:"share_of_plain_posts"`
	Decoded      Spread  `json:"decoded_changes_per_second"`
	ShareOfRead  Spread  `json:"share_of_decoded"`
	Recvlogical  *Spread `json:"pg_recvlogical_changes_per_second,omitempty"` // nil if it is not installed
	ShareOfRecv  *Spread `json:"decoded_share_of_pg_recvlogical,omitempty"`

	Tallies []Tally `json:"tallies"`

	// Batches is of drain, where a number of events of a batch is given.
	Batches *Batches `json:"batches,omitempty"`
}

// throughputRun is one repetition.
type throughputRun struct {
	moved
	posts, decoded, recvlogical float64 // per second
}

// drain measures single-row transactions.
func (b *bench) drain(ctx context.Context) error {
	result, err := b.throughput(ctx, "drain", (*world).backlog)
	b.report.Drain = result
	if err != nil || b.options.Batch == 0 {
		return err
	}
	result.Batches, err = b.batches(ctx)
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
	result.Cores = coresSpread(runs, func(r r) usage { return r.cores })
	result.PlainPosts = spreadOf(runs, func(r r) float64 { return r.posts })
	result.ShareOfPosts = spreadOf(runs, func(r r) float64 { return r.total / r.posts })
	result.Decoded = spreadOf(runs, func(r r) float64 { return r.decoded })
	result.ShareOfRead = spreadOf(runs, func(r r) float64 { return r.total / r.decoded })
	if b.recvlogical() != "" {
		result.Recvlogical = new(spreadOf(runs, func(r r) float64 { return r.recvlogical }))
		result.ShareOfRecv = new(spreadOf(runs, func(r r) float64 { return r.decoded / r.recvlogical }))
	}
	return result, nil
}

// throughputRun makes the backlog and measures first the ceilings and then walhook on
// it.
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
		run.recvlogical = float64(n) / took.Seconds()
	}
	if run.decoded, err = w.decodeOnly(ctx, decode, n); err != nil {
		return run, err
	}
	if run.posts, err = w.plainPosts(ctx, n); err != nil {
		return run, err
	}

	w.next = first
	run.moved, err = w.move(ctx, n)
	return run, err
}
