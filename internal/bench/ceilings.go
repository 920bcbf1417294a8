package bench

import (
	"context"
	"fmt"
	"time"

	"walhook/internal/carrier"
	"walhook/schemas"
)

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
