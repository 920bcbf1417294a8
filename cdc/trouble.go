package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/internal/pgsession"
	"walhook/internal/retry"
	"walhook/schemas"
)

// trouble is a run of sessions that ended with an error, as the logs show it.
type trouble struct {
	since    time.Time // when the first of them ended; zero for none
	tries    int
	reminder retry.Reminder
}

func newTrouble() trouble { return trouble{reminder: retry.Reminder{Changes: 3}} }

// add logs that another session ended.
func (t *trouble) add(log *zap.Logger, err error, retryIn time.Duration) {
	if t.since.IsZero() {
		t.since = time.Now()
	}
	t.tries++
	if text := err.Error(); t.reminder.Due(text) {
		t.reminder.Logged(text)
		log.Warn("reading stopped, retrying from the stored position", zap.Int("tries", t.tries),
			zap.Duration("duration", time.Since(t.since)), zap.Duration("retry_in", retryIn), zap.Error(err))
		return
	}
	log.Debug("reading stopped again", zap.Int("tries", t.tries), zap.Duration("retry_in", retryIn), zap.Error(err))
}

func (t *trouble) end() { *t = newTrouble() }

// maxUnreadable is how often the reader asks for the same unreadable message.
const maxUnreadable = 5

// unreadable counts how often the same message could not be decoded. Asking again helps
// if the network damaged it. It does not if the source did, or if this walhook does
// not know the message.
type unreadable struct {
	at    schemas.LSN
	times int
}

// again returns the fault that ends the reader after too many tries.
func (u *unreadable) again(err error) error {
	message, ok := errors.AsType[*messageError](err)
	if !ok {
		return nil
	}
	if message.at != u.at {
		*u = unreadable{at: message.at}
	}
	if u.times++; u.times < maxUnreadable {
		return nil
	}
	return &source.Fault{
		Problem: fmt.Sprintf("the source's message at %s was unreadable %d times", message.at, u.times),
		Fix: "nothing is lost, the slot keeps it: check that no device on the network changes the stream, and that this version of PostgreSQL is supported; " +
			"if the message itself is damaged, 'walhook setup --accept-gap' continues without it",
		Err: message.err,
	}
}

// messageError says that a message of the stream violates the protocol.
type messageError struct {
	at  schemas.LSN
	err error
}

func (e *messageError) Error() string { return fmt.Sprintf("decode message at %s: %v", e.at, e.err) }

func (e *messageError) Unwrap() error { return e.err }

// asDecodeError makes a messageError of the error of handling a message. It leaves
// other errors: the reader's end, a gap, and a catalog that does not answer.
func (s *stream) asDecodeError(ctx context.Context, at schemas.LSN, err error) error {
	if ctx.Err() != nil || isFinal(err) || pgsession.State(err) != "" || source.IsUnreachable(err) {
		return fmt.Errorf("handle message at %s: %w", at, err)
	}
	s.r.metrics.unreadable.Inc()
	return &messageError{at, err}
}

const (
	// maxUnsendable is how often the source fails at the same transaction before that
	// counts as unsendable.
	maxUnsendable = 3

	// unsendableWait is the pause between tries after that: for each, the server reads
	// the transaction again.
	unsendableWait = 5 * time.Minute

	// drainWithin bounds how long drain waits.
	drainWithin = 30 * time.Second
)

// ErrOtherPosition says that --skip-unreadable names another transaction than the one
// that the source cannot send.
var ErrOtherPosition = errors.New("--skip-unreadable names another position")

// sendError says that the source failed while it sent a transaction.
type sendError struct {
	commit      schemas.LSN // of the transaction; 0 if the source had not begun it
	xid         uint32
	committedAt time.Time
	ordinal     int64  // how many of its changes were received
	table       string // of the next change; "" if unknown
	err         *pgconn.PgError
}

func (e *sendError) Error() string { return fmt.Sprintf("the source ended the stream: %v", e.err) }

func (e *sendError) Unwrap() error { return e.err }

// failed makes a sendError of the server's error, unless the server shuts down, loses
// the connection or lacks a resource for the moment.
func (s *stream) failed(err *pgconn.PgError) error {
	switch err.Code[:2] {
	case "57", "08", "40", "55":
		return fmt.Errorf("the source ended the stream: %w", err)
	case "53":
		if err.Code != "53200" { // out of memory, which a long row may cause
			return fmt.Errorf("the source ended the stream: %w", err)
		}
	}
	e := &sendError{err: err}
	if s.inTx {
		e.commit, e.xid, e.committedAt, e.ordinal = s.tx.commit, s.tx.xid, s.tx.committedAt, s.ordinal
		if relation := s.relations[s.described]; relation != nil {
			e.table = relation.Table().String()
		}
	}
	return e
}

// drain waits until the transactions before the source's error are stored: otherwise
// each try would receive them again.
func (s *stream) drain(ctx context.Context) {
	for end := time.Now().Add(drainWithin); s.flushed.Load() < uint64(s.flush) && time.Now().Before(end); {
		if retry.Pause(ctx, 10*time.Millisecond) != nil {
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

// again reports whether the source failed at the same transaction often enough: once,
// if an operator named it.
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

// gap is the gap that skipping the transaction makes.
func (e *sendError) gap() schemas.Gap {
	after := ""
	if e.ordinal > 0 {
		after = fmt.Sprintf(" after its first %d changes", e.ordinal)
	}
	table := "an unknown table"
	if e.table != "" {
		table = "table " + e.table
	}
	return schemas.Gap{From: e.commit, To: e.commit + 1, Reason: fmt.Sprintf(
		"the source cannot send transaction %d, which committed at %s,%s at a change of %s (%s, SQLSTATE %s); "+
			"'walhook run --skip-unreadable %s' skips that transaction alone",
		e.xid, e.commit, after, table, e.err.Message, e.err.Code, e.commit)}
}

// unsent records a transaction that the source cannot send, or skips it if an operator
// asked for that. It reports whether reading continues at once.
func (r *Reader) unsent(ctx context.Context, failure *sendError) (bool, error) {
	r.metrics.unreadable.Inc()
	if failure.commit == 0 {
		r.log.Error("the source cannot read its own WAL any further, so no later changes are sent; only 'walhook setup --accept-gap' continues",
			zap.String("sqlstate", failure.err.Code), zap.String("message", failure.err.Message), zap.Duration("retry_in", unsendableWait))
		return false, nil
	}
	gap := failure.gap()
	checkpoint, err := r.store.TakeOver(ctx)
	if err != nil {
		return false, err
	}
	skipped := checkpoint.Flush > failure.commit // by an earlier run that did not advance the slot
	switch skip := r.cfg.SkipUnreadable; {
	case skipped:
	case skip == failure.commit:
		if err := r.skip(ctx, failure, checkpoint); err != nil {
			return false, err
		}
	case skip != 0 && checkpoint.Flush <= skip:
		return false, &source.Fault{Problem: fmt.Sprintf("--skip-unreadable is %s, the transaction that the source cannot send committed at %s", skip, failure.commit),
			Fix: "run 'walhook doctor', and use the position that it prints if you can lose the transaction", Err: ErrOtherPosition}
	default:
		r.log.Error("the source cannot send a transaction, so no later changes are sent until it is skipped",
			zap.Stringer("position", failure.commit), zap.String("table", failure.table), zap.Int64("changes", failure.ordinal),
			zap.String("sqlstate", failure.err.Code), zap.String("message", failure.err.Message), zap.Duration("retry_in", unsendableWait),
			zap.String("way_on", "walhook run --skip-unreadable "+failure.commit.String()))
		return false, r.store.RecordGap(ctx, gap)
	}
	introspector, err := source.NewIntrospector(ctx, r.cfg)
	if err != nil {
		return true, err
	}
	defer introspector.Close(ctx)
	return true, introspector.AdvanceSlot(ctx, r.cfg.Slot, failure.commit+1)
}

// checkSkip warns when --skip-unreadable has no effect, because its position is stored
// or is beyond the end of the WAL. It is called with each stored position, by one
// goroutine at a time.
func (r *Reader) checkSkip(stored, end schemas.LSN) {
	skip := r.cfg.SkipUnreadable
	switch {
	case skip == 0 || r.skipDone:
		return
	case stored > skip:
		r.skipDone = true
		r.log.Warn("--skip-unreadable skips nothing: everything up to its position is stored, and nothing there is unreadable; start without it",
			zap.Stringer("position", skip), zap.Stringer("stored", stored))
	case end != 0 && skip >= end && !r.skipAhead:
		r.skipAhead = true
		r.log.Warn("--skip-unreadable is beyond the end of the WAL: nothing there is unreadable; 'walhook doctor' prints the right position",
			zap.Stringer("position", skip), zap.Stringer("end", end))
	}
}

// skip stores the transaction's gap, and then the position after it. All that committed
// before is stored already.
func (r *Reader) skip(ctx context.Context, failure *sendError, checkpoint schemas.Checkpoint) error {
	gap := failure.gap()
	gap.Accepted = true
	if err := r.store.RecordGap(ctx, gap); err != nil {
		return err
	}
	batch := schemas.Batch{Position: checkpoint.Position, Xid: checkpoint.Xid, CommittedAt: checkpoint.CommittedAt, Flush: failure.commit + 1, NoMessages: checkpoint.NoMessages}
	if batch.Position.Commit < failure.commit {
		batch.Position, batch.Xid, batch.CommittedAt = schemas.Position{Commit: failure.commit}, failure.xid, failure.committedAt
	}
	if err := r.store.Append(ctx, batch); err != nil {
		return err
	}
	r.skipDone = true
	r.metrics.gaps.Inc()
	r.log.Warn("skipping a transaction that the source cannot send, as --skip-unreadable says",
		zap.Stringer("position", failure.commit), zap.String("table", failure.table), zap.Int64("changes_before", failure.ordinal))
	return nil
}
