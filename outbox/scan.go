package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"go.uber.org/zap"
)

// A publisher that takes over reads tables whole, and they grow with the carrier. So no
// time limit covers the whole: a load may take as long as rows arrive, and ends where
// none does ([loading]). It reads a table in ranges of blocks ([Store.scan]), so each
// statement does a bounded work, however few of the rows it selects.

// stallTimeout is how long the outbox may answer nothing during a load. Then the slot
// goes to a standby, as after an append of that length.
const stallTimeout = publishTimeout

// loadLogEvery is how often a load that takes long is logged.
const loadLogEvery = 5 * time.Second

// loading watches one load. Its methods do nothing on nil: some of what a load reads is
// also read by itself, within a time limit of the caller.
type loading struct {
	log    *zap.Logger
	stall  *time.Timer
	began  time.Time
	logged time.Time
	table  string
	rows   int64 // of the table, so far
	block  int64 // of the table: how many were read
	blocks int64
	total  int64 // rows of all tables
}

// errStalled ends a load that stands still.
var errStalled = fmt.Errorf("the outbox answered nothing for %s: check that its server runs and is not overloaded; walhook tries again", stallTimeout)

// watched runs a load, however long it takes, and ends it where the outbox answers nothing for stallTimeout.
func (p *Publisher) watched(ctx context.Context, load func(context.Context) error) error {
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	p.loading = &loading{log: p.log, began: time.Now(), logged: time.Now(), stall: stall}
	defer func() { p.loading = nil }()
	err := load(bounded)
	if err != nil && errors.Is(context.Cause(bounded), errStalled) {
		return errStalled // it says more than the statement that it ended
	}
	return err
}

// within bounds what it does by a time limit, which only a load prolongs ([Publisher.loads]).
func (p *Publisher) within(ctx context.Context, limit time.Duration, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	bound := time.AfterFunc(limit, func() { cancel(cause) })
	p.bound = bound
	return ctx, func() {
		bound.Stop()
		p.bound = nil
		cancel(nil)
	}
}

// timedOut names the time limit that an error comes from: the error itself says only that
// something was cancelled.
func timedOut(bounded context.Context, err error) error {
	if err == nil || bounded.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(bounded), err)
}

// loads begins a load where none is under way: a part of what takes a limited time
// otherwise.
func (p *Publisher) loads() (end func()) {
	if p.loading != nil || p.bound == nil {
		return func() {}
	}
	p.loading = &loading{log: p.log, began: time.Now(), logged: time.Now(), stall: p.bound}
	return func() { p.loading = nil }
}

// answered notes that the outbox answered.
func (l *loading) answered() {
	if l == nil {
		return
	}
	l.stall.Reset(stallTimeout)
	if time.Since(l.logged) < loadLogEvery {
		return
	}
	l.logged = time.Now()
	percent := 100.0
	if l.blocks > 0 {
		percent = float64(l.block) / float64(l.blocks) * 100
	}
	l.log.Info("reading the outbox", zap.String("table", l.table), zap.Int64("rows", l.rows),
		zap.Int64("percent", int64(percent)), zap.Duration("duration", time.Since(l.began)))
}

// answeredEvery is how many rows arrive between two notes of them.
const answeredEvery = 64

// row notes that a row arrived.
func (l *loading) row() {
	if l == nil {
		return
	}
	l.total++
	if l.rows++; l.rows%answeredEvery == 0 {
		l.answered()
	}
}

// reads notes how far a table is read.
func (l *loading) reads(table string, block, blocks int64) {
	if l == nil {
		return
	}
	if l.table != table {
		l.table, l.rows = table, 0
	}
	l.block, l.blocks = block, blocks
	l.answered()
}

// tableScan says what to read of a table.
type tableScan struct {
	table string // of the schema walhook
	id    string // the column that names a row
	sql   string // ends with a condition, to which another one is added

	take func(pgx.Rows) error // takes one row
	// mark returns what undoes every take after it.
	mark func() (undo func())
	// alone disposes of a row that cannot be read.
	alone func(id string, cause error) error
}

// partBlocks is how many blocks of a table one statement reads, 4 MiB with the usual
// block size.
const partBlocks = 512

// scanSettingsSQL sets what a scan needs until its transaction ends. The load has time
// limits of its own. An index would be read whole for each part; a server that knows
// nothing of the table yet prefers one.
const scanSettingsSQL = `
	SELECT set_config('statement_timeout', '0', true),
		set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`

const tableBlocksSQL = `SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint`

// scan reads all rows of a table that a query selects, as they were when it began. A part
// with a row that cannot be read is read row by row where it must be; the other parts
// are not read again.
func (s *Store) scan(ctx context.Context, l *loading, t tableScan) error {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer func() { // it has read only; an outbox that does not answer keeps nobody
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	begin := &pgx.Batch{}
	// The lock comes before the transaction's snapshot, and keeps rows in their blocks
	// (VACUUM FULL).
	begin.Queue("LOCK TABLE walhook." + t.table + " IN ACCESS SHARE MODE")
	begin.Queue(scanSettingsSQL)
	var blocks int64
	begin.Queue(tableBlocksSQL, "walhook."+t.table).QueryRow(func(row pgx.Row) error { return row.Scan(&blocks) })
	begin.Queue("SAVEPOINT part")
	if err := tx.SendBatch(ctx, begin).Close(); err != nil {
		return err
	}
	for block := int64(0); block < blocks; block += partBlocks {
		l.reads(t.table, block, blocks)
		if err := t.part(ctx, tx, l, block); err != nil {
			return err
		}
	}
	l.reads(t.table, blocks, blocks)
	return nil
}

// inPartSQL selects the rows of a part: the server goes to its blocks at once.
const inPartSQL = ` AND ctid >= $1 AND ctid < $2`

// part reads the rows of one part.
func (t *tableScan) part(ctx context.Context, tx pgx.Tx, l *loading, block int64) error {
	first, end := blockStart(block), blockStart(block+partBlocks)
	err := t.try(ctx, tx, l, t.sql+inPartSQL, first, end)
	if !isReadFault(err) {
		return err
	}
	type row struct {
		at pgtype.TID
		id string
	}
	ids, err := tx.Query(ctx, "SELECT ctid, coalesce("+t.id+"::text, '') FROM walhook."+t.table+" WHERE true"+inPartSQL, first, end)
	if err != nil {
		return err
	}
	rows, err := pgx.CollectRows(ids, func(r pgx.CollectableRow) (one row, err error) { return one, r.Scan(&one.at, &one.id) })
	if err != nil {
		return err
	}
	return isolate(rows, isReadFault, func(rows []row) error {
		at := make([]pgtype.TID, len(rows))
		for i := range rows {
			at[i] = rows[i].at
		}
		return t.try(ctx, tx, l, t.sql+" AND ctid = ANY ($1)", at)
	}, func(r row, cause error) error { return t.alone(r.id, cause) })
}

// blockStart is the place before the first row of a block.
func blockStart(block int64) pgtype.TID {
	// Blocks are numbered by 32 bits; the last number is none.
	return pgtype.TID{BlockNumber: uint32(min(block, 1<<32-1)), Valid: true}
}

// try takes the rows of a query. After a row that cannot be read it has taken none, and
// the transaction goes on.
func (t *tableScan) try(ctx context.Context, tx pgx.Tx, l *loading, sql string, args ...any) error {
	undo := t.mark()
	b := &pgx.Batch{} // one round trip
	b.Queue("RELEASE SAVEPOINT part")
	b.Queue("SAVEPOINT part")
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		return eachRow(rows, nil, func(rows pgx.Rows) error { l.row(); return t.take(rows) })
	})
	err := tx.SendBatch(ctx, b).Close()
	l.answered()
	if isReadFault(err) {
		undo()
		if _, rolled := tx.Exec(ctx, "ROLLBACK TO SAVEPOINT part"); rolled != nil {
			return rolled
		}
	}
	return err
}

// eachRow takes all rows of a query.
func eachRow(rows pgx.Rows, err error, each func(pgx.Rows) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// endpointID is the id of an endpoint from its text.
func endpointID(text string) int64 {
	id, _ := strconv.ParseInt(text, 10, 64) // the server wrote it
	return id
}
