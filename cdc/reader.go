package cdc

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/schemas"
)

// Reader reads the log for as long as it runs.
type Reader struct {
	cfg     Config
	store   Store
	log     *zap.Logger
	metrics *metrics
	state   atomic.Int32
	began   atomic.Bool

	heldBack atomic.Pointer[string] // see HeldBack
	heldTold time.Time              // the watching goroutine's
	advanced bool                   // the lag knows when the store last advanced; the observing goroutine's

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
func New(cfg Config, store Store, log *zap.Logger, reg prometheus.Registerer) (*Reader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Reader{
		cfg: cfg.withDefaults(), store: store, log: log.Named("cdc"),
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
// that is away are waited for. It returns a [*GapError] when the log cannot be
// continued, and a [*Fault] for what has to be mended first.
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
	backoff, standby, trouble, unreadable := firstBackoff, false, trouble{}, unreadable{}
	var unsent unsendable
	var toldStandby time.Time
	for {
		began := time.Now()
		progress, err := r.runOnce(ctx)
		r.state.Store(int32(Connecting))
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errSlotInUse):
			r.state.Store(int32(Standby))
			r.began.Store(true)
			r.metrics.oldest.Store(0) // what waited here is read there
			r.metrics.lag.begins()
			trouble.end()
			if !standby || time.Since(toldStandby) >= remindEvery {
				if r.tellStandby(ctx, !standby) {
					toldStandby = time.Now()
				}
				standby = true
			}
			if !sleep(ctx, standbyPoll) {
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
				trouble.tell(r.log, err, lastBackoff)
			case on:
				unsent = unsendable{}
				continue
			}
			r.state.Store(int32(Unreadable))
			wait := unsendableWait
			if err != nil {
				wait = lastBackoff
			}
			if !sleep(ctx, wait) {
				return nil
			}
			continue
		}
		if err := unreadable.again(err); err != nil {
			return err
		}
		standby = false
		if progress || time.Since(began) > aLongRun {
			backoff = firstBackoff
			trouble.end()
		}
		r.metrics.reconnects.Inc()
		wait := jitter(backoff)
		trouble.tell(r.log, err, wait)
		if !sleep(ctx, wait) {
			return nil
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// tellStandby says who reads the slot: once where that is a walhook, and again and
// again where it is another program, whose reading is a gap for us.
func (r *Reader) tellStandby(ctx context.Context, first bool) (told bool) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("look at the slot: no answer in time"))
	defer cancel()
	report, err := ReportSlot(ctx, r.cfg)
	fields := []zap.Field{zap.String("slot", r.cfg.Slot), zap.Int("pid", report.Reader.PID),
		zap.String("application", report.Reader.Application), zap.String("address", report.Reader.Address)}
	switch {
	case err == nil && report.Reader.Foreign():
		r.log.Warn("another program reads the slot: what it confirms is a gap here; end it, or choose another --slot", fields...)
		return true
	case first:
		r.log.Info("slot is in use, waiting as standby", fields...)
	}
	return err == nil
}

// isFinal says whether trying again would not help.
func isFinal(err error) bool {
	_, gap := errors.AsType[*GapError](err)
	_, fault := errors.AsType[*Fault](err)
	return gap || fault
}

// final makes a durable note of a gap before the reader ends with it.
func (r *Reader) final(ctx context.Context, err error) error {
	gap, ok := errors.AsType[*GapError](err)
	if !ok {
		return err
	}
	r.metrics.gaps.Inc()
	r.log.Error("the log cannot be continued without a gap", zap.String("slot", gap.Slot),
		zap.Stringer("from", gap.From), zap.Stringer("to", gap.To), zap.String("reason", gap.Reason))
	if noteErr := r.store.RecordGap(ctx, gap.gap()); noteErr != nil {
		return errors.Join(gap, noteErr)
	}
	return gap
}

// jitter spreads d by a fifth either way.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
