package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/pgcluster"
	"walhook/internal/pgsession"
)

// bench is one run: a server, the receivers, and the measures one after the
// other.
type bench struct {
	options   Options
	dir       string // of the logs of our processes
	cluster   *pgcluster.Cluster
	admin     *pgx.Conn // not on a database of a world
	receiver  *helper
	addresses []string // of the receivers
	worlds    int      // made so far
	report    *Report
}

// measure is one measure; it puts its result into the report.
type measure struct {
	name string
	run  func(b *bench, ctx context.Context) error
	long bool // not among the defaults
}

func measures() []measure {
	return []measure{
		{"drain", (*bench).drain, false},
		{"bulk", (*bench).bulk, false},
		{"latency", (*bench).latency, false},
		{"trouble", (*bench).trouble, false},
		{"fan-out", (*bench).fanOut, false},
		{"scale", (*bench).scale, true},
		{"edits", (*bench).edits, true},
		{"idle", (*bench).idle, true},
		{"memory", (*bench).memory, true},
		{"waiting", (*bench).waiting, true},
		{"aged", (*bench).aged, true},
	}
}

// Measures names all measures.
func Measures() (names []string) {
	for _, m := range measures() {
		names = append(names, m.name)
	}
	return names
}

// DefaultMeasures names those that are not long.
func DefaultMeasures() (names []string) {
	for _, m := range measures() {
		if !m.long {
			names = append(names, m.name)
		}
	}
	return names
}

// Run measures. A wrong or lost delivery is an error.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b := &bench{options: o, report: &Report{Walhook: o.Version, Began: time.Now().UTC().Truncate(time.Second)}}
	defer func() { err = joined(err, b.close(ctx)) }()
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	for _, name := range o.Measures {
		for _, m := range measures() {
			if m.name != name {
				continue
			}
			if err := m.run(b, ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	b.report.Seconds = time.Since(began).Seconds()
	return b.report, nil
}

func (b *bench) build(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "walhook-bench-"); err != nil {
		return err
	}
	b.step("starting a throwaway PostgreSQL and the receivers")
	b.cluster, err = pgcluster.Start(ctx, pgcluster.Options{
		BinDir: b.options.PGBin, Progress: func(message string) { b.step("%s", message) },
	})
	if err != nil {
		return err
	}
	if b.admin, err = pgsession.Connect(ctx, b.cluster.URL("postgres")); err != nil {
		return err
	}
	if b.report.Machine, err = describeMachine(ctx, b.admin, b.cluster.Binaries().Version); err != nil {
		return err
	}
	if b.receiver, err = b.options.Walhook.help(b.dir, helpReceive); err != nil {
		return err
	}
	report, err := b.receivers(ctx, receiveOrder{Listen: b.options.Receivers})
	b.addresses = report.Addresses
	return err
}

// close stops all processes and removes all files.
func (b *bench) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var faults []error
	if b.receiver != nil {
		b.receiver.kill()
	}
	if b.admin != nil {
		faults = append(faults, b.admin.Close(ctx))
	}
	if b.cluster != nil {
		faults = append(faults, b.cluster.Stop())
	}
	if b.dir != "" {
		faults = append(faults, os.RemoveAll(b.dir))
	}
	return errors.Join(faults...)
}

func (b *bench) step(format string, args ...any) {
	if b.options.Step != nil {
		b.options.Step(fmt.Sprintf(format, args...))
	}
}

// receivers sends an order to the receivers' process and returns its report.
func (b *bench) receivers(ctx context.Context, order receiveOrder) (report receiveReport, err error) {
	err = b.receiver.ask(ctx, order, &report)
	return report, err
}

// healthyURL is the address of an account at a receiver that answers.
func (b *bench) healthyURL(index int) string {
	return hookURL(b.addresses[index%len(b.addresses)], carrier.AccountID(index))
}

// joined returns the first error, or else the second.
func joined(err, after error) error {
	if err != nil {
		return err
	}
	return after
}
