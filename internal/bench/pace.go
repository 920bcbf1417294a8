package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"walhook/internal/carrier"
	"walhook/internal/pgsession"
)

// paced describes transactions that were committed at a rate, from record first on.
type paced struct {
	first  int64
	due    []time.Time     // by record
	late   []time.Duration // delay of each start
	took   time.Duration   // from the first due time to the answer of the last commit
	before usage           // at the start
	after  usage           // when everything was delivered
}

// pace commits single-row transactions at a rate for a while, for all accounts in turn.
// The load is open: each transaction has a planned start time. It begins then or, if all
// connections are busy, as soon as one is free. No transaction is left out because an
// earlier one took long. pace records the delays, and the report also has the latency
// from the planned start.
func (w *world) pace(ctx context.Context, rate float64, length time.Duration) (*paced, error) {
	n := max(int(rate*length.Seconds()), 1)
	first, err := w.expect(ctx, n, true)
	if err != nil {
		return nil, err
	}
	p := &paced{first: first, due: make([]time.Time, n), late: make([]time.Duration, n)}
	conns, err := w.dial(ctx, connections(rate))
	defer func() {
		for _, conn := range conns {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	if err != nil {
		return nil, err
	}
	p.before = w.usage()
	began := time.Now().Add(10 * time.Millisecond)
	for i := range p.due {
		p.due[i] = began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
	}
	var next atomic.Int64
	group, committing := errgroup.WithContext(ctx)
	for _, conn := range conns {
		group.Go(func() error {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return nil
				}
				if err := p.commit(committing, conn, i, carrier.AccountID(int(i)%w.accounts)); err != nil {
					return fmt.Errorf("commit at %g/s: %w", rate, err)
				}
			}
		})
	}
	err = group.Wait()
	p.took = time.Since(began)
	return p, err
}

// connections returns how many transactions may run at a rate: enough for commits that
// take 10 ms on average.
func connections(rate float64) int { return min(max(int(rate/100), 4), 64) }

const pacedInsert = "paced_insert"

func (w *world) dial(ctx context.Context, n int) (conns []*pgx.Conn, err error) {
	for range n {
		conn, err := pgsession.ConnectCarrier(ctx, w.source)
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
		if _, err := conn.Prepare(ctx, pacedInsert, fmt.Sprintf(insertDID, "$1::bigint", "$2::bigint")); err != nil {
			return conns, err
		}
	}
	return conns, nil
}

// commit waits until record i is due and inserts it.
func (p *paced) commit(ctx context.Context, conn *pgx.Conn, i, account int64) error {
	select {
	case <-time.After(time.Until(p.due[i])):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.late[i] = time.Since(p.due[i])
	_, err := conn.Exec(ctx, pacedInsert, p.first+i, account)
	return err
}
