package cdc

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/internal/retry"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// observe keeps the metrics of slot and source true while the reader does not
// read: as a standby, and while the outbox is away, which is when the slot
// fills the source's disk. While it reads, watch does so with its own session.
func (r *Reader) observe(ctx context.Context) {
	var introspector *source.Introspector
	defer func() {
		if introspector != nil {
			introspector.Close(ctx)
		}
	}()
	for {
		r.askStored(ctx)
		if r.State() == Reading {
			if introspector != nil {
				introspector.Close(ctx)
				introspector = nil
			}
		} else {
			introspector = r.look(ctx, introspector)
		}
		if retry.Pause(ctx, min(r.watchEvery, markEvery)) != nil {
			return
		}
	}
}

// askStored asks the store how far it is while another process may write to it.
// The slot does not tell: whoever reads it confirms what walhook never stored.
// The lag of a backlog that was there before this process counts from when the
// store last advanced.
func (r *Reader) askStored(ctx context.Context) {
	if r.advanced && r.State() == Reading {
		return
	}
	before := r.metrics.flushed.Load()
	flush, at, err := r.store.Advanced(ctx)
	if err != nil {
		r.log.Debug("cannot read which position is stored", zap.Error(err))
		return
	}
	r.advanced = true
	if !at.IsZero() {
		r.metrics.lag.startsAt(at)
	}
	if r.State() != Reading { // a session that began meanwhile knows better
		r.metrics.flushed.CompareAndSwap(before, uint64(flush))
	}
}

// Pause waits between two runs, and keeps the metrics of slot and source true
// meanwhile. It is false when ctx ended first.
func (r *Reader) Pause(ctx context.Context, d time.Duration) bool {
	observing, stop := context.WithCancel(ctx)
	var observer sync.WaitGroup
	observer.Go(func() { r.observe(observing) })
	defer observer.Wait()
	defer stop()
	return retry.Pause(ctx, d) == nil
}

// look asks the source once, over the session that it gets and answers; nil
// stands for none. What is wrong is told by whoever tries to read.
func (r *Reader) look(ctx context.Context, introspector *source.Introspector) *source.Introspector {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("read the slot: timed out"))
	defer cancel()
	var err error
	if introspector == nil {
		introspector, err = source.NewIntrospector(ctx, r.cfg)
	}
	var report source.SlotReport
	if err == nil {
		report, err = introspector.Report(ctx, r.cfg.Slot)
	}
	if err != nil {
		if introspector != nil {
			introspector.Close(ctx)
		}
		if r.State() != Reading {
			r.metrics.unknown()
		}
		r.log.Debug("cannot query the source", zap.Error(err))
		return nil
	}
	if r.State() != Reading {
		r.metrics.observed(report)
	}
	return introspector
}

// lookTimeout bounds connecting and asking.
const lookTimeout = 15 * time.Second

// watch keeps the metrics of the slot while the reader reads, and ends when the
// publication no longer holds what was published: nothing else would tell. It
// has a session of its own: the receiver's is not shared.
func (r *Reader) watch(ctx context.Context, before source.SlotState) error {
	introspector, err := source.NewIntrospector(ctx, r.cfg)
	if err != nil {
		return err
	}
	defer introspector.Close(ctx)
	for {
		// A source that has gone silent is not up, though its connections stand.
		silent := time.AfterFunc(lookTimeout, r.metrics.unknown)
		report, err := introspector.Report(ctx, r.cfg.Slot)
		silent.Stop()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		r.metrics.observed(report)
		r.store.ObserveSourceTime(report.WALEnd, report.At)
		r.log.Debug("slot", zap.String("slot", r.cfg.Slot), zap.Float64("retained_bytes", report.Retained), zap.String("wal_status", report.WALStatus))
		if err := introspector.StillPublished(ctx, r.cfg, before, schemas.LSN(r.metrics.flushed.Load())); err != nil {
			return err
		}
		r.held(report)
		for next := time.Now().Add(r.watchEvery); time.Now().Before(next); {
			if err := retry.Pause(ctx, min(markEvery, time.Until(next))); err != nil {
				return err
			}
			end, err := introspector.WALEnd(ctx)
			if err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return err
			}
			r.metrics.lag.mark(end, time.Now())
		}
	}
}

// held takes note of a source that sends nothing until its own standbys have it.
func (r *Reader) held(report source.SlotReport) {
	why := report.Held()
	before := r.heldBack.Swap(&why)
	if why != "" && r.heldLogged.Due("") {
		r.heldLogged.Logged("")
		r.log.Warn("source withholds changes", zap.String("slot", r.cfg.Slot), zap.String("reason", why))
	}
	if why == "" && before != nil && *before != "" {
		r.heldLogged.Reset()
		r.log.Info("source sends changes again", zap.String("slot", r.cfg.Slot))
	}
}

// HeldBack says why the source sends nothing, in words; "" where it does.
func (r *Reader) HeldBack() string {
	if why := r.heldBack.Load(); why != nil && r.State() == Reading {
		return *why
	}
	return ""
}

// defaultTablesEvery is how often the catalog's tables are looked at: a
// partition that lives for less is read by what today's catalog says, if that
// still has it.
const (
	defaultTablesEvery = 2 * time.Second
	lastTablesEvery    = 10 * time.Second
)

// tableObserver looks at the catalog's tables while the reader reads, so that
// they are remembered before they vanish, and sees at once what a change of
// them does to the carrier's writes and to old rows.
type tableObserver struct {
	r       *Reader
	history *history
	source  *source.Introspector // nil until it is connected
	stamp   string
	took    time.Duration          // how long the source took for the stamp
	gone    map[uint32]schemas.LSN // where the log ended when a table was found gone
	repair  *source.TableRepair
}

// observeTables looks until ctx ends. What is wrong with the source is told by
// whoever reads; a look that fails is made again.
func (r *Reader) observeTables(ctx context.Context, h *history) {
	o := &tableObserver{r: r, history: h, gone: map[uint32]schemas.LSN{}, repair: source.NewTableRepair(r.cfg, r.store, h.isAdded, r.log)}
	defer func() { o.disconnect(ctx) }()
	for {
		if err := o.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Debug("cannot read the source's tables", zap.Error(err))
			o.disconnect(ctx)
		}
		// Where there are very many partitions a look takes its time, and is made
		// less often.
		wait := time.NewTimer(max(r.tablesEvery, min(20*o.took, lastTablesEvery)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-h.changed: // the stream described a table that is new
			wait.Stop()
		case <-wait.C:
		}
	}
}

func (o *tableObserver) disconnect(ctx context.Context) {
	if o.source != nil {
		o.source.Close(ctx)
		o.source = nil
	}
}

func (o *tableObserver) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("read the tables: timed out"))
	defer cancel()
	if o.source == nil {
		introspector, err := source.NewIntrospector(ctx, o.r.cfg)
		if err != nil {
			return err
		}
		o.source = introspector
	}
	if err := o.history.prune(ctx, schemas.LSN(o.r.metrics.flushed.Load()), o.gone); err != nil {
		return err
	}
	began := time.Now()
	stamp, err := o.source.TablesStamp(ctx, o.r.cfg)
	if err != nil {
		return err
	}
	o.took = time.Since(began)
	if stamp == o.stamp && !o.repair.Due() {
		return nil
	}
	list, err := o.source.DescribeAll(ctx, o.r.cfg)
	if err != nil {
		return err
	}
	// What commits from here on finds the tables so, until they change again.
	end, err := o.source.WALEnd(ctx)
	if err != nil {
		return err
	}
	if err := o.history.remember(ctx, end, list...); err != nil {
		return err
	}
	o.noteGone(end, list)
	refused, partial, err := o.repair.Check(ctx, o.source)
	if err != nil {
		return err
	}
	o.r.metrics.refused.Set(float64(refused))
	o.r.metrics.partial.Set(float64(partial))
	o.stamp = stamp
	return nil
}

// noteGone finds the tables that are remembered and not there any more.
func (o *tableObserver) noteGone(end schemas.LSN, list []*catalog.TableDescription) {
	there := map[uint32]bool{}
	for _, d := range list {
		there[d.OID] = true
		delete(o.gone, d.OID)
	}
	for _, oid := range o.history.oids() {
		if _, noted := o.gone[oid]; !there[oid] && !noted {
			o.gone[oid] = end
		}
	}
	for oid := range o.gone {
		if !o.history.known(oid) {
			delete(o.gone, oid)
		}
	}
}
