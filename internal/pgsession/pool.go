package pgsession

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Pool is a pgxpool whose errors of connecting have their cause first
// ([Reason]).
type Pool struct{ *pgxpool.Pool }

// Acquire hides the pool's.
func (p *Pool) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := p.Pool.Acquire(ctx)
	return conn, Reason(err)
}

// Ping hides the pool's.
func (p *Pool) Ping(ctx context.Context) error { return Reason(p.Pool.Ping(ctx)) }

// Exec hides the pool's.
func (p *Pool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	tag, err := p.Pool.Exec(ctx, sql, args...)
	return tag, Reason(err)
}

// Query hides the pool's.
func (p *Pool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := p.Pool.Query(ctx, sql, args...)
	return rows, Reason(err)
}

// QueryRow hides the pool's.
func (p *Pool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return row{p.Pool.QueryRow(ctx, sql, args...)}
}

type row struct{ pgx.Row }

func (r row) Scan(dest ...any) error { return Reason(r.Row.Scan(dest...)) }

// Begin hides the pool's.
func (p *Pool) Begin(ctx context.Context) (pgx.Tx, error) { return p.BeginTx(ctx, pgx.TxOptions{}) }

// BeginTx hides the pool's.
func (p *Pool) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	tx, err := p.Pool.BeginTx(ctx, options)
	return tx, Reason(err)
}

// CopyFrom hides the pool's.
func (p *Pool) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	n, err := p.Pool.CopyFrom(ctx, table, columns, rows)
	return n, Reason(err)
}

// SendBatch hides the pool's: a batch needs a connection, whose error is that
// of its first result.
func (p *Pool) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return batch{p.Pool.SendBatch(ctx, b)}
}

type batch struct{ pgx.BatchResults }

func (b batch) Exec() (pgconn.CommandTag, error) {
	tag, err := b.BatchResults.Exec()
	return tag, Reason(err)
}

func (b batch) Query() (pgx.Rows, error) {
	rows, err := b.BatchResults.Query()
	return rows, Reason(err)
}

func (b batch) QueryRow() pgx.Row { return row{b.BatchResults.QueryRow()} }

func (b batch) Close() error { return Reason(b.BatchResults.Close()) }
