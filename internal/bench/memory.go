package bench

import "context"

// Memory is the measure memory: walhook's peak memory during many changes.
type Memory struct {
	Drain Volume `json:"drain"` // single-row transactions
	Bulk  Volume `json:"bulk"`  // one transaction
}

// Volume is the result for a number of changes.
type Volume struct {
	Changes   int     `json:"changes"`
	PeakRSS   Spread  `json:"walhook_peak_rss_mib"`
	PerSecond Spread  `json:"deliveries_per_second"` // as of drain
	Tallies   []Tally `json:"tallies"`
}

func (b *bench) memory(ctx context.Context) error {
	drain, err := b.volume(ctx, b.options.MemoryChanges, (*world).backlog)
	if err != nil {
		return err
	}
	bulk, err := b.volume(ctx, b.options.MemoryRows, (*world).bulk)
	if err != nil {
		return err
	}
	b.report.Memory = &Memory{Drain: drain, Bulk: bulk}
	return nil
}

func (b *bench) volume(ctx context.Context, n int, commit commitFunc) (Volume, error) {
	var runs []moved
	result := Volume{Changes: n}
	for i := range b.options.Repetitions {
		b.step("memory: %d changes, %d of %d", n, i+1, b.options.Repetitions)
		run, err := b.volumeRun(ctx, n, commit)
		if err != nil {
			return result, err
		}
		b.step("memory: at most %s MiB", number(run.cost.PeakRSS))
		runs = append(runs, run)
		result.Tallies = append(result.Tallies, run.tally)
	}
	result.PeakRSS = spreadOf(runs, func(m moved) float64 { return m.cost.PeakRSS })
	result.PerSecond = spreadOf(runs, func(m moved) float64 { return m.total })
	return result, nil
}

func (b *bench) volumeRun(ctx context.Context, n int, commit commitFunc) (run moved, err error) {
	w, err := b.newWorld(ctx, b.options.Accounts, b.healthyURL)
	if err != nil {
		return run, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	if err := commit(w, ctx, w.next, n); err != nil {
		return run, err
	}
	return w.move(ctx, n)
}
