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

// Reader reads the log for as long as it runs.
type Reader struct {
	cfg     source.Config
	store   Store
	log     *zap.Logger
	metrics *metrics
	state   atomic.Int32
	began   atomic.Bool

	heldBack   atomic.Pointer[string] // see HeldBack
	heldLogged retry.Reminder         // the watching goroutine's
	advanced   bool                   // the store has said how far it is, and since when; the observing goroutine's

	// noMessages says that the next connection asks for no logical messages.
	// It is the goroutine's of Run.
	noMessages bool

	// names are those that the catalog's tables had, by OID. They are the
	// goroutine's that receives.
	names map[uint32]schemas.TableName

	// skipDone says that --skip-unreadable has done what it can, skipAhead that
	// it was found to name what is not there yet. They are the goroutine's that
	// stores.
	skipDone, skipAhead bool

	// idleEvery bounds how often an idle advance is stored: each costs a
	// commit in the outbox.
	idleEvery time.Duration
	// watchEvery is how often the slot's and the publication's state is read.
	watchEvery time.Duration
	// tablesEvery is how often the catalog's tables are looked at.
	tablesEvery time.Duration
	// silence is how long the source may say nothing before the connection
	// counts as dead. It is asked for a word at half of it.
	silence time.Duration
}

// State is what a reader is doing, for readiness.
type State int32

// The states of a reader.
const (
	Connecting State = iota // or waiting to try again
	Standby                 // another process holds the slot
	Reading
	Unreadable // the source cannot send the next transaction
)

// String is the state for people.
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

// Began says whether the reader has read, or stood by, since it was made.
func (r *Reader) Began() bool { return r.began.Load() }

// State says what the reader is doing now.
func (r *Reader) State() State { return State(r.state.Load()) }

const (
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 10 * time.Second

	// standbyPoll is how often a standby tries to take the slot: a dead
	// process's slot is free once the server notices.
	standbyPoll = 500 * time.Millisecond

	// aLongRun resets the backoff, as progress does: a connection that held
	// this long was good.
	aLongRun = time.Minute

	defaultIdleEvery  = 10 * time.Second
	defaultWatchEvery = 10 * time.Second

	// defaultSilence is PostgreSQL's own for the same thing, the default of
	// wal_receiver_timeout: a server that is busy with one large transaction
	// may be silent for long. The kernel notices a peer that is gone, and
	// says nothing, after a quarter of an hour.
	defaultSilence = time.Minute
)

// Run reads until ctx ends, which is no error. A lost connection and a store
// that is away are waited for. It returns a [*source.GapError] when the log cannot be
// continued, and a [*source.Fault] for what has to be fixed first.
func (r *Reader) Run(ctx context.Context) error {
	observing, stop := context.WithCancel(ctx)
	var observer sync.WaitGroup
	observer.Go(func() { r.observe(observing) })
	defer observer.Wait()
	defer stop()
	return r.read(ctx)
}

// read is one session after another.
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
			r.metrics.oldest.Store(0) // what waited here is read there
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

// isFinal says whether trying again would not help.
func isFinal(err error) bool {
	_, gap := errors.AsType[*source.GapError](err)
	_, fault := errors.AsType[*source.Fault](err)
	return gap || fault
}

// final makes a durable note of a gap before the reader ends with it.
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

// Store keeps what is read. Only what it has committed is acknowledged.
type Store interface {
	History
	source.Changes

	// Ping asks whether the store answers, within a time of its own: who
	// cannot store leaves the slot to others.
	Ping(ctx context.Context) error
	// TakeOver makes the caller the only writer and returns what is stored.
	// It comes before the first Append and after every failed one.
	TakeOver(ctx context.Context) (schemas.Checkpoint, error)
	// Append commits a batch with its position. After an error it is not
	// known whether it did. The slice of changes is its caller's again when it
	// returns; what the changes point into is not used again.
	Append(ctx context.Context, batch schemas.Batch) error
	// Follow notes that the source has moved on to another timeline, as it
	// does by a failover, all that is stored being on both, or that its database
	// has another name.
	Follow(ctx context.Context, timeline int32, database string) error
	// ObserveSourceTime says that the source's log ended at end at an instant of its
	// clock: all that was committed before is stored once that place is. It is
	// called beside the other methods, and does not wait.
	ObserveSourceTime(end schemas.LSN, at time.Time)
	// Advanced says how far the source's log is stored, by whatever process, and
	// when that was stored, by this process's clock: zero where no position is.
	// It is called beside the other methods, and waits as long as Ping.
	Advanced(ctx context.Context) (flush schemas.LSN, at time.Time, err error)
	// RecordGap keeps a durable note of a gap, for people.
	RecordGap(ctx context.Context, gap schemas.Gap) error
}

const defaultMaxMessageBytes = 64 << 20

// errOtherCount makes the reader connect once more: the stored position is inside a
// transaction whose changes were counted the other way.
var errOtherCount = errors.New("the setting of logical messages needs a new connection")

// runOnce is the life of one replication connection. progress says whether
// changes were stored.
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
	r.metrics.oldest.Store(0) // what an earlier session received is sent again
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
	group.Go(func() error { return r.watch(ctx, slot) })
	group.Go(func() error { r.observeTables(ctx, history); return nil })
	err = group.Wait()
	return s.progress, err
}

// begin takes the slot first, then the epoch, then reads the position: whoever
// held the slot before can store nothing after that. The checks come last: once
// we hold the slot, nobody else can move it. A reader whose store does not
// answer takes no slot: a standby may be better off.
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
	if slot.Exists && !slot.Lost {
		if err := r.cfg.StartStream(ctx, conn, r.noMessages); err != nil {
			return checkpoint, slot, err
		}
	}
	if checkpoint, err = r.store.TakeOver(ctx); err != nil {
		return checkpoint, slot, err
	}
	if without := r.withoutMessages(checkpoint); without != r.noMessages {
		r.noMessages = without
		return checkpoint, slot, errOtherCount
	}
	if slot, err = introspector.Inspect(ctx, r.cfg); err != nil {
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

// withoutMessages says whether the server is asked for no logical messages. A
// transaction that is stored in part is read on as it was begun: messages count
// in its ordinals, or do not.
func (r *Reader) withoutMessages(checkpoint schemas.Checkpoint) bool {
	if checkpoint.Inside() {
		return checkpoint.NoMessages
	}
	return r.cfg.Messages.Off()
}
