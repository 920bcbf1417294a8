package bench

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/pgsession"
)

// FanOut is the measure fan-out for one number of endpoints per account: each event goes
// to all of them.
type FanOut struct {
	Endpoints int `json:"endpoints"` // of each account
	Accounts  int `json:"accounts"`
	Changes   int `json:"changes"` // of each repetition

	PerSecond Spread     `json:"deliveries_per_second"` // as in drain
	Cost      CostSpread `json:"cost"`
	// OneEvent is the time from the commit of a single event to the last 2xx of its
	// endpoints, at ten events a second.
	OneEvent Quantiles `json:"commit_to_last_2xx_ms"`
	Tallies  []Tally   `json:"tallies"`
}

type fanOutRun struct {
	moved
	one latencyRun
}

// fanOutAccounts and fanOutRate are small, because the measure is about the many
// deliveries of one event.
const (
	fanOutAccounts = 20
	fanOutRate     = 10
)

func (b *bench) fanOut(ctx context.Context) error {
	for _, endpoints := range b.options.FanOut {
		result := FanOut{Endpoints: endpoints, Accounts: fanOutAccounts, Changes: max(b.options.FanOutDeliveries/endpoints, 1)}
		var runs []fanOutRun
		for i := range b.options.Repetitions {
			b.step("fan-out: %d changes to %d endpoints each, %d of %d", result.Changes, endpoints, i+1, b.options.Repetitions)
			run, err := b.fanOutRun(ctx, endpoints, result.Changes)
			if err != nil {
				return err
			}
			b.step("fan-out: %s deliveries/s", number(run.total))
			runs = append(runs, run)
			result.Tallies = append(result.Tallies, run.moved.tally, run.one.tally)
		}
		result.PerSecond = spreadOf(runs, func(r fanOutRun) float64 { return r.total })
		result.Cost = costSpread(runs, func(r fanOutRun) Cost { return r.cost })
		result.OneEvent = quantiles(runs, func(r fanOutRun) []time.Duration { return r.one.commit })
		b.report.FanOut = append(b.report.FanOut, result)
	}
	return nil
}

func (b *bench) fanOutRun(ctx context.Context, endpoints, changes int) (run fanOutRun, err error) {
	w, err := b.newWorld(ctx, fanOutAccounts, b.healthyURL)
	if err != nil {
		return run, err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	if err := w.addWebhooks(ctx, endpoints); err != nil {
		return run, err
	}
	if err := w.backlog(ctx, w.next, changes); err != nil {
		return run, err
	}
	if run.moved, err = w.move(ctx, changes); err != nil {
		return run, err
	}
	if err := w.run(); err != nil {
		return run, err
	}
	if err := w.warmUp(ctx); err != nil {
		return run, err
	}
	if run.one, err = w.latency(ctx, fanOutRate, b.options.Length/2, everyone, everyone); err != nil {
		return run, err
	}
	return run, w.stop()
}

// webhookID returns the id of an account's endpoint, by its number from 0. The first is
// that of the account's own URL.
func webhookID(number int64) string {
	if number == 0 {
		return "account"
	}
	return "bench" + strconv.FormatInt(number, 10)
}

// addWebhooks gives each account further endpoints for its records, as the API stores
// them, until it has the given number.
func (w *world) addWebhooks(ctx context.Context, endpoints int) error {
	w.copies = endpoints
	outbox, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return err
	}
	defer outbox.Close(context.WithoutCancel(ctx))
	more := endpoints - 1
	return w.insertWebhooks(ctx, outbox, w.accounts*more, func(i int) (account int, webhook, url string) {
		account, number := i/more, int64(i%more)+1
		return account, webhookID(number), w.b.healthyURL(account) + "/" + strconv.FormatInt(number, 10)
	})
}

// insertWebhooks stores a number of webhooks. one says of which account the i-th is, with
// its id and its URL.
func (w *world) insertWebhooks(ctx context.Context, outbox *pgx.Conn, n int, one func(i int) (account int, webhook, url string)) error {
	rows := pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		account, webhook, url := one(i)
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		return []any{
			strconv.FormatInt(carrier.AccountID(account), 10), webhook, url, "active",
			"whsec_" + base64.StdEncoding.EncodeToString(key),
		}, nil
	})
	err := pgx.BeginFunc(ctx, outbox, func(tx pgx.Tx) error {
		columns := []string{"account", "webhook", "url", "state", "secret"}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"walhook", "endpoint"}, columns, rows); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE walhook.webhooks_version SET version = version + 1`)
		return err
	})
	if err != nil {
		return fmt.Errorf("store %d webhooks: %w", n, err)
	}
	return nil
}
