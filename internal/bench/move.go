package bench

import (
	"context"
	"time"
)

// moved is the result of delivering a backlog.
type moved struct {
	total  float64 // deliveries a second, from the start of the process to the last 2xx
	steady float64 // the same from the first 2xx
	first  float64 // seconds from the start to the first 2xx
	cost   Cost    // of the process's whole life
	cores  usage   // from its start to the last 2xx
	tally  Tally
}

// move starts walhook, waits until the records from w.next on are delivered to
// all of their endpoints, and stops it.
func (w *world) move(ctx context.Context, records int, args ...string) (m moved, err error) {
	n := records * w.copies
	before, err := w.b.meter(ctx)
	if err != nil {
		return m, err
	}
	if _, err := w.expect(ctx, records, true); err != nil {
		return m, err
	}
	began := w.usage()
	if err := w.run(args...); err != nil {
		return m, err
	}
	if err := w.delivered(ctx, n, nil); err != nil {
		return m, err
	}
	m.cores = w.usage().cores(began)
	walhook := w.walhook
	life, err := w.life(ctx)
	if err != nil {
		return m, err
	}
	if err := w.stop(); err != nil {
		return m, err
	}
	if m.tally, err = w.tally(ctx, n); err != nil {
		return m, err
	}
	since := func(t time.Time) float64 { return m.tally.Last.Sub(t).Seconds() }
	m.total, m.steady = float64(n)/since(w.started), float64(n)/since(m.tally.First)
	m.first = m.tally.First.Sub(w.started).Seconds()
	m.cost, err = w.b.cost(ctx, walhook, life, before, n)
	return m, err
}
