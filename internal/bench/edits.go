package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/outbox"
	"walhook/outbox/admin"
)

// Edits is the measure edits: what everybody's deliveries cost while webhooks of other
// accounts are edited.
type Edits struct {
	Webhooks int     `json:"webhooks"` // of other accounts, that get nothing
	Rate     float64 `json:"rate"`     // transactions a second, planned
	Seconds  float64 `json:"seconds"`  // of each repetition
	Planned  float64 `json:"edits_per_second_planned"`
	Edited   Spread  `json:"edits_per_second"`

	Quiet   Quantiles `json:"commit_to_2xx_ms"`              // without edits
	Edit    Quantiles `json:"commit_to_2xx_ms_while_edited"` // in the same world
	OfP50   Spread    `json:"p50_of_quiet"`                  // in the same repetition
	OfP99   Spread    `json:"p99_of_quiet"`
	RSS     Spread    `json:"walhook_rss_mib"` // once all webhooks are read
	Tallies []Tally   `json:"tallies"`
}

type editsRun struct {
	quiet, edit latencyRun
	edited      float64 // a second
	rss         float64
}

func (b *bench) edits(ctx context.Context) error {
	o := b.options
	result := &Edits{Webhooks: o.EditWebhooks, Rate: o.EditRate, Seconds: o.Length.Seconds(), Planned: o.Edits}
	runs, err := b.editsRuns(ctx)
	if err != nil {
		return err
	}
	result.Edited = spreadOf(runs, func(r editsRun) float64 { return r.edited })
	result.Quiet = quantiles(runs, func(r editsRun) []time.Duration { return r.quiet.commit })
	result.Edit = quantiles(runs, func(r editsRun) []time.Duration { return r.edit.commit })
	of := func(share float64) Spread {
		return spreadOf(runs, func(r editsRun) float64 { return quantile(r.edit.commit, share) / quantile(r.quiet.commit, share) })
	}
	result.OfP50, result.OfP99 = of(.5), of(.99)
	result.RSS = spreadOf(runs, func(r editsRun) float64 { return r.rss })
	for _, r := range runs {
		result.Tallies = append(result.Tallies, r.quiet.tally, r.edit.tally)
	}
	b.report.Edits = result
	return nil
}

// editsRuns alternates between runs without and with edits, all through one walhook.
func (b *bench) editsRuns(ctx context.Context) (runs []editsRun, err error) {
	o := b.options
	w, err := b.newWorld(ctx, o.Accounts, b.healthyURL)
	if err != nil {
		return nil, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	b.step("edits: storing %d webhooks", o.EditWebhooks)
	if err := w.addOthers(ctx, o.EditWebhooks); err != nil {
		return nil, err
	}
	store, err := outbox.Open(ctx, outbox.Config{URL: w.outbox}, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if err := w.run(); err != nil {
		return nil, err
	}
	if err := w.warmUp(ctx); err != nil {
		return nil, err
	}
	for i := range o.Repetitions {
		b.step("edits: %g transactions/s without and with %g edits/s, %d of %d", o.EditRate, o.Edits, i+1, o.Repetitions)
		run := editsRun{rss: mebibytes(memoryOf(w.walhook.pid()).VmRSS)}
		quiet := func() (err error) {
			run.quiet, err = w.latency(ctx, o.EditRate, o.Length, everyone, everyone)
			return err
		}
		edit := func() (err error) {
			run.edit, run.edited, err = w.whileEdited(ctx, admin.New(store))
			return err
		}
		order := []func() error{quiet, edit}
		if i%2 == 1 {
			order[0], order[1] = edit, quiet
		}
		for _, one := range order {
			if err := one(); err != nil {
				return nil, err
			}
		}
		b.step("edits: p99 %s ms without, %s ms with %s edits/s", number(quantile(run.quiet.commit, .99)), number(quantile(run.edit.commit, .99)), number(run.edited))
		runs = append(runs, run)
	}
	return runs, w.stop()
}

const (
	othersSQL = `
		INSERT INTO walhook.endpoint (account, webhook, url, state, secret)
		SELECT 'other' || n, md5(n::text), 'https://receiver.example.com/hooks/' || n, 'active', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
		FROM generate_series(1::bigint, $1) n`

	// A process that says no more than this makes the publisher read all webhooks.
	editedSQL = `UPDATE walhook.webhooks_version SET version = version + 1`
)

// addOthers gives other accounts a webhook each, as the API stores them.
func (w *world) addOthers(ctx context.Context, webhooks int) error {
	conn, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, othersSQL, webhooks); err != nil {
		return fmt.Errorf("store %d webhooks: %w", webhooks, err)
	}
	for _, sql := range []string{editedSQL, "VACUUM ANALYZE walhook.endpoint"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// editors is how many edits may be under way: each waits for the one before it.
const editors = 4

// whileEdited is a latency run while webhooks of other accounts are edited, and how many
// were a second.
func (w *world) whileEdited(ctx context.Context, api *admin.Admin) (run latencyRun, rate float64, err error) {
	o := w.b.options
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	due := make(chan struct{}, editors)
	var edited atomic.Int64
	var running sync.WaitGroup
	for range editors {
		running.Go(func() {
			for range due {
				if err := editOther(ctx, api, 1+rand.N(o.EditWebhooks)); err != nil {
					cancel(err)
					return
				}
				edited.Add(1)
			}
		})
	}
	running.Go(func() {
		defer close(due)
		tick := time.NewTicker(time.Duration(float64(time.Second) / o.Edits))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
				select {
				case due <- struct{}{}:
				default: // the editors are behind
				}
			}
		}
	})
	began := time.Now()
	run, err = w.latency(ctx, o.EditRate, o.Length, everyone, everyone)
	rate = float64(edited.Load()) / time.Since(began).Seconds()
	close(done)
	running.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return run, rate, err
}

// editOther edits a webhook that addOthers made.
func editOther(ctx context.Context, api *admin.Admin, number int) error {
	account := fmt.Sprint("other", number)
	list, err := api.Webhooks(ctx, account, 0, 1)
	if err != nil || len(list) == 0 {
		return fmt.Errorf("list the webhooks of account %s: %d, %w", account, len(list), err)
	}
	_, err = api.EditWebhook(ctx, admin.Caller{}, account, list[0].ID, func(w *admin.Webhook) error {
		w.Name = time.Now().String()
		return nil
	})
	return err
}
