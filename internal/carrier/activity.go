package carrier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"walhook/internal/pgsession"
)

// Options says what the activity may do. Accounts and URLFor are the arguments of [Seed].
type Options struct {
	Accounts int
	Seed     uint64
	URLFor   func(i int) string // of account i; accounts that sign up follow the seeded ones

	Workers   int  // concurrent transactions; 0 stands for 4
	Tour      int  // how many accounts, from the first, get every schema and type at the start; 0 stands for 4, -1 for none
	BulkRows  int  // rows of a bulk transaction; 0 stands for 500, -1 for none
	FixedURLs bool // no account changes its web_hook_url to another path
	ClearURLs bool // accounts sometimes clear their web_hook_url and set it again
}

// Activity runs the carrier's business.
type Activity struct {
	options  Options
	pool     *pgxpool.Pool
	signedUp atomic.Int64 // the index of the next account

	mu    sync.Mutex
	stats Stats // guarded by mu
}

// Stats counts transactions.
type Stats struct {
	Committed  int
	RolledBack int            // on purpose
	Aborted    int            // by the server, for example because of a deadlock
	Unknown    int            // the connection broke; the ledger shows the outcome
	Actions    map[string]int // committed, by name
}

// lastAccountSQL counts closed accounts, too, because an id is used only once.
const lastAccountSQL = `
SELECT greatest((SELECT max(id) FROM users), (SELECT max(record::bigint) FROM ledger.expected WHERE schema = 'users'), 0)`

// NewActivity prepares activity on a seeded database. Close it.
func NewActivity(ctx context.Context, url string, o Options) (*Activity, error) {
	if o.Accounts < 2 {
		return nil, fmt.Errorf("carrier activity needs 2 accounts or more, not %d", o.Accounts)
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Tour == 0 {
		o.Tour = 4
	}
	if o.BulkRows == 0 {
		o.BulkRows = 500
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("carrier activity: %w", err)
	}
	config.MaxConns = int32(o.Workers)
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	pool, err := pgsession.NewCarrierPool(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("carrier activity: %w", err)
	}
	a := &Activity{options: o, pool: pool, stats: Stats{Actions: map[string]int{}}}
	var last int64
	if err := pool.QueryRow(ctx, lastAccountSQL).Scan(&last); err != nil {
		pool.Close()
		return nil, fmt.Errorf("carrier activity: %w", err)
	}
	a.signedUp.Store(int64(max(o.Accounts, accountIndex(last)+1)))
	return a, nil
}

// Close ends the activity's connections.
func (a *Activity) Close() { a.pool.Close() }

// Stats returns the counts so far, also while the activity runs.
func (a *Activity) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	stats := a.stats
	stats.Actions = maps.Clone(stats.Actions)
	return stats
}

// work is one planned transaction. Its random numbers and the account's records decide
// what it does.
type work struct {
	action  action
	account int // index
	other   int
	stream  uint64
	undo    bool
}

// Run makes about rate transactions a second (0 stands for as many as possible) for the
// duration, or until the context ends, which is no error. It begins with the tour. It
// returns once every transaction is committed or rolled back.
func (a *Activity) Run(ctx context.Context, rate float64, duration time.Duration) (Stats, error) {
	running, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	// An account's work always goes to the same worker, in the planned order.
	queues := make([]chan work, a.options.Workers)
	for i := range queues {
		queues[i] = make(chan work, 16)
	}
	group, working := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(func() error {
		a.plan(running, working, rate, queues)
		for _, queue := range queues {
			close(queue)
		}
		return nil
	})
	for _, queue := range queues {
		group.Go(func() error {
			for w := range queue {
				if running.Err() != nil {
					continue
				}
				if err := a.do(working, running, w); err != nil {
					return fmt.Errorf("carrier activity: %s: %w", w.action.name, err)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return a.Stats(), err
}

// plan sends work at the rate until its time is over or a worker has failed.
func (a *Activity) plan(running, working context.Context, rate float64, queues []chan work) {
	random := newFakes(a.options.Seed, 0)
	choices := actions()
	tour := a.tour()
	began := time.Now()
	for n := uint64(1); ; n++ {
		w := a.draw(random, choices)
		if len(tour) > 0 {
			w, tour = tour[0], tour[1:]
		}
		w.stream = n
		var wait time.Duration
		if rate > 0 {
			wait = time.Until(began.Add(time.Duration(float64(n-1) / rate * float64(time.Second))))
		}
		select {
		case <-time.After(wait):
		case <-running.Done():
			return
		case <-working.Done():
			return
		}
		select {
		case queues[w.account%len(queues)] <- w:
		case <-running.Done():
			return
		case <-working.Done():
			return
		}
	}
}

// draw returns one piece of random work.
func (a *Activity) draw(random fakes, choices []action) work {
	w := work{account: random.IntN(a.options.Accounts), undo: random.chance(4)}
	w.other = (w.account + 1 + random.IntN(a.options.Accounts-1)) % a.options.Accounts
	var weights int
	for _, choice := range choices {
		weights += choice.weight
	}
	left := random.IntN(weights)
	for _, w.action = range choices {
		if left -= w.action.weight; left < 0 {
			break
		}
	}
	return w
}

// do runs one transaction. A broken connection or a server that is down is no error: the
// carrier continues when it can, until its time ends.
func (a *Activity) do(ctx, running context.Context, w work) error {
	err := a.transact(ctx, w)
	if errors.Is(err, errBroken) {
		select {
		case <-running.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.stats.Committed++
		a.stats.Actions[w.action.name]++
	case errors.Is(err, errUndone):
		a.stats.RolledBack++
	case errors.Is(err, errNothing), ctx.Err() != nil:
	case errors.Is(err, errBroken):
		a.stats.Unknown++
	case aborted(err):
		a.stats.Aborted++
	default:
		return err
	}
	return nil
}

// aborted reports whether the server rolled a transaction back because of others.
func aborted(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"40P01", "40001"}, refused.Code)
}

var (
	errUndone = errors.New("rolled back on purpose")
	errBroken = errors.New("connection to the carrier's database broken")
)

const lockAccountsSQL = `
SELECT pg_advisory_xact_lock(id) FROM (SELECT id FROM unnest($1::bigint[]) AS id ORDER BY id OFFSET 0) AS accounts`

// transact runs the action in a transaction on a connection of its own.
func (a *Activity) transact(ctx context.Context, w work) error {
	conn, err := a.pool.Acquire(ctx)
	if err != nil {
		return errors.Join(errBroken, err)
	}
	defer conn.Release()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return a.act(ctx, tx, w) })
	if err != nil && conn.Conn().IsClosed() {
		return errors.Join(errBroken, err)
	}
	return err
}

// act locks the accounts in order, which avoids deadlocks between transactions of the
// same accounts, and runs the action.
func (a *Activity) act(ctx context.Context, tx pgx.Tx, w work) error {
	s := &step{
		fakes: newFakes(a.options.Seed, w.stream), ctx: ctx, tx: tx,
		account: AccountID(w.account), other: AccountID(w.other),
	}
	if _, err := tx.Exec(ctx, lockAccountsSQL, []int64{s.account, s.other}); err != nil {
		return err
	}
	if s.chance(5) { // walhook must not deliver what a savepoint rolls back
		if err := s.takeBack(w.action, a); err != nil {
			return err
		}
	}
	if err := w.action.run(s, a); err != nil {
		return err
	}
	if w.undo {
		return errUndone
	}
	return nil
}

// takeBack runs an action under a savepoint and rolls back to it.
func (s *step) takeBack(action action, a *Activity) error {
	outer, account := s.tx, s.account
	defer func() { s.tx, s.account = outer, account }()
	err := pgx.BeginFunc(s.ctx, outer, func(inner pgx.Tx) error {
		s.tx = inner
		if err := action.run(s, a); err != nil {
			return err
		}
		return errUndone
	})
	if errors.Is(err, errUndone) || errors.Is(err, errNothing) {
		return nil
	}
	return err
}
