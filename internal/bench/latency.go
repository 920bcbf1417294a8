package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Latency is the measure latency at one rate.
type Latency struct {
	Rate         float64 `json:"rate"`    // transactions a second, planned
	Seconds      float64 `json:"seconds"` // of each repetition
	Accounts     int     `json:"accounts"`
	Transactions int     `json:"transactions"` // of each repetition
	Committed    Spread  `json:"committed_per_second"`

	// Commit is the time from the commit to the receiver's 2xx, or to the last one of
	// several endpoints. PostgreSQL dates a commit just before it writes the commit
	// record to disk.
	Commit Quantiles `json:"commit_to_2xx_ms"`
	// Due is the time from the planned start of the transaction to the 2xx.
	Due Quantiles `json:"due_to_2xx_ms"`
	// Late is the delay of the start, which the load generator causes.
	Late Quantiles `json:"begun_late_ms"`

	Cores Cores `json:"cores"`

	// Direct is Commit of the floor: walhook's reader hands each change, rendered and
	// signed, straight to walhook's HTTP client, and nothing is stored. Each
	// repetition measures it after walhook, under the same load.
	Direct Quantiles `json:"direct_commit_to_2xx_ms"`
	// OfDirectP50 and OfDirectP99 are walhook's quantiles as multiples of the floor's
	// in the same repetition.
	OfDirectP50 Spread `json:"p50_of_direct"`
	OfDirectP99 Spread `json:"p99_of_direct"`
	DirectCores Cores  `json:"direct_cores"`

	Tallies []Tally `json:"tallies"`
}

// Quantiles are over the repetitions, in milliseconds.
type Quantiles struct {
	P50  Spread `json:"p50"`
	P99  Spread `json:"p99"`
	P999 Spread `json:"p99_9"`
	Max  Spread `json:"max"`
}

func quantiles[R any](runs []R, times func(R) []time.Duration) Quantiles {
	at := func(share float64) Spread {
		return spreadOf(runs, func(r R) float64 { return quantile(times(r), share) })
	}
	return Quantiles{P50: at(.5), P99: at(.99), P999: at(.999), Max: at(1)}
}

// quantile returns a quantile of sorted times, in milliseconds.
func quantile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(share*float64(len(sorted))+.999999) - 1
	return float64(sorted[min(max(i, 0), len(sorted)-1)].Microseconds()) / 1000
}

// latencyRun is one repetition; its times are sorted.
type latencyRun struct {
	commit, due, late []time.Duration
	rate              float64 // committed a second
	cores             usage
	used              usage // in all
	tally             Tally
	direct            *latencyRun // the floor, where it was measured
}

// ofDirect is a quantile as a multiple of the floor's.
func (r *latencyRun) ofDirect(share float64) float64 {
	return quantile(r.commit, share) / quantile(r.direct.commit, share)
}

// latency measures each rate in turn, once per repetition.
func (b *bench) latency(ctx context.Context) error {
	runs := make([][]latencyRun, len(b.options.Rates))
	for i := range b.options.Repetitions {
		b.step("latency: %v transactions/s, %s each, %d of %d", b.options.Rates, b.options.Length, i+1, b.options.Repetitions)
		if err := b.latencyRuns(ctx, runs); err != nil {
			return err
		}
	}
	for i, rate := range b.options.Rates {
		l := Latency{
			Rate: rate, Seconds: b.options.Length.Seconds(), Accounts: b.options.Accounts, Transactions: len(runs[i][0].late),
			Committed: spreadOf(runs[i], func(r latencyRun) float64 { return r.rate }),
			Commit:    quantiles(runs[i], func(r latencyRun) []time.Duration { return r.commit }),
			Due:       quantiles(runs[i], func(r latencyRun) []time.Duration { return r.due }),
			Late:      quantiles(runs[i], func(r latencyRun) []time.Duration { return r.late }),
			Cores:     coresSpread(runs[i], func(r latencyRun) usage { return r.cores }),

			Direct:      quantiles(runs[i], func(r latencyRun) []time.Duration { return r.direct.commit }),
			OfDirectP50: spreadOf(runs[i], func(r latencyRun) float64 { return r.ofDirect(.5) }),
			OfDirectP99: spreadOf(runs[i], func(r latencyRun) float64 { return r.ofDirect(.99) }),
			DirectCores: coresSpread(runs[i], func(r latencyRun) usage { return r.direct.cores }),
		}
		for _, r := range runs[i] {
			l.Tallies = append(l.Tallies, r.tally, r.direct.tally)
		}
		b.report.Latency = append(b.report.Latency, l)
	}
	return nil
}

// latencyRuns adds one run of each rate, all through one walhook and then through one
// process of the floor.
func (b *bench) latencyRuns(ctx context.Context, runs [][]latencyRun) (err error) {
	w, err := b.newWorld(ctx, b.options.Accounts, b.healthyURL)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	if err := w.run(); err != nil {
		return err
	}
	if err := w.warmUp(ctx); err != nil {
		return err
	}
	for i, rate := range b.options.Rates {
		run, err := w.latency(ctx, rate, b.options.Length, everyone, everyone)
		if err != nil {
			return err
		}
		b.step("latency: at %g/s p50 %s ms, p99 %s ms", rate, number(quantile(run.commit, .5)), number(quantile(run.commit, .99)))
		runs[i] = append(runs[i], run)
	}
	if err := w.stop(); err != nil {
		return err
	}
	return w.directRuns(ctx, runs)
}

// directRuns measures the floor at each rate, for the newest run of each.
func (w *world) directRuns(ctx context.Context, runs [][]latencyRun) error {
	stop, err := w.runDirect(ctx)
	if err != nil {
		return err
	}
	if err := w.warmUp(ctx); err != nil {
		return err
	}
	for i, rate := range w.b.options.Rates {
		run, err := w.latency(ctx, rate, w.b.options.Length, everyone, everyone)
		if err != nil {
			return err
		}
		newest := &runs[i][len(runs[i])-1]
		newest.direct = &run
		w.b.step("latency: at %g/s direct p50 %s ms, p99 %s ms", rate, number(quantile(run.commit, .5)), number(quantile(run.commit, .99)))
	}
	return stop()
}

// warmUp delivers something to every endpoint, so that connections are open and
// endpoints are loaded.
func (w *world) warmUp(ctx context.Context) error {
	const rate = 1000
	p, err := w.pace(ctx, rate, time.Duration(float64(w.accounts)/rate*float64(time.Second)))
	if err != nil {
		return err
	}
	return w.delivered(ctx, len(p.due)*w.copies, nil)
}

// everyone selects all accounts.
func everyone(int) bool { return true }

// latency commits at a rate for a while, waits for the deliveries to accounts that
// answer, and measures those of the selected accounts.
func (w *world) latency(ctx context.Context, rate float64, length time.Duration, answer, timed func(index int) bool) (run latencyRun, err error) {
	p, err := w.pace(ctx, rate, length)
	if err != nil {
		return run, err
	}
	want := 0
	for i := range p.due {
		if answer(i % w.accounts) {
			want += w.copies
		}
	}
	if err := w.delivered(ctx, want, nil); err != nil {
		return run, err
	}
	p.after = w.usage()
	if run.tally, err = w.tally(ctx, want); err != nil {
		return run, err
	}
	report, err := w.b.receivers(ctx, receiveOrder{Times: true})
	if err != nil {
		return run, err
	}
	commits, err := w.commits(ctx, p)
	if err != nil {
		return run, err
	}
	for i := range p.due {
		run.late = append(run.late, p.late[i])
		if !timed(i % w.accounts) {
			continue
		}
		copies := report.Times[i*w.copies : (i+1)*w.copies]
		if slices.Contains(copies, 0) {
			return run, fmt.Errorf("record %d was not delivered", p.first+int64(i))
		}
		answered := time.Unix(0, slices.Max(copies))
		run.commit = append(run.commit, answered.Sub(commits[i]))
		run.due = append(run.due, answered.Sub(p.due[i]))
	}
	for _, times := range [][]time.Duration{run.commit, run.due, run.late} {
		slices.Sort(times)
	}
	run.rate = float64(len(p.due)) / p.took.Seconds()
	run.cores, run.used = p.after.cores(p.before), p.after.since(p.before)
	return run, nil
}

// commits returns the times of the records' commits, by the source's clock.
func (w *world) commits(ctx context.Context, p *paced) ([]time.Time, error) {
	const sql = `SELECT id, pg_xact_commit_timestamp(xmin) FROM dids WHERE id >= $1 AND id < $2`
	rows, err := w.conn.Query(ctx, sql, p.first, p.first+int64(len(p.due)))
	if err != nil {
		return nil, err
	}
	times := make([]time.Time, len(p.due))
	var id int64
	var at time.Time
	tag, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error {
		times[id-p.first] = at
		return nil
	})
	if err == nil && int(tag.RowsAffected()) != len(times) {
		err = fmt.Errorf("%d of %d records were committed", tag.RowsAffected(), len(times))
	}
	return times, err
}
