package bench

import (
	"context"
	"fmt"

	"walhook/internal/pgsession"
)

// Batches is a part of the measure drain: the same stored events, first one by one and
// then in batches, or the other way round. A publisher appends them and ends; then a
// sender starts on a copy of the outbox, and another one on a second copy.
type Batches struct {
	Batch    int `json:"batch"` // the most events of a request
	Changes  int `json:"changes"`
	Accounts int `json:"accounts"`

	// Deliveries of events, from the start of the process to the last 2xx.
	Single    Spread `json:"deliveries_per_second_one_by_one"`
	PerSecond Spread `json:"deliveries_per_second"`
	Ratio     Spread `json:"ratio"` // of the two in the same repetition
	// EventsPerRequest depends on what waits for an endpoint: with many accounts a batch
	// is seldom full.
	EventsPerRequest Spread     `json:"events_per_request"`
	SingleCost       CostSpread `json:"cost_one_by_one"`
	Cost             CostSpread `json:"cost"`
	Tallies          []Tally    `json:"tallies"`
}

// batchesRun is one repetition.
type batchesRun struct{ single, batched moved }

// batches measures one by one and batches in turns: every second repetition begins with
// batches.
func (b *bench) batches(ctx context.Context) (*Batches, error) {
	o := b.options
	result := &Batches{Batch: o.Batch, Changes: o.Changes, Accounts: o.Accounts}
	var runs []batchesRun
	for i := range o.Repetitions {
		b.step("drain in batches of %d: %d stored events over %d accounts, %d of %d", o.Batch, o.Changes, o.Accounts, i+1, o.Repetitions)
		run, err := b.batchesRun(ctx, i%2 == 1)
		if err != nil {
			return nil, fmt.Errorf("batches: %w", err)
		}
		b.step("drain in batches: %s deliveries/s, one by one %s/s", number(run.batched.total), number(run.single.total))
		runs = append(runs, run)
		result.Tallies = append(result.Tallies, run.single.tally, run.batched.tally)
	}
	type r = batchesRun
	result.Single = spreadOf(runs, func(r r) float64 { return r.single.total })
	result.PerSecond = spreadOf(runs, func(r r) float64 { return r.batched.total })
	result.Ratio = spreadOf(runs, func(r r) float64 { return r.batched.total / r.single.total })
	result.EventsPerRequest = spreadOf(runs, func(r r) float64 {
		return float64(r.batched.tally.Delivered) / float64(r.batched.tally.Requests)
	})
	result.SingleCost = costSpread(runs, func(r r) Cost { return r.single.cost })
	result.Cost = costSpread(runs, func(r r) Cost { return r.batched.cost })
	return result, nil
}

func (b *bench) batchesRun(ctx context.Context, batchesFirst bool) (run batchesRun, err error) {
	// An account's own URL has no batches, so each account has a webhook instead.
	w, err := b.newWorld(ctx, b.options.Accounts, func(int) string { return "" })
	if err != nil {
		return run, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	if err := w.onlyWebhooks(ctx); err != nil {
		return run, err
	}
	if err := w.publish(ctx, b.options.Changes); err != nil {
		return run, err
	}
	if err := w.vacuum(ctx); err != nil {
		return run, err
	}
	for _, batched := range []bool{batchesFirst, !batchesFirst} {
		if batched {
			run.batched, err = w.moveCopy(ctx, b.options.Batch)
		} else {
			run.single, err = w.moveCopy(ctx, 0)
		}
		if err != nil {
			return run, err
		}
	}
	return run, nil
}

// onlyWebhooks gives each account one webhook for its records.
func (w *world) onlyWebhooks(ctx context.Context) error {
	outbox, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return err
	}
	defer outbox.Close(context.WithoutCancel(ctx))
	w.onlyWebhook = webhookID(1)
	return w.insertWebhooks(ctx, outbox, w.accounts, func(i int) (account int, webhook, url string) {
		return i, w.onlyWebhook, w.b.healthyURL(i)
	})
}

// moveCopy delivers what is stored from a copy of the outbox, which it drops, so that the
// next one finds the same. Every event must come exactly once.
func (w *world) moveCopy(ctx context.Context, batch int) (m moved, err error) {
	original, name := w.outbox, w.name+"_outbox_copy"
	if _, err := w.b.admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+w.name+"_outbox"); err != nil {
		return m, fmt.Errorf("copy the outbox: %w", err)
	}
	w.outbox, w.batch = w.server.URL(name), batch
	first := w.next
	defer func() {
		w.outbox, w.batch, w.next = original, 0, first
		if w.walhook != nil { // after an error
			w.walhook.kill()
			w.walhook = nil
		}
		err = joined(err, dropDatabase(context.WithoutCancel(ctx), w.b.admin, name))
	}()
	if err := w.setBatch(ctx); err != nil {
		return m, err
	}
	if m, err = w.move(ctx, w.b.options.Changes, "--role", "sender"); err != nil {
		return m, err
	}
	if m.tally.Again > 0 {
		return m, fmt.Errorf("%d events came again", m.tally.Again)
	}
	return m, nil
}

// setBatch stores the world's batch at every endpoint.
func (w *world) setBatch(ctx context.Context) error {
	outbox, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return err
	}
	defer outbox.Close(context.WithoutCancel(ctx))
	const set = `UPDATE walhook.endpoint SET batch = $1, changed_at = clock_timestamp() WHERE webhook = $2`
	if _, err := outbox.Exec(ctx, set, w.batch, w.onlyWebhook); err != nil {
		return fmt.Errorf("give each webhook batches of %d: %w", w.batch, err)
	}
	return nil
}
