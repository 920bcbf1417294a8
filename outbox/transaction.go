package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Whatever a publisher or a sender writes, it writes in a transaction that begins
// with its fence. A transaction whose statements are known beforehand is a
// [transaction], which takes one round trip; one that decides by what it reads is a
// function given to [Store.transact].

// fence is the statement that proves that the writer may still write: a publisher
// by its epoch, a sender by its lease, maintenance because nobody holds the shard. It
// locks what it looks at until the transaction ends, so nobody takes over meanwhile.
type fence struct {
	sql  string
	args []any // the id of the epoch, the sender or the shard comes first
	// held is the error where the statement finds no row; nil where it raises one
	// itself. A [transaction] does not look for rows.
	held error
}

const (
	assertEpochSQL  = `SELECT walhook.assert_epoch($1, $2)`
	assertAppendSQL = `SELECT walhook.assert_append($1, $2, $3)`
	assertSenderSQL = `SELECT walhook.assert_sender($1, $2)`
	assertLeaseSQL  = `SELECT walhook.assert_sender_lease($1, $2)`
)

func (p *Publisher) fence() fence {
	return fence{sql: assertEpochSQL, args: []any{p.epoch, p.timeline.token}}
}

// routedFence also refuses, with errWebhooksMoved, what was routed by other webhooks than
// those that are stored when the transaction begins.
func (p *Publisher) routedFence() fence {
	return fence{sql: assertAppendSQL, args: []any{p.epoch, p.view.WebhooksVersion, p.timeline.token}}
}

func (s *Session) fence() fence {
	return fence{sql: assertSenderSQL, args: []any{s.id, s.timeline}}
}

// leaseFence lets a sender also write after a failover, what is true on every timeline.
func (s *Session) leaseFence() fence {
	return fence{sql: assertLeaseSQL, args: []any{s.id, s.timeline}}
}

// run makes a transaction of this publisher, behind its own fence where it brings none;
// [ErrFenced] when another one took over.
func (p *Publisher) run(ctx context.Context, tx *transaction) error {
	if tx.fence.sql == "" {
		tx.fence = p.fence()
	}
	return p.store.run(ctx, tx)
}

// transact is run for a transaction that decides by what it reads.
func (p *Publisher) transact(ctx context.Context, do func(pgx.Tx) error) error {
	return p.store.transact(ctx, p.fence(), do)
}

// run makes a transaction of this sender, behind its own fence where it brings none;
// [ErrLeaseLost] when its lease had ended.
func (s *Session) run(ctx context.Context, tx *transaction) error {
	if tx.fence.sql == "" {
		tx.fence = s.fence()
	}
	return s.store.run(ctx, tx)
}

// transact runs do in a transaction behind a fence, and commits it where do returns
// nil.
func (s *Store) transact(ctx context.Context, f fence, do func(pgx.Tx) error) error {
	return fenceError(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := f.assertTx(ctx, tx); err != nil {
			return err
		}
		return do(tx)
	}))
}

func (f fence) assertTx(ctx context.Context, tx pgx.Tx) error {
	tag, err := tx.Exec(ctx, f.sql, f.args...)
	if err == nil && tag.RowsAffected() == 0 {
		err = f.held
	}
	return err
}

// The error codes that the fences raise (migrations/001_outbox.sql, 023_append_fence.sql, 024_timeline.sql).
const (
	codeFenced        = "WH001"
	codeLeaseLost     = "WH002"
	codeWebhooksMoved = "WH003"
	codeMoved         = "WH004"
)

// errWebhooksMoved says that nothing is stored, since the webhooks have changed that a plan
// was routed by.
var errWebhooksMoved = errors.New("the webhooks were changed since they were read")

// fenceError turns what a fence raised into the condition it means.
func fenceError(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch pgErr.Code {
	case codeFenced:
		return fmt.Errorf("%w (%s)", ErrFenced, pgErr.Message)
	case codeLeaseLost:
		return fmt.Errorf("%w (%s)", ErrLeaseLost, pgErr.Message)
	case codeWebhooksMoved:
		return errWebhooksMoved
	case codeMoved:
		return ErrMoved
	}
	return err
}

// transaction is statements that run in one transaction: in one round trip, or
// in more where it checks or works.
type transaction struct {
	fence fence            // none where savepoint is set
	first func(*pgx.Batch) // what comes right after the fence; nil for nothing
	check func() error     // nil for none: whether what first read lets it continue
	// work runs before fill and decides by what it reads, or copies; nil for nothing.
	work func(ctx context.Context, c *pgx.Conn) error
	fill func(*pgx.Batch) // the rest
	// read, when not nil, reads the results of fill; without it each statement
	// reads its own, or none.
	read func(pgx.BatchResults) error

	// savepoint makes it a part of a transaction that is already open.
	savepoint bool

	// uncertain says, after an error, that nobody knows whether it is committed.
	uncertain bool
	committed bool
	atEnd     bool // all but the COMMIT is done, for all that is known
}

// run makes a transaction. After an error tx.uncertain says whether it is known
// that it is not committed.
func (s *Store) run(ctx context.Context, tx *transaction) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err = tx.runOn(ctx, conn.Conn()); err != nil {
		// The transaction may still be open in a failed state; a connection
		// in that state is not given back.
		rollback(ctx, conn.Conn())
	}
	return fenceError(err)
}

func (tx *transaction) runOn(ctx context.Context, conn *pgx.Conn) (err error) {
	open, end := "BEGIN", "COMMIT"
	if tx.savepoint {
		open, end = "SAVEPOINT part", "RELEASE SAVEPOINT part"
	}
	b := &pgx.Batch{}
	b.Queue(open)
	if !tx.savepoint {
		b.Queue(tx.fence.sql, tx.fence.args...)
	}
	if tx.first != nil {
		tx.first(b)
	}
	skip := b.Len()
	if tx.work != nil || tx.check != nil {
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		if tx.check != nil {
			if err := tx.check(); err != nil {
				return err
			}
		}
		if tx.work != nil {
			if err := tx.work(ctx, conn); err != nil {
				return err
			}
		}
		b, skip = &pgx.Batch{}, 0
	}
	return tx.finish(ctx, conn, b, skip, end)
}

// finish sends the rest and ends the transaction. b holds what comes before, which
// has skip answers.
func (tx *transaction) finish(ctx context.Context, conn *pgx.Conn, b *pgx.Batch, skip int, end string) (err error) {
	tx.fill(b)
	tx.atEnd = tx.read != nil || b.Len() == 0
	if !tx.atEnd {
		last := b.QueuedQueries[b.Len()-1]
		read := last.Fn
		last.Fn = func(results pgx.BatchResults) (err error) {
			if read != nil {
				err = read(results)
			} else {
				_, err = results.Exec()
			}
			tx.atEnd = err == nil
			return err
		}
	}
	b.Queue(end).Exec(func(pgconn.CommandTag) error { tx.committed = true; return nil })
	results := conn.SendBatch(ctx, b)
	if tx.read != nil {
		for ; skip > 0 && err == nil; skip-- {
			_, err = results.Exec()
		}
		if err == nil {
			err = tx.read(results)
		}
	}
	if closeErr := results.Close(); err == nil && !tx.committed {
		err = closeErr
	}
	tx.uncertain = err != nil && tx.mayBeCommitted(err)
	return err
}

// outcome is an error of the transaction that says whether it may be committed.
func (tx *transaction) outcome(err error) error {
	if tx.uncertain {
		return fmt.Errorf("%w: %w", errUncertain, err)
	}
	return err
}

// errUncertain says that nobody knows whether a transaction is committed.
var errUncertain = errors.New("it is not known whether it was committed")

// mayBeCommitted says whether the COMMIT that was sent may have been executed. A
// server that answers with an error has not: it skips the rest. A session that is
// ended may have been, once everything before the COMMIT was done.
func (tx *transaction) mayBeCommitted(err error) bool {
	if _, unsent := errors.AsType[pgx.ErrPreprocessingBatch](err); unsent || pgconn.SafeToRetry(err) {
		return false
	}
	pgErr, answered := errors.AsType[*pgconn.PgError](err)
	if tx.committed || !answered {
		return true
	}
	return pgErr.SeverityUnlocalized != "ERROR" && tx.atEnd
}

func rollback(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), time.Second, errors.New("rollback"))
	defer cancel()
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = conn.Close(ctx)
	}
}

// savepoint runs f so that the transaction continues where f fails.
func savepoint(ctx context.Context, tx pgx.Tx, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, tx, f)
}

func collect[T any](rows pgx.Rows, err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// isNoRows is the one condition that pgx reports as an error and we do not.
func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
