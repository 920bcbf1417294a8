package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
)

const (
	// maxUnsendable is how often the source may fail at the same transaction
	// before it counts as one that it cannot send.
	maxUnsendable = 3

	// unsendableWait is the pause between tries from then on: each has the
	// source's server read the transaction again.
	unsendableWait = 5 * time.Minute

	// drainWithin bounds how long what was received before is waited for.
	drainWithin = 30 * time.Second
)

// ErrOtherPosition says that --skip-unreadable names another transaction than
// the one that the source cannot send.
var ErrOtherPosition = errors.New("--skip-unreadable names another position")

// sendError says that the source failed while it sent a transaction.
type sendError struct {
	commit  schemas.LSN // of the transaction; 0 where the source had not begun it
	xid     uint32
	ordinal int64  // changes of it that were received
	table   string // whose change came next; "" where that is not known
	err     *pgconn.PgError
}

func (e *sendError) Error() string { return fmt.Sprintf("the source ended the stream: %v", e.err) }

func (e *sendError) Unwrap() error { return e.err }

// failed tells a failure to send from a server that shuts down, loses the
// connection or has too little of something at the moment.
func (s *stream) failed(err *pgconn.PgError) error {
	switch err.Code[:2] {
	case "57", "08", "40", "55":
		return fmt.Errorf("the source ended the stream: %w", err)
	case "53":
		if err.Code != "53200" { // out of memory, as a long row may cause it
			return fmt.Errorf("the source ended the stream: %w", err)
		}
	}
	e := &sendError{err: err}
	if s.inTx {
		e.commit, e.xid, e.ordinal = s.tx.commit, s.tx.xid, s.ordinal
		if relation := s.relations[s.described]; relation != nil {
			e.table = relation.Table().String()
		}
	}
	return e
}

// drain waits until the transactions that came before the source failed are
// stored: otherwise each try would lose them.
func (s *stream) drain(ctx context.Context) {
	for end := time.Now().Add(drainWithin); s.flushed.Load() < uint64(s.flush) && time.Now().Before(end); {
		if !sleep(ctx, 10*time.Millisecond) {
			return
		}
	}
	s.goodbye(context.WithoutCancel(ctx))
}

// unsendable counts how often the source failed at the same transaction.
type unsendable struct {
	commit schemas.LSN
	code   string
	times  int
}

// again says whether the source failed at the same transaction often enough:
// at once where an operator named it.
func (u *unsendable) again(err error, named schemas.LSN) (*sendError, bool) {
	failure, ok := errors.AsType[*sendError](err)
	if !ok {
		return nil, false
	}
	if failure.commit != u.commit || failure.err.Code != u.code {
		*u = unsendable{commit: failure.commit, code: failure.err.Code}
	}
	u.times++
	return failure, u.times >= maxUnsendable || failure.commit != 0 && failure.commit == named
}

// gap is what is missing once the transaction is skipped.
func (e *sendError) gap() schemas.Gap {
	after := ""
	if e.ordinal > 0 {
		after = fmt.Sprintf(" after its first %d changes", e.ordinal)
	}
	table := "a table that is not known"
	if e.table != "" {
		table = "table " + e.table
	}
	return schemas.Gap{From: e.commit, To: e.commit + 1, Reason: fmt.Sprintf(
		"the source cannot send transaction %d, which committed at %s,%s at a change of %s (%s, SQLSTATE %s); "+
			"'walhook run --skip-unreadable %s' goes on without that transaction alone",
		e.xid, e.commit, after, table, e.err.Message, e.err.Code, e.commit)}
}

// unsent handles a transaction that the source cannot send: it is noted, or
// skipped where an operator said so. It reports whether reading goes on at once.
func (r *Reader) unsent(ctx context.Context, failure *sendError) (bool, error) {
	r.metrics.unreadable.Inc()
	if failure.commit == 0 {
		r.log.Error("the source cannot read its own log on; nobody's later changes are sent; nothing skips it but 'walhook setup --accept-gap'",
			zap.String("sqlstate", failure.err.Code), zap.String("message", failure.err.Message), zap.Duration("retry_in", unsendableWait))
		return false, nil
	}
	gap := failure.gap()
	checkpoint, err := r.store.TakeOver(ctx)
	if err != nil {
		return false, err
	}
	skipped := checkpoint.Flush > failure.commit // by an earlier run that did not get further
	switch skip := r.cfg.SkipUnreadable; {
	case skipped:
	case skip == failure.commit:
		if err := r.skip(ctx, failure, checkpoint); err != nil {
			return false, err
		}
	case skip != 0 && checkpoint.Flush <= skip:
		return false, &Fault{Problem: fmt.Sprintf("--skip-unreadable is %s, the transaction that the source cannot send committed at %s", skip, failure.commit),
			Mend: "look at 'walhook doctor', and name that position if its transaction may be lost", Err: ErrOtherPosition}
	default:
		r.log.Error("the source cannot send a transaction; nobody's later changes are sent until it is skipped",
			zap.Stringer("position", failure.commit), zap.String("table", failure.table), zap.Int64("changes", failure.ordinal),
			zap.String("sqlstate", failure.err.Code), zap.String("message", failure.err.Message), zap.Duration("retry_in", unsendableWait),
			zap.String("way_on", "walhook run --skip-unreadable "+failure.commit.String()))
		return false, r.store.RecordGap(ctx, gap)
	}
	return true, r.advanceSlot(ctx, failure.commit+1)
}

// checkSkip says so when --skip-unreadable does nothing: what it names was sent,
// or is no transaction. It is called with each position that is stored, by one
// goroutine at a time.
func (r *Reader) checkSkip(stored, end schemas.LSN) {
	skip := r.cfg.SkipUnreadable
	switch {
	case skip == 0 || r.skipDone:
		return
	case stored > skip:
		r.skipDone = true
		r.log.Warn("--skip-unreadable skips nothing: all up to its position is stored, and nothing there is unreadable; start without it",
			zap.Stringer("position", skip), zap.Stringer("stored", stored))
	case end != 0 && skip >= end && !r.skipAhead:
		r.skipAhead = true
		r.log.Warn("--skip-unreadable names a position beyond the end of the source's log: nothing there is unreadable; 'walhook doctor' names the one that is",
			zap.Stringer("position", skip), zap.Stringer("end", end))
	}
}

// skip stores that the transaction is over: its gap, then the position behind
// it. What committed before is stored, and what commits later comes after.
func (r *Reader) skip(ctx context.Context, failure *sendError, checkpoint schemas.Checkpoint) error {
	gap := failure.gap()
	gap.Accepted = true
	if err := r.store.RecordGap(ctx, gap); err != nil {
		return err
	}
	batch := schemas.Batch{Position: checkpoint.Position, Xid: checkpoint.Xid, Flush: failure.commit + 1, NoMessages: checkpoint.NoMessages}
	if batch.Position.Commit < failure.commit {
		batch.Position, batch.Xid = schemas.Position{Commit: failure.commit}, failure.xid
	}
	if err := r.store.Append(ctx, batch); err != nil {
		return err
	}
	r.skipDone = true
	r.metrics.gaps.Inc()
	r.log.Warn("a transaction that the source cannot send is skipped, as --skip-unreadable says",
		zap.Stringer("position", failure.commit), zap.String("table", failure.table), zap.Int64("changes_before", failure.ordinal))
	return nil
}

const advanceSlotSQL = `SELECT pg_catalog.pg_replication_slot_advance($1, $2::pg_catalog.text::pg_catalog.pg_lsn)`

// advanceSlot moves the slot on without having its changes sent.
func (r *Reader) advanceSlot(ctx context.Context, to schemas.LSN) error {
	source, err := newCatalogReader(ctx, r.cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	if _, err := source.conn.Exec(ctx, advanceSlotSQL, r.cfg.Slot, to.String()); err != nil {
		return fmt.Errorf("advance slot %s to %s: %w", r.cfg.Slot, to, err)
	}
	return nil
}
