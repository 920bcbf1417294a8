package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"walhook/internal/pgsession"
)

// Waiting is the measure waiting: the cost of a delivery while a number of events wait
// in the outbox. A publisher appends them and ends; then a sender starts.
type Waiting struct {
	Events int `json:"events"`
	// Figures from the last look before the first 2xx to the last 2xx.
	PerSecond Spread `json:"deliveries_per_second"`
	CPU       Spread `json:"cpu_seconds_per_1000"` // of walhook and PostgreSQL
	// Part is the smallest number of events of the measure. The first so many deliveries
	// of a run have the rest waiting behind them, the last so many have none; so a cost of
	// what waits is told apart from a cost of a long run.
	Part     int     `json:"part"`
	FirstCPU Spread  `json:"first_part_cpu_seconds_per_1000"`
	LastCPU  Spread  `json:"last_part_cpu_seconds_per_1000"`
	Tallies  []Tally `json:"tallies"`
}

// mark is the progress of the deliveries at a moment.
type mark struct {
	delivered int
	used      usage
}

func (m mark) rate(since mark) float64 {
	return float64(m.delivered-since.delivered) / m.used.at.Sub(since.used.at).Seconds()
}

// cpu returns the CPU seconds per 1,000 deliveries.
func (m mark) cpu(since mark) float64 {
	used := m.used.walhook - since.used.walhook + m.used.postgres - since.used.postgres
	return 1000 * used / float64(m.delivered-since.delivered)
}

type waitingRun struct {
	first, last           mark
	firstPart, beforeLast mark // after the first part, and before the last one
	tally                 Tally
}

// waitingRounds returns how often a repetition measures a small number of events, since
// one short run says little.
func waitingRounds(events int) int { return min(max(100_000/events, 1), 5) }

func (b *bench) waiting(ctx context.Context) error {
	for _, events := range b.options.Waiting {
		part := slices.Min(b.options.Waiting)
		var runs []waitingRun
		for i := range b.options.Repetitions {
			b.step("waiting: %d events, %d of %d", events, i+1, b.options.Repetitions)
			more, err := b.waitingRuns(ctx, events, part)
			if err != nil {
				return err
			}
			runs = append(runs, more...)
		}
		result := Waiting{
			Events:    events,
			PerSecond: spreadOf(runs, func(r waitingRun) float64 { return r.last.rate(r.first) }),
			CPU:       spreadOf(runs, func(r waitingRun) float64 { return r.last.cpu(r.first) }),
			Part:      part,
			FirstCPU:  spreadOf(runs, func(r waitingRun) float64 { return r.firstPart.cpu(r.first) }),
			LastCPU:   spreadOf(runs, func(r waitingRun) float64 { return r.last.cpu(r.beforeLast) }),
		}
		for _, r := range runs {
			result.Tallies = append(result.Tallies, r.tally)
		}
		b.report.Waiting = append(b.report.Waiting, result)
	}
	return nil
}

func (b *bench) waitingRuns(ctx context.Context, events, part int) (runs []waitingRun, err error) {
	w, err := b.newWorld(ctx, b.options.Accounts, b.healthyURL)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	for range waitingRounds(events) {
		run, err := w.waiting(ctx, events, part)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
	}
	return runs, nil
}

func (w *world) waiting(ctx context.Context, events, part int) (run waitingRun, err error) {
	if err := w.publish(ctx, events); err != nil {
		return run, err
	}
	// The vacuum for many events is not a cost of delivering a few.
	if err := w.vacuum(ctx); err != nil {
		return run, err
	}
	if _, err := w.expect(ctx, events, true); err != nil {
		return run, err
	}
	run.first.used = w.usage() // no walhook runs
	if err := w.run("--role", "sender"); err != nil {
		return run, err
	}
	err = w.delivered(ctx, events, func(delivered int) {
		if run.last = (mark{delivered, w.usage()}); delivered == 0 {
			run.first = run.last
		}
		if run.firstPart.delivered < part {
			run.firstPart = run.last
		}
		if delivered <= events-part || run.beforeLast.used.at.IsZero() {
			run.beforeLast = run.last
		}
	})
	if err != nil {
		return run, err
	}
	if run.tally, err = w.tally(ctx, events); err != nil {
		return run, err
	}
	return run, w.stop()
}

// publish commits records from w.next on and appends them to the outbox without
// delivering them.
func (w *world) publish(ctx context.Context, events int) error {
	outbox, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return err
	}
	defer outbox.Close(context.WithoutCancel(ctx))
	const lastID = `SELECT coalesce(max(id), 0) FROM walhook.event`
	var before, now int64
	if err := outbox.QueryRow(ctx, lastID).Scan(&before); err != nil {
		return err
	}
	if err := w.bulk(ctx, w.next, events); err != nil {
		return err
	}
	if err := w.run("--role", "publisher"); err != nil {
		return err
	}
	for now < before+int64(events) {
		if err := w.pass(ctx, 5*pollEvery); err != nil {
			return err
		}
		if err := outbox.QueryRow(ctx, lastID).Scan(&now); err != nil {
			return err
		}
		if time.Since(w.started) > stalledAfter+time.Duration(events)*time.Millisecond {
			return fmt.Errorf("publish: %d of %d events are in the outbox%s", now-before, events, w.walhook.lastWords())
		}
	}
	return w.stop()
}
