package cdc

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walhook/cdc/source"
	"walhook/internal/retry"
	"walhook/schemas"
)

// Reader reads the WAL while [Reader.Run] runs.
type Reader struct {
	cfg     source.Config
	store   Store
	log     *zap.Logger
	metrics *metrics
	state   atomic.Int32
	began   atomic.Bool

	heldBack   atomic.Pointer[string] // see HeldBack
	heldLogged retry.Reminder         // the watching goroutine's
	advanced   bool                   // the store has reported its position and its time; the observing goroutine's

	// noMessages says that the next connection asks for no logical messages. Run's
	// goroutine owns it.
	noMessages bool

	// names are the names that tables of the catalog had, by OID. The receiving
	// goroutine owns them.
	names map[uint32]schemas.TableName

	// adopting is what the reader waits with the adoption of a catalog; Run's goroutine
	// and that of a session own it.
	adopting adopting

	// skipDone says that --skip-unreadable has no effect any more, skipAhead that its
	// position is beyond the end of the WAL. The appending goroutine owns them.
	skipDone, skipAhead bool

	// idleEvery is how often an idle advance is stored: each costs a commit in the
	// outbox.
	idleEvery time.Duration
	// watchEvery is how often watch reads the state of slot and publication.
	watchEvery time.Duration
	// tablesEvery is how often the catalog's tables are checked for changes.
	tablesEvery time.Duration
	// silence is how long the source may send nothing before the connection counts
	// as lost. At half of it the reader asks for a keepalive.
	silence time.Duration
}

// State is what a reader is doing, for readiness.
type State int32

// The states of a reader.
const (
	Connecting State = iota // or waiting to connect again
	Standby                 // another process holds the slot
	Reading
	Unreadable // the source cannot send the next transaction
)

// String is the state for display.
func (s State) String() string {
	return [...]string{"connecting", "standby", "reading", "unreadable"}[s]
}

// New prepares a reader; Run starts it.
func New(cfg source.Config, store Store, log *zap.Logger, reg prometheus.Registerer) (*Reader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Reader{
		cfg: cfg.WithDefaults(), store: store, log: log.Named("cdc"),
		noMessages: cfg.Messages.Off(), names: map[uint32]schemas.TableName{},
		idleEvery: defaultIdleEvery, watchEvery: defaultWatchEvery, tablesEvery: defaultTablesEvery, silence: defaultSilence,
	}
	r.metrics = newMetrics(reg, r.State)
	return r, nil
}

// Began reports whether the reader has read or been a standby since it was made.
func (r *Reader) Began() bool { return r.began.Load() }

// State returns what the reader is doing now.
func (r *Reader) State() State { return State(r.state.Load()) }

const (
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 10 * time.Second

	// standbyPoll is how often a standby tries to take the slot. The server frees the
	// slot of a dead process once it notices.
	standbyPoll = 500 * time.Millisecond

	// aLongRun is how long a connection must have worked to reset the backoff, as
	// progress does.
	aLongRun = time.Minute

	defaultIdleEvery  = 10 * time.Second
	defaultWatchEvery = 10 * time.Second

	// defaultSilence is the default of PostgreSQL's wal_receiver_timeout: a server that
	// decodes a large transaction may send nothing for long. The kernel notices a lost
	// peer only after a quarter of an hour.
	defaultSilence = time.Minute
)

// Run reads until ctx ends, which is no error. It connects again after a lost connection
// and while the store is away. It returns a [*source.GapError] when the WAL cannot be
// continued, and a [*source.Fault] for a problem that an operator must fix first.
func (r *Reader) Run(ctx context.Context) error {
	observing, stop := context.WithCancel(ctx)
	var observer sync.WaitGroup
	observer.Go(func() { r.observe(observing) })
	defer observer.Wait()
	defer stop()
	return r.read(ctx)
}

// read runs one session after another.
func (r *Reader) read(ctx context.Context) error {
	backoff, trouble := retry.Backoff{Min: firstBackoff, Max: lastBackoff}, newTrouble()
	var unreadable unreadable
	var unsent unsendable
	var standby bool
	var standbyReminder retry.Reminder
	for {
		began := time.Now()
		progress, err := r.runOnce(ctx)
		r.state.Store(int32(Connecting))
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, source.ErrSlotInUse):
			r.state.Store(int32(Standby))
			r.began.Store(true)
			r.metrics.oldest.Store(0) // the other process reads what waited here
			r.metrics.lag.begins()
			trouble.end()
			if standbyReminder.Due("") {
				if r.logStandby(ctx, !standby) {
					standbyReminder.Logged("")
				}
				standby = true
			}
			if retry.Pause(ctx, standbyPoll) != nil {
				return nil
			}
			continue
		case errors.Is(err, errAdopted):
			continue
		case isFinal(err):
			return r.final(ctx, err)
		}
		if failure, stuck := unsent.again(err, r.cfg.SkipUnreadable); stuck {
			on, err := r.unsent(ctx, failure)
			switch {
			case err != nil && isFinal(err):
				return err
			case err != nil:
				trouble.add(r.log, err, lastBackoff)
			case on:
				unsent = unsendable{}
				continue
			}
			r.state.Store(int32(Unreadable))
			wait := unsendableWait
			if err != nil {
				wait = lastBackoff
			}
			if retry.Pause(ctx, wait) != nil {
				return nil
			}
			continue
		}
		if err := unreadable.again(err); err != nil {
			return err
		}
		standby = false
		standbyReminder.Reset()
		if progress || time.Since(began) > aLongRun {
			backoff.Reset()
			trouble.end()
		}
		r.metrics.reconnects.Inc()
		wait := backoff.Next()
		trouble.add(r.log, err, wait)
		if retry.Pause(ctx, wait) != nil {
			return nil
		}
	}
}

// logStandby logs which program reads the slot: once where it is a walhook, and every
// minute where it is another program, which makes a gap for walhook by confirming.
func (r *Reader) logStandby(ctx context.Context, first bool) (logged bool) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("read the slot: timed out"))
	defer cancel()
	report, err := source.ReportSlot(ctx, r.cfg)
	fields := []zap.Field{zap.String("slot", r.cfg.Slot), zap.Int("pid", report.Reader.PID),
		zap.String("application", report.Reader.Application), zap.String("address", report.Reader.Address)}
	switch {
	case err == nil && report.Reader.Foreign():
		r.log.Warn("another program reads the slot: what it confirms is a gap for walhook; end it, or choose another --slot", fields...)
		return true
	case first:
		r.log.Info("slot is in use, waiting as standby", fields...)
	}
	return err == nil
}

// isFinal says that reading again does not help.
func isFinal(err error) bool {
	_, gap := errors.AsType[*source.GapError](err)
	_, fault := errors.AsType[*source.Fault](err)
	return gap || fault
}

// final stores a gap before the reader ends with it.
func (r *Reader) final(ctx context.Context, err error) error {
	gap, ok := errors.AsType[*source.GapError](err)
	if !ok {
		return err
	}
	r.metrics.gaps.Inc()
	r.log.Error("gap: the WAL cannot be continued without loss", zap.String("slot", gap.Slot),
		zap.Stringer("from", gap.From), zap.Stringer("to", gap.To), zap.String("reason", gap.Reason))
	if noteErr := r.store.RecordGap(ctx, gap.Gap()); noteErr != nil {
		return errors.Join(gap, noteErr)
	}
	return gap
}

// Store stores changes. The reader acknowledges only what it has committed.
type Store interface {
	History
	Catalogs
	source.Changes

	// Ping checks whether the store answers, within its own time limit. A reader whose
	// store does not answer leaves the slot to a standby.
	Ping(ctx context.Context) error
	// TakeOver makes the caller the only writer and returns the stored position. The
	// reader calls it before the first Append and after every failed one. It may take
	// long, since what it reads grows with the number of accounts; it ends by itself when
	// it makes no progress.
	TakeOver(ctx context.Context) (schemas.Checkpoint, error)
	// Append commits a batch with its position. After an error the caller does not
	// know whether it did. Append must not keep batch.Changes; it may keep what the
	// changes point to.
	Append(ctx context.Context, batch schemas.Batch) error
	// Follow notes the source's new timeline after a failover, when all that is stored
	// is on both timelines, or the new name of its database.
	Follow(ctx context.Context, timeline int32, database string) error
	// ObserveSourceTime passes the end of the WAL and the source's clock, read together:
	// once end is stored, so is all that was committed before at. It may run
	// concurrently with the other methods, and does not wait.
	ObserveSourceTime(end schemas.LSN, at time.Time)
	// ObserveVisible passes what a snapshot of the source saw. Once its end is stored, so
	// is all that it saw. It may run concurrently with the other methods, and does not
	// wait.
	ObserveVisible(visible schemas.Visible)
	// Advanced returns the position that any process stored last, and when, by this
	// process's clock; zero for none. It may run concurrently with the other methods,
	// and has the time limit of Ping.
	Advanced(ctx context.Context) (flush schemas.LSN, at time.Time, err error)
	// Awaited returns a position up to which the store waits for the WAL, or one that is
	// stored already. It may run concurrently with the other methods, and does not wait.
	Awaited() schemas.LSN
	// RecordGap stores a gap, for operators.
	RecordGap(ctx context.Context, gap schemas.Gap) error
}

const defaultMaxMessageBytes = 64 << 20

// errOtherCount makes the reader connect again: the stored position is inside a
// transaction whose ordinals count logical messages and should not, or vice versa.
var errOtherCount = errors.New("the setting of logical messages needs a new connection")

// runOnce runs one replication connection. progress says whether it stored changes.
func (r *Reader) runOnce(ctx context.Context) (progress bool, err error) {
	introspector, err := source.NewIntrospector(ctx, r.cfg)
	if err != nil {
		return false, err
	}
	defer introspector.Close(ctx)
	// No change takes more memory than MaxMessageBytes. arrived counts the server's
	// bytes, so that a long message is no silence.
	var arrived atomic.Uint64
	conn, err := r.cfg.ConnectStream(ctx, func(src io.Reader) io.Reader {
		return &shortener{src: src, limit: cmp.Or(r.cfg.MaxMessageBytes, defaultMaxMessageBytes), arrived: &arrived}
	})
	if err != nil {
		return false, err
	}
	defer source.CloseConn(ctx, conn)

	checkpoint, slot, err := r.begin(ctx, conn, introspector)
	if err != nil {
		return false, err
	}
	r.state.Store(int32(Reading))
	r.began.Store(true)
	r.metrics.flushed.Store(uint64(checkpoint.Flush))
	r.metrics.oldest.Store(0) // the server sends again what an earlier session received
	r.metrics.lag.begins()
	r.log.Info("replication started", zap.String("slot", r.cfg.Slot), zap.Stringer("position", checkpoint.Position),
		zap.Stringer("lsn", checkpoint.Flush))

	r.checkSkip(checkpoint.Flush, slot.WALEnd)
	if fault, err := introspector.TakenForStandby(ctx); err != nil {
		return false, err
	} else if fault != "" {
		r.log.Warn(fault, zap.String("fix", "'walhook doctor' prints the statement"))
	}
	history, err := openHistory(ctx, r.store)
	if err != nil {
		return false, err
	}
	history.eachNamed(r.cfg.Catalog, func(oid uint32, name schemas.TableName) { r.names[oid] = name })
	s := newStream(r, conn, introspector, introspector.DropsDefaults, history, checkpoint, slot.Confirmed)
	s.arrived = &arrived
	s.encoding, s.illegible, s.convert = source.ServerEncoding(conn), map[string]bool{}, introspector.Convert
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.receive(ctx) })
	group.Go(func() error { return s.append(ctx) })
	group.Go(func() error { return r.watch(ctx, slot, checkpoint.Published) })
	group.Go(func() error { return r.followCatalog(ctx, s) })
	group.Go(func() error { r.observeTables(ctx, history); return nil })
	err = group.Wait()
	return s.progress, err
}

// begin takes the slot, then the epoch, then reads the position: after that the slot's
// former reader can store nothing. The checks come last: while this process holds the
// slot, no other can advance it. If the store does not answer, begin does not take the
// slot, since a standby's store may.
func (r *Reader) begin(ctx context.Context, conn *pgconn.PgConn, introspector *source.Introspector) (
	checkpoint schemas.Checkpoint, slot source.SlotState, err error,
) {
	now, err := source.Identify(ctx, conn)
	if err != nil {
		return checkpoint, slot, err
	}
	slot, err = introspector.Inspect(ctx, r.cfg)
	if err != nil {
		return checkpoint, slot, err
	}
	if slot.Exists && slot.Active {
		return checkpoint, slot, source.ErrSlotInUse
	}
	if err := r.store.Ping(ctx); err != nil {
		return checkpoint, slot, err
	}
	streaming := slot.Exists && !slot.Lost
	if streaming {
		if err := r.cfg.StartStream(ctx, conn, r.noMessages); err != nil {
			return checkpoint, slot, err
		}
	}
	takeOver := func(ctx context.Context) (err error) {
		checkpoint, err = r.store.TakeOver(ctx)
		return err
	}
	if streaming {
		err = keepAlive(ctx, conn, takeOver)
	} else {
		err = takeOver(ctx)
	}
	if err != nil {
		return checkpoint, slot, err
	}
	if inForce := r.store.Catalog(); inForce != nil {
		r.cfg.Catalog = inForce
	}
	if without := r.withoutMessages(checkpoint); without != r.noMessages {
		r.noMessages = without
		return checkpoint, slot, errOtherCount
	}
	if slot, err = introspector.Inspect(ctx, r.cfg); err != nil {
		return checkpoint, slot, err
	}
	verify := func(ctx context.Context) error { now.Verify(ctx, r.cfg, checkpoint, slot); return nil }
	if streaming {
		err = keepAlive(ctx, conn, verify)
	} else {
		err = verify(ctx)
	}
	if err != nil {
		return checkpoint, slot, err
	}
	if err := r.cfg.Check(checkpoint, now, slot); err != nil {
		return checkpoint, slot, err
	}
	was := checkpoint.Source
	if now.Timeline != was.Timeline {
		r.log.Info("following the source to a new timeline", zap.Int32("from", was.Timeline), zap.Int32("to", now.Timeline))
	}
	if now.Database != was.Database {
		r.log.Info("source database was renamed", zap.String("from", was.Database), zap.String("to", now.Database))
	}
	if now.Timeline != was.Timeline || now.Database != was.Database {
		if err := r.store.Follow(ctx, now.Timeline, now.Database); err != nil {
			return checkpoint, slot, err
		}
	}
	return checkpoint, slot, nil
}

// withoutMessages reports whether to ask the server for no logical messages. A
// transaction that is stored in part continues as it began, since its ordinals count
// messages or do not.
func (r *Reader) withoutMessages(checkpoint schemas.Checkpoint) bool {
	if checkpoint.Inside() {
		return checkpoint.NoMessages
	}
	return r.cfg.Messages.Off()
}
