package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// recorder is a store in memory, as strict as a database: it keeps only what is
// committed, and refuses what is stored twice or out of order.
type recorder struct {
	noChanges

	mu         sync.Mutex
	checkpoint schemas.Checkpoint
	changes    []schemas.Change
	batches    []schemas.Batch // without their changes
	gaps       []schemas.Gap
	taken      int             // how often it was taken over
	begun      *schemas.Source // of an initial snapshot that is not finished
	accounts   map[string]schemas.Account
	owners     map[schemas.OwnerEdge]bool
	described  map[uint32][]*catalog.TableDescription // by place
	seenEnd    schemas.LSN
	seenAt     time.Time
	visible    schemas.Visible
	over       []schemas.StartOver
	advanced   time.Time // when, before this process
	faults     []string  // promises that a caller broke
	inForce    *catalog.Catalog
	pending    *catalog.Catalog
	notes      []string      // why it is not in force yet
	adopted    []adoption    // in their order
	changed    chan struct{} // closed at every change of the above

	// before runs before an append, after once it is stored. An error of either is the
	// append's. They may block.
	before, after func(context.Context, schemas.Batch) error
	// taking runs in a take-over. It may block.
	taking func(context.Context) error
	// awaited is a position that the test waits for.
	awaited atomic.Uint64
	// filling runs while a snapshot is loaded.
	filling func() error
}

func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}), described: map[uint32][]*catalog.TableDescription{}}
}

func (r *recorder) Awaited() schemas.LSN { return schemas.LSN(r.awaited.Load()) }

func (r *recorder) Ping(context.Context) error { return nil }

func (r *recorder) TakeOver(ctx context.Context) (schemas.Checkpoint, error) {
	r.mu.Lock()
	r.taken++
	taking := r.taking
	r.tell()
	r.mu.Unlock()
	if taking != nil {
		if err := taking(ctx); err != nil {
			return schemas.Checkpoint{}, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell()
	return r.checkpoint, nil
}

func (r *recorder) Append(ctx context.Context, batch schemas.Batch) error {
	r.mu.Lock()
	before, after := r.before, r.after
	r.mu.Unlock()
	if before != nil {
		if err := before(ctx, batch); err != nil {
			return err
		}
	}
	r.store(batch)
	if after != nil {
		return after(ctx, batch)
	}
	return nil
}

func (r *recorder) store(batch schemas.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.checkpoint.Position
	for _, change := range batch.Changes {
		repeated := change.Position.Compare(last) <= 0 && change.Kind != schemas.Truncate && (change.Kind != schemas.Message || change.Transactional)
		if repeated {
			r.faults = append(r.faults, fmt.Sprintf("%s at %s after %s", change.Kind, change.Position, last))
		}
		last = change.Position
	}
	if batch.Position.Compare(last) < 0 || batch.Flush < r.checkpoint.Flush {
		r.faults = append(r.faults, fmt.Sprintf("batch at %s, flush %s, after %s, flush %s", batch.Position, batch.Flush, last, r.checkpoint.Flush))
	}
	r.changes = append(r.changes, batch.Changes...)
	r.checkpoint.Position, r.checkpoint.Xid, r.checkpoint.Flush = batch.Position, batch.Xid, batch.Flush
	r.checkpoint.NoMessages = batch.NoMessages
	batch.Changes = nil
	r.batches = append(r.batches, batch)
	r.tell()
}

func (r *recorder) RecordGap(_ context.Context, gap schemas.Gap) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gaps = append(r.gaps, gap)
	r.tell()
	return nil
}

func (r *recorder) Advanced(context.Context) (schemas.LSN, time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checkpoint.Flush, r.advanced, nil
}

func (r *recorder) ObserveSourceTime(end schemas.LSN, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seenEnd, r.seenAt = end, at
	r.tell()
}

func (r *recorder) ObserveVisible(v schemas.Visible) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.visible, r.checkpoint.Published = v, v.Published
	r.tell()
}

func (r *recorder) Follow(_ context.Context, timeline int32, database string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checkpoint.Source.Timeline, r.checkpoint.Source.Database = timeline, database
	r.tell()
	return nil
}

func (r *recorder) BeginSnapshot(_ context.Context, source schemas.Source) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun, r.checkpoint = &source, schemas.Checkpoint{}
	r.tell()
	return nil
}

func (r *recorder) StartOver(ctx context.Context, source schemas.Source, over schemas.StartOver) error {
	r.mu.Lock()
	r.over = append(r.over, over)
	r.mu.Unlock()
	return r.BeginSnapshot(ctx, source)
}

func (r *recorder) SnapshotBegun(_ context.Context, slot string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun != nil && r.begun.Slot == slot, nil
}

func (r *recorder) Descriptions(context.Context) (list []*catalog.TableDescription, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, versions := range r.described {
		list = append(list, versions...)
	}
	return list, nil
}

func (r *recorder) Describe(_ context.Context, list []*catalog.TableDescription) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range list {
		r.described[d.OID] = append(slices.DeleteFunc(r.described[d.OID], func(old *catalog.TableDescription) bool { return old.From == d.From }), d)
	}
	r.tell()
	return nil
}

func (r *recorder) Undescribe(_ context.Context, oid uint32, before schemas.LSN) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.described[oid] = slices.DeleteFunc(r.described[oid], func(d *catalog.TableDescription) bool { return d.From < before })
	r.tell()
	return nil
}

func (r *recorder) Checkpoint(context.Context) (schemas.Checkpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checkpoint, nil
}

// recorderSink is what a snapshot's transaction has written so far.
type recorderSink struct {
	accounts map[string]schemas.Account
	owners   map[schemas.OwnerEdge]bool
	tables   map[uint32][]*catalog.TableDescription

	published string
}

func (s *recorderSink) Describe(_ context.Context, list []*catalog.TableDescription) error {
	for _, d := range list {
		s.tables[d.OID] = append(s.tables[d.OID], d)
	}
	return nil
}

func (s *recorderSink) Compare(_ context.Context, v schemas.Visible) (catalog.GapSink, error) {
	s.published = v.Published
	return nil, nil
}

func (s *recorderSink) Account(_ context.Context, a schemas.Account) error {
	s.accounts[a.ID] = a
	return nil
}

func (s *recorderSink) Row(context.Context, catalog.RowTable, [16]byte) error { return nil }

func (s *recorderSink) Owner(_ context.Context, e schemas.OwnerEdge) error {
	s.owners[e] = true
	return nil
}

func (r *recorder) LoadSnapshot(_ context.Context, point schemas.LSN, fill func(catalog.SnapshotSink) error) error {
	sink := &recorderSink{accounts: map[string]schemas.Account{}, owners: map[schemas.OwnerEdge]bool{}, tables: map[uint32][]*catalog.TableDescription{}}
	if r.filling != nil {
		if err := r.filling(); err != nil {
			return err
		}
	}
	if err := fill(sink); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun == nil {
		return errors.New("a snapshot that was not begun")
	}
	r.checkpoint = schemas.Checkpoint{Source: *r.begun, Position: schemas.Position{Commit: point}, Flush: point, Published: sink.published}
	r.begun, r.accounts, r.owners, r.described = nil, sink.accounts, sink.owners, sink.tables
	r.tell()
	return nil
}

// adoption is what the recorder knows of one.
type adoption struct {
	catalog  *catalog.Catalog
	point    schemas.LSN
	before   int // changes that were stored before it
	accounts map[string]schemas.Account
	owners   map[schemas.OwnerEdge]bool
}

func (r *recorder) Catalog() *catalog.Catalog {
	return look(r, func() *catalog.Catalog { return r.inForce })
}

func (r *recorder) PendingCatalog(context.Context) (*catalog.Catalog, error) {
	return look(r, func() *catalog.Catalog { return r.pending }), nil
}

func (r *recorder) NotePending(_ context.Context, _ *catalog.Catalog, why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, why)
	r.tell()
	return nil
}

func (r *recorder) Adopt(_ context.Context, next *catalog.Catalog, point schemas.LSN, fill func(catalog.SnapshotSink) error) error {
	sink := &recorderSink{accounts: map[string]schemas.Account{}, owners: map[schemas.OwnerEdge]bool{}, tables: map[uint32][]*catalog.TableDescription{}}
	if r.filling != nil {
		if err := r.filling(); err != nil {
			return err
		}
	}
	if fill != nil {
		if err := fill(sink); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if point != 0 {
		if point < r.checkpoint.Flush || point <= r.checkpoint.Position.Commit {
			r.faults = append(r.faults, fmt.Sprintf("catalog adopted at %s, stored are %s, flush %s", point, r.checkpoint.Position, r.checkpoint.Flush))
		}
		r.checkpoint.Position, r.checkpoint.Xid, r.checkpoint.Flush = schemas.Position{Commit: point}, 0, point
	}
	r.adopted = append(r.adopted, adoption{next, point, len(r.changes), sink.accounts, sink.owners})
	r.inForce, r.pending, r.checkpoint.Source.Catalog = next, nil, next.Fingerprint()
	r.tell()
	return nil
}

// ask is what setup does with a changed catalog.
func (r *recorder) ask(next *catalog.Catalog) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = next
}

// tell wakes the waiters. The caller holds mu.
func (r *recorder) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// hook sets what runs before and after appends from now on.
func (r *recorder) hook(before, after func(context.Context, schemas.Batch) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before, r.after = before, after
}

// block blocks appends until release is called.
func (r *recorder) block() (release func()) {
	open := make(chan struct{})
	r.hook(func(ctx context.Context, _ schemas.Batch) error {
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil)
	return func() {
		r.hook(nil, nil)
		close(open)
	}
}

// look runs f under the lock.
func look[T any](r *recorder, f func() T) T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f()
}

func (r *recorder) flush() schemas.LSN {
	return look(r, func() schemas.LSN { return r.checkpoint.Flush })
}

func (r *recorder) stored() []schemas.Change {
	return look(r, func() []schemas.Change { return slices.Clone(r.changes) })
}

// holds reports whether a message is stored. The caller holds mu.
func (r *recorder) holds(message string) bool {
	return slices.ContainsFunc(r.changes, func(c schemas.Change) bool { return string(c.Content) == message })
}

func (r *recorder) has(message string) bool {
	return look(r, func() bool { return r.holds(message) })
}

// wait waits until done, which is called under the lock, is true.
func (r *recorder) wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		ok, changed := done(), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
