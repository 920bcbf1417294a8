package bench

import (
	"context"
	"time"
)

// Idle is the measure idle: the cost of endpoints that get nothing.
type Idle struct {
	Endpoints int     `json:"endpoints"`
	Seconds   float64 `json:"seconds"` // of each observation
	// Started is a walhook that has sent nothing yet, with new endpoints. Delivered is
	// one that has just sent something to each. Rested is the same after SettleSeconds
	// without work.
	Started       Resting `json:"started"`
	Delivered     Resting `json:"delivered"`
	Rested        Resting `json:"rested"`
	SettleSeconds float64 `json:"settle_seconds"`
	Tallies       []Tally `json:"tallies"`
}

// Resting is what an idle walhook uses.
type Resting struct {
	RSS   Spread `json:"walhook_rss_mib"`
	Cores Cores  `json:"cores"`
}

type idleRun struct {
	started, delivered, rested rest
	tally                      Tally
}

type rest struct {
	rss   float64
	cores usage
}

func (b *bench) idle(ctx context.Context) error {
	result := &Idle{Endpoints: b.options.IdleEndpoints, Seconds: b.options.IdleLength.Seconds(), SettleSeconds: b.options.IdleSettle.Seconds()}
	var runs []idleRun
	for i := range b.options.Repetitions {
		b.step("idle: %d endpoints, %d of %d", b.options.IdleEndpoints, i+1, b.options.Repetitions)
		run, err := b.idleRun(ctx)
		if err != nil {
			return err
		}
		runs = append(runs, run)
		result.Tallies = append(result.Tallies, run.tally)
	}
	resting := func(of func(idleRun) rest) Resting {
		return Resting{
			RSS:   spreadOf(runs, func(r idleRun) float64 { return of(r).rss }),
			Cores: coresSpread(runs, func(r idleRun) usage { return of(r).cores }),
		}
	}
	result.Started = resting(func(r idleRun) rest { return r.started })
	result.Delivered = resting(func(r idleRun) rest { return r.delivered })
	result.Rested = resting(func(r idleRun) rest { return r.rested })
	b.report.Idle = result
	return nil
}

func (b *bench) idleRun(ctx context.Context) (run idleRun, err error) {
	n := b.options.IdleEndpoints
	w, err := b.newWorld(ctx, n, b.healthyURL)
	if err != nil {
		return run, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	if err := w.run(); err != nil {
		return run, err
	}
	if run.started, err = w.watch(ctx, b.options.IdleLength); err != nil {
		return run, err
	}
	first, err := w.expect(ctx, n, true)
	if err != nil {
		return run, err
	}
	if err := w.bulk(ctx, first, n); err != nil {
		return run, err
	}
	if err := w.delivered(ctx, n, nil); err != nil {
		return run, err
	}
	if run.tally, err = w.tally(ctx, n); err != nil {
		return run, err
	}
	if run.delivered, err = w.watch(ctx, b.options.IdleLength); err != nil {
		return run, err
	}
	if err := w.pass(ctx, b.options.IdleSettle); err != nil {
		return run, err
	}
	run.rested, err = w.watch(ctx, b.options.IdleLength)
	return run, err
}

// watch lets walhook settle for a sixth of the time and then observes it.
func (w *world) watch(ctx context.Context, length time.Duration) (r rest, err error) {
	if err := w.pass(ctx, length/6); err != nil {
		return r, err
	}
	before := w.usage()
	if err := w.pass(ctx, length); err != nil {
		return r, err
	}
	r.cores = w.usage().cores(before)
	r.rss = mebibytes(memoryOf(w.walhook.pid()).VmRSS)
	return r, nil
}

// pass waits, and fails if walhook ends meanwhile.
func (w *world) pass(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.walhook.done:
		return w.walhook.failed()
	case <-time.After(length):
		return nil
	}
}
