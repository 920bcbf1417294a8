package bench

import (
	"context"
	"fmt"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/receiver"
)

// Trouble is the measure trouble: what hanging and refusing endpoints cost the healthy
// ones. Each repetition first measures without trouble, and then with it, with the same
// walhook and at the same rate.
type Trouble struct {
	Endpoints int     `json:"endpoints"`
	Hanging   int     `json:"hanging_percent"`  // take requests and never answer
	Refusing  int     `json:"refusing_percent"` // refuse connections
	Rate      float64 `json:"rate"`             // transactions a second, over all endpoints in turn
	Seconds   float64 `json:"seconds"`          // of each of the two

	Calm    Quantiles `json:"calm_commit_to_2xx_ms"` // of the healthy
	Trouble Quantiles `json:"trouble_commit_to_2xx_ms"`
	// Ratio is the p99 in trouble divided by the calm p99.
	Ratio Spread `json:"p99_ratio"`
	// Hung is the most requests that hung at once.
	Hung    Spread  `json:"peak_requests_in_flight"`
	PeakRSS Spread  `json:"walhook_peak_rss_mib"`
	Cores   Cores   `json:"cores"`   // in trouble
	Tallies []Tally `json:"tallies"` // calm, of all records, and in trouble, of the healthy ones
}

type troubleRun struct {
	calm, trouble latencyRun
	peak          float64
}

func (b *bench) trouble(ctx context.Context) error {
	o := b.options
	t := &Trouble{Endpoints: o.Endpoints, Hanging: o.Hanging, Refusing: o.Refusing, Rate: o.TroubleRate, Seconds: o.TroubleLength.Seconds()}
	var runs []troubleRun
	for i := range o.Repetitions {
		b.step("trouble: %d endpoints, %d %% hang, %d %% refuse, %g transactions/s, %d of %d",
			o.Endpoints, o.Hanging, o.Refusing, o.TroubleRate, i+1, o.Repetitions)
		run, err := b.troubleRun(ctx)
		if err != nil {
			return err
		}
		b.step("trouble: the healthy ones' p99 is %s ms calm and %s ms in trouble",
			number(quantile(run.calm.commit, .99)), number(quantile(run.trouble.commit, .99)))
		runs = append(runs, run)
		t.Tallies = append(t.Tallies, run.calm.tally, run.trouble.tally)
	}
	t.Calm = quantiles(runs, func(r troubleRun) []time.Duration { return r.calm.commit })
	t.Trouble = quantiles(runs, func(r troubleRun) []time.Duration { return r.trouble.commit })
	t.Ratio = spreadOf(runs, func(r troubleRun) float64 {
		return quantile(r.trouble.commit, .99) / quantile(r.calm.commit, .99)
	})
	t.Hung = spreadOf(runs, func(r troubleRun) float64 { return float64(r.trouble.tally.PeakInFlight) })
	t.Cores = coresSpread(runs, func(r troubleRun) usage { return r.trouble.cores })
	t.PeakRSS = spreadOf(runs, func(r troubleRun) float64 { return r.peak })
	b.report.Trouble = t
	return nil
}

func (b *bench) troubleRun(ctx context.Context) (run troubleRun, err error) {
	o := b.options
	w, err := b.newWorld(ctx, o.Endpoints, b.healthyURL)
	if err != nil {
		return run, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	if err := w.run(); err != nil {
		return run, err
	}
	if err := w.warmUp(ctx); err != nil {
		return run, err
	}
	healthy := func(index int) bool { return index%100 >= o.Hanging+o.Refusing }
	if run.calm, err = w.latency(ctx, o.TroubleRate, o.TroubleLength, everyone, healthy); err != nil {
		return run, err
	}
	refusal, err := receiver.Refuse()
	if err != nil {
		return run, err
	}
	defer refusal.Close()
	if _, err := b.receivers(ctx, receiveOrder{Hang: &hang{Below: o.Hanging, FirstAccount: carrier.AccountID(0)}}); err != nil {
		return run, err
	}
	defer func() { err = joined(err, b.endHanging(ctx)) }()
	const refuse = `UPDATE users SET web_hook_url = $1 || id WHERE (id - $2) % 100 >= $3 AND (id - $2) % 100 < $4`
	if _, err := w.conn.Exec(ctx, refuse, refusal.URL(""), carrier.AccountID(0), o.Hanging, o.Hanging+o.Refusing); err != nil {
		return run, fmt.Errorf("point endpoints to a port that refuses: %w", err)
	}
	if run.trouble, err = w.latency(ctx, o.TroubleRate, o.TroubleLength, healthy, healthy); err != nil {
		return run, err
	}
	run.peak = mebibytes(memoryOf(w.walhook.pid()).VmHWM)
	return run, nil
}

func (b *bench) endHanging(ctx context.Context) error {
	_, err := b.receivers(context.WithoutCancel(ctx), receiveOrder{Hang: &hang{}})
	return err
}
