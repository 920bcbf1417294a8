package admin

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/outbox"
	"walhook/outbox/seal"
)

// Admin answers the API and the operator's commands. It is safe for concurrent use,
// as long as the store that it is of is open.
type Admin struct {
	store   outbox.Access
	pool    *pgsession.Pool
	secrets seal.Sealer
	log     *zap.Logger
}

// New is the administration of a store.
func New(store *outbox.Store) *Admin {
	access := store.Access()
	return &Admin{store: access, pool: access.Pool, secrets: access.Secrets, log: access.Log}
}

// byIndex reads in a transaction by [outbox.ByIndexSQL].
func (a *Admin) byIndex(ctx context.Context, read func(pgx.Tx) error) error {
	return a.byIndexIn(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly}, read)
}

// byIndexOfOneTime is byIndex for statements that are to see the same rows.
func (a *Admin) byIndexOfOneTime(ctx context.Context, read func(pgx.Tx) error) error {
	return a.byIndexIn(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, read)
}

func (a *Admin) byIndexIn(ctx context.Context, options pgx.TxOptions, read func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, a.pool, options, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, outbox.ByIndexSQL); err != nil {
			return err
		}
		return read(tx)
	})
}

const canHoldSQL = `SELECT length($1::text)`

// CanHold says whether the encoding of the outbox's database has every character of a
// text. Ask it after an error that is [outbox.IsUnencodable], for which text is at fault.
func (a *Admin) CanHold(ctx context.Context, text string) (bool, error) {
	var n int
	err := a.pool.QueryRow(ctx, canHoldSQL, text).Scan(&n)
	if outbox.IsUnencodable(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look whether the outbox can hold a text: %w", err)
	}
	return true, nil
}

// collectEach is [pgx.CollectRows] for lists: a row with a column that cannot be
// read is kept with what was read before that column, and handed to damaged.
func collectEach[T any](rows pgx.Rows, scan pgx.RowToFunc[T], damaged func(*T, error)) ([]T, error) {
	defer rows.Close()
	list := []T{}
	for rows.Next() {
		one, err := scan(looseRow{rows})
		if err != nil {
			damaged(&one, err)
		}
		list = append(list, one)
	}
	return list, rows.Err()
}

// looseRow is a row whose scanning ends neither the reading of the others nor,
// where a column cannot be read, that of the columns before it.
type looseRow struct{ pgx.Rows }

func (r looseRow) Scan(dest ...any) error {
	return pgx.ScanRow(r.Conn().TypeMap(), r.FieldDescriptions(), r.RawValues(), dest...)
}

// badRow is a row of a list that cannot be read.
type badRow struct {
	id    int64
	cause error
}
