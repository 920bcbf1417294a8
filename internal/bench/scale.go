package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"walhook/internal/pgcluster"
	"walhook/internal/pgsession"
)

// Scale is the measure scale with one number of senders: a publisher and senders, each a
// process of its own, and the outbox on a PostgreSQL of its own.
type Scale struct {
	Senders  int     `json:"senders"`
	Changes  int     `json:"changes"` // of the backlog, single-row transactions
	Accounts int     `json:"accounts"`
	Rate     float64 `json:"rate"`    // transactions a second, planned
	Seconds  float64 `json:"seconds"` // at that rate, of each repetition

	// PerSecond counts from the publisher's start, with the senders waiting for it, to
	// the last 2xx.
	PerSecond Spread   `json:"deliveries_per_second"`
	Backlog   ScaleCPU `json:"backlog_cpu_seconds_per_1000"`

	Commit Quantiles `json:"commit_to_2xx_ms"` // at the rate
	AtRate ScaleCPU  `json:"at_rate_cpu_seconds_per_1000"`

	Cores   Cores   `json:"cores"` // during the backlog; PostgreSQL is both servers
	Tallies []Tally `json:"tallies"`
}

// ScaleCPU is CPU time per 1,000 deliveries, by who used it; 0 where the system does not
// provide it.
type ScaleCPU struct {
	Publisher Spread `json:"publisher"`
	Senders   Spread `json:"senders"` // all of them together
	Outbox    Spread `json:"outbox"`  // its server, all of it
	// Of the outbox's server: its sessions of the publisher and of the senders. The rest
	// are processes of the server, such as the WAL writer and the checkpointer.
	OutboxOfPublisher Spread `json:"outbox_sessions_of_publisher"`
	OutboxOfSenders   Spread `json:"outbox_sessions_of_senders"`
	Source            Spread `json:"source"` // its server, with the carrier's transactions at a rate

	// OfFirst is the CPU time of the senders and the outbox as a multiple of what it is
	// in the same repetition with the first number of senders.
	OfFirst Spread `json:"senders_and_outbox_of_first"`
}

// scaleRun is one repetition with one number of senders.
type scaleRun struct {
	total           float64 // deliveries a second
	backlog, atRate usage   // used per 1,000 deliveries
	cores           usage
	rate            latencyRun
	tally           Tally
	first           *scaleRun // with the first number of senders
}

// per1000 scales a usage to 1,000 deliveries.
func (u usage) per1000(deliveries int) usage { return u.times(1000 / float64(deliveries)) }

// delivering is the CPU time of the senders and of the outbox.
func (u usage) delivering() float64 { return u.senders + u.outbox }

func (b *bench) scale(ctx context.Context) (err error) {
	o := b.options
	b.step("scale: starting a PostgreSQL for the outbox")
	server, err := pgcluster.Start(ctx, pgcluster.Options{BinDir: b.options.PGBin})
	if err != nil {
		return err
	}
	defer func() { err = joined(err, server.Stop()) }()
	if err := makeScaleRoles(ctx, server); err != nil {
		return err
	}
	runs := make([][]scaleRun, len(o.Senders))
	for i := range o.Repetitions {
		b.step("scale: a publisher and %v senders, %d changes and %g transactions/s, %d of %d", o.Senders, o.ScaleChanges, o.ScaleRate, i+1, o.Repetitions)
		if err := b.scaleRuns(ctx, server, i%2 == 1, runs); err != nil {
			return err
		}
	}
	for i, senders := range o.Senders {
		for j := range runs[i] {
			runs[i][j].first = &runs[0][j]
		}
		result := Scale{
			Senders: senders, Changes: o.ScaleChanges, Accounts: o.Accounts, Rate: o.ScaleRate, Seconds: o.ScaleLength.Seconds(),
			PerSecond: spreadOf(runs[i], func(r scaleRun) float64 { return r.total }),
			Backlog:   scaleCPU(runs[i], func(r *scaleRun) usage { return r.backlog }),
			Commit:    quantiles(runs[i], func(r scaleRun) []time.Duration { return r.rate.commit }),
			AtRate:    scaleCPU(runs[i], func(r *scaleRun) usage { return r.atRate }),
			Cores:     coresSpread(runs[i], func(r scaleRun) usage { return r.cores.together() }),
		}
		for _, r := range runs[i] {
			result.Tallies = append(result.Tallies, r.tally, r.rate.tally)
		}
		b.report.Scale = append(b.report.Scale, result)
	}
	return nil
}

func scaleCPU(runs []scaleRun, of func(*scaleRun) usage) ScaleCPU {
	figure := func(f func(usage) float64) Spread {
		return spreadOf(runs, func(r scaleRun) float64 { return f(of(&r)) })
	}
	return ScaleCPU{
		Publisher:         figure(func(u usage) float64 { return u.walhook }),
		Senders:           figure(func(u usage) float64 { return u.senders }),
		Outbox:            figure(func(u usage) float64 { return u.outbox }),
		OutboxOfPublisher: figure(func(u usage) float64 { return u.outboxOfPublisher }),
		OutboxOfSenders:   figure(func(u usage) float64 { return u.outboxOfSenders }),
		Source:            figure(func(u usage) float64 { return u.postgres }),
		OfFirst: spreadOf(runs, func(r scaleRun) float64 {
			if first := of(r.first).delivering(); first > 0 {
				return of(&r).delivering() / first
			}
			return 0
		}),
	}
}

// scaleRuns adds one run with each number of senders, all in one world. Its outbox fills
// with each, so every second repetition goes through the numbers backwards.
func (b *bench) scaleRuns(ctx context.Context, server *pgcluster.Cluster, backwards bool, runs [][]scaleRun) (err error) {
	w, err := b.newWorldOn(ctx, server, b.options.Accounts, b.healthyURL)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, w.close(ctx)) }()
	order := make([]int, len(runs))
	for i := range order {
		order[i] = i
	}
	if backwards {
		slices.Reverse(order)
	}
	for n, i := range order {
		if err := w.runScaled(ctx, b.options.Senders[i]); err != nil {
			return err
		}
		if n == 0 {
			if err := w.warmUp(ctx); err != nil {
				return err
			}
		}
		run, err := w.scale(ctx)
		if err != nil {
			return fmt.Errorf("%d senders: %w", b.options.Senders[i], err)
		}
		b.step("scale: %d senders: %s deliveries/s; p50 %s ms, p99 %s ms at %g/s", b.options.Senders[i], number(run.total),
			number(quantile(run.rate.commit, .5)), number(quantile(run.rate.commit, .99)), b.options.ScaleRate)
		runs[i] = append(runs[i], run)
	}
	return w.stopScaled(0)
}

// scale measures at the rate, and then a backlog, which is committed while no publisher
// runs.
func (w *world) scale(ctx context.Context) (run scaleRun, err error) {
	o := w.b.options
	if run.rate, err = w.latency(ctx, o.ScaleRate, o.ScaleLength, everyone, everyone); err != nil {
		return run, err
	}
	run.atRate = run.rate.used.per1000(len(run.rate.late))
	if err := w.stop(); err != nil {
		return run, err
	}
	if err := w.backlog(ctx, w.next, o.ScaleChanges); err != nil {
		return run, err
	}
	if _, err := w.expect(ctx, o.ScaleChanges, true); err != nil {
		return run, err
	}
	began := w.usage()
	if err := w.runPublisher(); err != nil {
		return run, err
	}
	if err := w.delivered(ctx, o.ScaleChanges, nil); err != nil {
		return run, err
	}
	now := w.usage()
	run.backlog, run.cores = now.since(began).per1000(o.ScaleChanges), now.cores(began)
	if run.tally, err = w.tally(ctx, o.ScaleChanges); err != nil {
		return run, err
	}
	run.total = float64(o.ScaleChanges) / run.tally.Last.Sub(w.started).Seconds()
	return run, nil
}

// The publisher and the senders have roles of their own on the outbox's server, since the
// names of its processes tell the role: so the CPU time of their sessions is told apart.
const (
	publisherRole = "bench_publisher"
	sendersRole   = "bench_sender"
)

func makeScaleRoles(ctx context.Context, server *pgcluster.Cluster) error {
	conn, err := pgsession.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	password := conn.Config().Password // of this cluster alone, and letters
	for _, role := range []string{publisherRole, sendersRole} {
		if _, err := conn.Exec(ctx, fmt.Sprintf(`CREATE ROLE %s SUPERUSER LOGIN PASSWORD '%s'`, role, password)); err != nil {
			return fmt.Errorf("create the roles of publisher and senders: %w", err)
		}
	}
	return nil
}

// outboxAs returns a setting of walhook: the outbox's URL with another role.
func (w *world) outboxAs(role string) (string, error) {
	u, err := url.Parse(w.outbox)
	if err != nil {
		return "", errors.New("the outbox's URL cannot be read")
	}
	password, _ := u.User.Password()
	u.User = url.UserPassword(role, password)
	return "WALHOOK_OUTBOX=" + u.String(), nil
}

// runPublisher starts 'walhook run --role publisher'.
func (w *world) runPublisher() error {
	as, err := w.outboxAs(publisherRole)
	if err != nil {
		return err
	}
	w.started = time.Now()
	w.walhook, err = w.b.options.Walhook.start(w.b.dir, w.name+"-publisher", append(w.environ(), as), nil, nil, "run", "--role", "publisher")
	return err
}

// runScaled starts or stops processes until there are a publisher and the given number of
// senders, and waits until each sender has its share.
func (w *world) runScaled(ctx context.Context, senders int) error {
	if w.walhook == nil {
		if err := w.runPublisher(); err != nil {
			return err
		}
	}
	if err := w.stopScaled(senders); err != nil {
		return err
	}
	as, err := w.outboxAs(sendersRole)
	if err != nil {
		return err
	}
	for len(w.senders) < senders {
		w.sendersMade++
		name := w.name + "-sender" + strconv.Itoa(w.sendersMade)
		sender, err := w.b.options.Walhook.start(w.b.dir, name, append(w.environ(), as), nil, nil, "run", "--role", "sender")
		if err != nil {
			return err
		}
		w.senders = append(w.senders, sender)
	}
	return w.shared(ctx)
}

// stopScaled stops senders until the given number is left; with none, the publisher too.
func (w *world) stopScaled(senders int) error {
	for len(w.senders) > senders {
		last := len(w.senders) - 1
		sender := w.senders[last]
		w.senders = w.senders[:last]
		if err := sender.stop(); err != nil {
			return err
		}
	}
	if senders == 0 {
		return w.stop()
	}
	return nil
}

// sharesSQL returns how many senders have shards, how many shards have a sender, and the
// most that one has.
const sharesSQL = `SELECT count(*), coalesce(sum(n), 0), coalesce(max(n), 0)
	FROM (SELECT count(*) AS n FROM walhook.shard WHERE sender IS NOT NULL GROUP BY sender) s`

// shared waits until the shards are dealt out evenly.
func (w *world) shared(ctx context.Context) error {
	conn, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var shards int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM walhook.shard`).Scan(&shards); err != nil {
		return err
	}
	want := len(w.senders)
	for deadline := time.Now().Add(stalledAfter); ; {
		var senders, held, most int
		if err := conn.QueryRow(ctx, sharesSQL).Scan(&senders, &held, &most); err != nil {
			return err
		}
		if senders == want && held == shards && most == (shards+want-1)/want {
			return nil
		}
		if err := w.failed(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("share out: %d of %d senders hold %d of %d shards after %s", senders, want, held, shards, stalledAfter)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollEvery):
		}
	}
}
