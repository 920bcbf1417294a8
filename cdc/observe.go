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

// observe updates the metrics of slot and source while the reader does not read: as a
// standby, and while the outbox is away, when the slot fills the source's disk. While
// the reader reads, watch does so.
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

// askStored asks the store for its position while another process may write to it. The
// slot's position is not enough: its reader may confirm what walhook never stored. The
// lag of an older backlog counts from when the store last advanced.
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
	if r.State() != Reading { // a session that began meanwhile has a newer position
		r.metrics.flushed.CompareAndSwap(before, uint64(flush))
	}
}

// Pause waits between two runs, and updates the metrics of slot and source meanwhile. It
// is false when ctx ends first.
func (r *Reader) Pause(ctx context.Context, d time.Duration) bool {
	observing, stop := context.WithCancel(ctx)
	var observer sync.WaitGroup
	observer.Go(func() { r.observe(observing) })
	defer observer.Wait()
	defer stop()
	return retry.Pause(ctx, d) == nil
}

// look queries the source once, over a session that it takes and returns; nil for none.
// It logs an error at debug level only: reading the WAL reports it too.
func (r *Reader) look(ctx context.Context, introspector *source.Introspector) *source.Introspector {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("read the slot: timed out"))
	defer cancel()
	var err error
	if introspector == nil {
		introspector, err = source.NewIntrospector(ctx, r.cfg)
	}
	if err == nil && r.State() == Standby {
		err = introspector.Wait(ctx, r.cfg.Slot)
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

// lookTimeout bounds connecting and querying.
const lookTimeout = 15 * time.Second

// watch updates the metrics of the slot while the reader reads. It returns an error when
// the publication no longer holds what was published, which the stream does not show.
// It has a session of its own. remembered is what the store remembers of the publication.
func (r *Reader) watch(ctx context.Context, before source.SlotState, remembered string) error {
	introspector, err := source.NewIntrospector(ctx, r.cfg)
	if err != nil {
		return err
	}
	defer introspector.Close(ctx)
	for {
		// A source that does not answer is not up, even if its connections are open.
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
		// After the snapshot of report: what was altered before, and altered back since, is
		// found before that is remembered.
		holds, err := introspector.StillPublished(ctx, r.cfg, before, remembered, schemas.LSN(r.metrics.flushed.Load()))
		if err != nil {
			return err
		}
		if holds != "" {
			remembered, report.Visible.Published = holds, holds
			r.store.ObserveVisible(report.Visible) // nothing that it saw was unpublished
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

// held notes that the source sends nothing until its standbys have received it.
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

// HeldBack is the reason why the source sends nothing; "" if it sends.
func (r *Reader) HeldBack() string {
	if why := r.heldBack.Load(); why != nil && r.State() == Reading {
		return *why
	}
	return ""
}

// defaultTablesEvery is how often the catalog's tables are checked. A partition that
// exists for a shorter time is read by its description in today's catalog, if it is
// still there.
const (
	defaultTablesEvery = 2 * time.Second
	lastTablesEvery    = 10 * time.Second
)

// tableObserver reads the descriptions of the catalog's tables while the reader reads,
// so that they are kept before a table vanishes. It repairs what a change of a table
// does to the carrier's writes and to old rows.
type tableObserver struct {
	r       *Reader
	history *history
	source  *source.Introspector // nil until it is connected
	stamp   string
	took    time.Duration          // how long reading the stamp took
	gone    map[uint32]schemas.LSN // the end of the WAL when a table was found missing
	repair  *source.TableRepair
}

// observeTables looks until ctx ends. It retries a look that fails, and logs its error
// at debug level only: reading the WAL reports it too.
func (r *Reader) observeTables(ctx context.Context, h *history) {
	o := &tableObserver{r: r, history: h, gone: map[uint32]schemas.LSN{}, repair: source.NewTableRepair(r.cfg, r.store, h.isAdded, r.log)}
	defer func() { o.disconnect(ctx) }()
	for {
		if err := o.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Debug("cannot read the source's tables", zap.Error(err))
			o.disconnect(ctx)
		}
		// With very many partitions a look takes long, and is made less often.
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
	// Transactions that commit from here on have these tables, until they change.
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

// noteGone finds the tables that the history has and the source has not.
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
