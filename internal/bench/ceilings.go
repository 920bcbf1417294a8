package bench

import (
	"context"
	"fmt"
	"time"

	"walhook/internal/carrier"
	"walhook/schemas"
)

// decodeOnly returns how many changes a second walhook's reader alone processes. It
// includes the start and stop of the process, as for pg_recvlogical.
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

// plainPosts returns how many requests a second net/http makes to the same receivers,
// with bodies like those of the records from w.next on. The receivers count them as they
// count walhook's.
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
