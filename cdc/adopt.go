package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/internal/retry"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// A changed catalog takes effect at one position of the WAL. Where rows of the source have
// to be read for it, the reader
//
//  1. waits until a temporary slot can be created: until the transactions that run now
//     are over;
//  2. stops receiving between two transactions, and creates another one: its consistent
//     point is beyond all that was received;
//  3. receives and stores what committed before that point, by the former catalog;
//  4. reads the rows by the slot's snapshot, which is the state at that point, and stores
//     them with the point as the position, and with the new catalog;
//  5. connects again, and so receives what committed at the point or later.
//
// Meanwhile it answers the server, so no other process takes the slot. Whatever ends the
// session before the fourth step is stored leaves the former catalog in force.

// Catalogs stores which catalog changes are routed by.
type Catalogs interface {
	// Catalog returns the catalog in force, as the last TakeOver found it; nil for a store
	// that keeps none.
	Catalog() *catalog.Catalog
	// PendingCatalog returns a catalog that is to be adopted; nil for none.
	PendingCatalog(ctx context.Context) (*catalog.Catalog, error)
	// NotePending stores why a pending catalog is not in force yet.
	NotePending(ctx context.Context, pending *catalog.Catalog, why string) error
	// Adopt puts a pending catalog in force, atomically with what fill writes and with
	// point as the position. Where nothing is read, point is 0 and fill nil. TakeOver
	// comes next.
	Adopt(ctx context.Context, next *catalog.Catalog, point schemas.LSN, fill func(catalog.SnapshotSink) error) error
}

// errAdopted ends a session whose catalog was replaced.
var errAdopted = errors.New("another catalog is in force")

const (
	// pendingEvery is how often the reader asks for a pending catalog.
	pendingEvery = time.Second

	// momentWithin is how long the stream may stand while a temporary slot is created.
	momentWithin = 5 * time.Second

	// firstAdoptWait and lastAdoptWait are the waits between two tries.
	firstAdoptWait = 2 * time.Second
	lastAdoptWait  = 30 * time.Second

	// tellPendingAgain is when the logs repeat an unchanged reason.
	tellPendingAgain = 10 * time.Minute
)

// adopting is the wait between two tries of an adoption, across sessions.
type adopting struct {
	backoff retry.Backoff
	next    time.Time

	logged   string // in the logs, as the reason
	loggedAt time.Time
}

// followCatalog adopts a pending catalog. It returns errAdopted once that is in force.
func (r *Reader) followCatalog(ctx context.Context, s *stream) error {
	if r.adopting.backoff == (retry.Backoff{}) {
		r.adopting.backoff = retry.Backoff{Min: firstAdoptWait, Max: lastAdoptWait}
	}
	for {
		next, err := r.store.PendingCatalog(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.log.Debug("cannot read whether another catalog is asked for", zap.Error(err))
		case next != nil && time.Now().After(r.adopting.next):
			r.adopting.next = time.Now().Add(r.adopting.backoff.Next())
			err := r.adopt(ctx, s, next)
			if err == nil {
				r.adopting = adopting{}
				return errAdopted
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r.notePending(ctx, next, err.Error())
			if s.gate.hasReached() { // the session cannot go on
				return err
			}
		}
		if err := retry.Pause(ctx, pendingEvery); err != nil {
			return err
		}
	}
}

// notePending tells everybody why a pending catalog is not in force yet.
func (r *Reader) notePending(ctx context.Context, next *catalog.Catalog, why string) {
	if why != r.adopting.logged || time.Since(r.adopting.loggedAt) > tellPendingAgain {
		r.adopting.logged, r.adopting.loggedAt = why, time.Now()
		r.log.Warn("the changed catalog is not in force yet, retrying", zap.String("reason", why))
	}
	if err := r.store.NotePending(ctx, next, why); err != nil {
		r.log.Debug("cannot store why the catalog is not in force yet", zap.Error(err))
	}
}

// adopt puts a pending catalog in force.
func (r *Reader) adopt(ctx context.Context, s *stream, next *catalog.Catalog) error {
	defer s.gate.open()
	cfg := r.cfg
	cfg.Catalog = next
	if err := r.checkPublished(ctx, cfg); err != nil {
		return err
	}
	difference := r.cfg.Catalog.DifferenceTo(next)
	began := time.Now()
	var stands time.Time // since when the stream stands
	var point schemas.LSN
	var fill func(catalog.SnapshotSink) error
	if difference.Reads() {
		moment, since, err := r.stopAtMoment(ctx, s, next)
		if err != nil {
			return err
		}
		defer moment.Close(ctx)
		stands, point = since, moment.Point
		fill = func(sink catalog.SnapshotSink) error { return moment.Read(ctx, cfg, difference, sink, r.log) }
	} else {
		if err := s.gate.stop(ctx); err != nil {
			return err
		}
		stands = time.Now()
	}
	if err := s.stored(ctx); err != nil {
		return err
	}
	if err := r.store.Adopt(ctx, next, point, fill); err != nil {
		return err
	}
	r.log.Info("the changed catalog is in force", zap.Stringer("from_lsn", max(point, schemas.LSN(s.flushed.Load()))),
		zap.Strings("read_schemas", difference.Owners), zap.Bool("read_accounts", difference.Accounts),
		zap.Duration("duration", time.Since(began)), zap.Duration("stood", time.Since(stands)))
	return nil
}

// checkPublished returns an error if the publication lacks a table of a catalog: its
// changes would be missing.
func (r *Reader) checkPublished(ctx context.Context, cfg source.Config) error {
	introspector, err := source.NewIntrospector(ctx, cfg)
	if err != nil {
		return err
	}
	defer introspector.Close(ctx)
	unpublished, err := introspector.Unpublished(ctx, cfg)
	if err == nil && len(unpublished) > 0 {
		err = fmt.Errorf("publication %s does not hold %s of the new catalog: 'walhook setup --dry-run' prints the statement", cfg.Publication, unpublished)
	}
	return err
}

// stopAtMoment lets the stream store what committed before a moment of the source, and
// stop there. It returns since when the stream stands.
func (r *Reader) stopAtMoment(ctx context.Context, s *stream, next *catalog.Catalog) (moment *source.Moment, stands time.Time, err error) {
	// The stream goes on while transactions that run already end.
	early, err := source.NewMomentTelling(ctx, r.cfg, func(blockers string) {
		r.notePending(ctx, next, "it waits for transactions that run on the source: "+blockers)
	})
	if err != nil {
		return nil, stands, err
	}
	early.Close(ctx)
	if err := s.gate.stop(ctx); err != nil {
		return nil, stands, err
	}
	stands = time.Now()
	quick, cancel := context.WithTimeoutCause(ctx, momentWithin, fmt.Errorf("the transactions that run on the source did not end within %s", momentWithin))
	defer cancel()
	moment, err = source.NewMoment(quick, r.cfg, r.log)
	if err != nil {
		if quick.Err() != nil {
			err = context.Cause(quick)
		}
		return nil, stands, err
	}
	if err := s.gate.stopAt(ctx, moment.Point); err != nil {
		moment.Close(ctx)
		return nil, stands, err
	}
	return moment, stands, nil
}

// gate lets another goroutine stop the receiver between two transactions.
type gate struct {
	mu      sync.Mutex
	closed  bool          // the receiver stops as soon as it may
	until   schemas.LSN   // it stops where a transaction committed at this position or later; 0 for nowhere
	reached bool          // it did: what came there is dropped, and the session must end
	stands  chan struct{} // closed while the receiver stands
	opened  chan struct{} // closed when it may go on
}

// stop waits until the receiver stands between two transactions.
func (g *gate) stop(ctx context.Context) error {
	return g.wait(ctx, func() { g.closed = true })
}

// stopAt lets a receiver that stands go on, and waits until it has received all that
// committed before a position.
func (g *gate) stopAt(ctx context.Context, until schemas.LSN) error {
	return g.wait(ctx, func() {
		g.closed, g.until = false, until
		g.goOn()
	})
}

func (g *gate) wait(ctx context.Context, change func()) error {
	g.mu.Lock()
	change()
	stands := make(chan struct{})
	g.stands = stands
	g.mu.Unlock()
	select {
	case <-stands:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open lets the receiver go on. One that has reached its position stands until its session
// ends.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
	if !g.reached {
		g.until = 0
		g.goOn()
	}
}

// goOn wakes a receiver that stands. The caller holds mu.
func (g *gate) goOn() {
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// reaches reports whether a position is at or beyond the one where the receiver stops.
func (g *gate) reaches(at schemas.LSN) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reached = g.reached || g.until != 0 && at >= g.until
	return g.reached
}

func (g *gate) hasReached() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reached
}

// asksAnswer reports whether the receiver waits for a position: an idle server says how
// far it is only when it is asked.
func (g *gate) asksAnswer() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until != 0 && !g.reached
}

// mayStop reports whether the receiver is to stop, and is between two transactions.
func (s *stream) mayStop() bool {
	if s.inTx || s.held != nil || s.expect {
		return false
	}
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.closed || s.gate.reached
}

// stand answers the server until the receiver may go on.
func (s *stream) stand(ctx context.Context) error {
	s.gate.mu.Lock()
	if !s.gate.closed && !s.gate.reached {
		s.gate.mu.Unlock()
		return nil
	}
	opened := make(chan struct{})
	s.gate.opened = opened
	if s.gate.stands != nil {
		close(s.gate.stands)
		s.gate.stands = nil
	}
	s.gate.mu.Unlock()
	for {
		select {
		case <-opened:
			s.nextStatus = time.Time{} // at once, for an answer
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(statusEvery):
			if err := s.sendStatus(context.WithoutCancel(ctx), time.Now(), false); err != nil {
				return err
			}
		}
	}
}

// storedPoll is how often a stream that stands looks whether all is stored.
const storedPoll = 2 * time.Millisecond

// stored waits until all that was received is stored.
func (s *stream) stored(ctx context.Context) error {
	for !s.pending.allStored() {
		if err := retry.Pause(ctx, storedPoll); err != nil {
			return err
		}
	}
	return nil
}
