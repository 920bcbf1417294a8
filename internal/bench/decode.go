package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/cdc"
	"walhook/cdc/source"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// decodeJob is the decode-only ceiling: walhook's own reader reads the backlog into a
// store that only counts.
type decodeJob struct {
	Source     string // database URL
	Slot       string
	Checkpoint schemas.Checkpoint // of an unread slot
	Changes    int
}

type decodeResult struct{ Changes int }

// run reads until all changes have arrived.
func (j decodeJob) run(ctx context.Context) (decodeResult, error) {
	store := &countingStore{checkpoint: j.Checkpoint, want: j.Changes, all: make(chan struct{})}
	cfg := source.Config{URL: j.Source, Slot: j.Slot, Catalog: catalog.Carrier()}
	reader, err := cdc.New(cfg, store, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return decodeResult{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- reader.Run(ctx) }()
	select {
	case <-store.all:
		stop()
		err = <-ended
	case err = <-ended:
		if err == nil {
			err = fmt.Errorf("decode: stopped after %d of %d changes", store.count(), j.Changes)
		}
	}
	return decodeResult{Changes: store.count()}, err
}

// countingStore stores only the position.
type countingStore struct {
	want int
	all  chan struct{} // closed when want changes have arrived

	mu         sync.Mutex
	checkpoint schemas.Checkpoint // guarded by mu
	changes    int                // guarded by mu
}

// Catalog and what follows implement [cdc.Catalogs]: the catalog does not change.
func (s *countingStore) Catalog() *catalog.Catalog { return nil }

func (s *countingStore) PendingCatalog(context.Context) (*catalog.Catalog, error) { return nil, nil }

func (s *countingStore) NotePending(context.Context, *catalog.Catalog, string) error { return nil }

func (s *countingStore) Adopt(context.Context, *catalog.Catalog, schemas.LSN, func(catalog.SnapshotSink) error) error {
	return errors.New("the benchmark's store adopts no catalog")
}

func (s *countingStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

// Ping implements [cdc.Store]: memory always answers.
func (s *countingStore) Ping(context.Context) error { return nil }

// TakeOver implements [cdc.Store].
func (s *countingStore) TakeOver(context.Context) (schemas.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkpoint, nil
}

// Append implements [cdc.Store].
func (s *countingStore) Append(_ context.Context, batch schemas.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.changes
	s.changes += len(batch.Changes)
	s.checkpoint.Position, s.checkpoint.Xid, s.checkpoint.Flush = batch.Position, batch.Xid, batch.Flush
	if before < s.want && s.changes >= s.want {
		close(s.all)
	}
	return nil
}

// ObserveSourceTime implements [cdc.Store]. The benchmark has no daily delivery.
func (s *countingStore) ObserveSourceTime(schemas.LSN, time.Time) {}

// ObserveVisible implements [cdc.Store]. The benchmark has no gap.
func (s *countingStore) ObserveVisible(schemas.Visible) {}

// Advanced implements [cdc.Store]. No earlier process has stored anything.
func (s *countingStore) Advanced(context.Context) (schemas.LSN, time.Time, error) {
	return 0, time.Time{}, nil
}

// Follow implements [cdc.Store]. A throwaway server has one timeline.
func (s *countingStore) Follow(context.Context, int32, string) error {
	return errors.New("the source changed its timeline")
}

// RecordGap implements [cdc.Store]. The reader ends with the gap.
func (s *countingStore) Awaited() schemas.LSN                         { return 0 }
func (s *countingStore) RecordGap(context.Context, schemas.Gap) error { return nil }

// BeginSnapshot implements [source.SnapshotStore].
func (s *countingStore) BeginSnapshot(_ context.Context, source schemas.Source) error {
	s.checkpoint.Source = source
	return nil
}

// StartOver implements [source.SnapshotStore].
func (s *countingStore) StartOver(ctx context.Context, source schemas.Source, _ schemas.StartOver) error {
	return s.BeginSnapshot(ctx, source)
}

// SnapshotBegun implements [source.SnapshotStore].
func (s *countingStore) SnapshotBegun(context.Context, string) (bool, error) { return false, nil }

// Checkpoint implements [source.SnapshotStore].
func (s *countingStore) Checkpoint(ctx context.Context) (schemas.Checkpoint, error) {
	return s.TakeOver(ctx)
}

// LoadSnapshot implements [source.SnapshotStore]. It keeps only the point.
func (s *countingStore) LoadSnapshot(_ context.Context, point schemas.LSN, fill func(catalog.SnapshotSink) error) error {
	s.checkpoint.Position, s.checkpoint.Flush = schemas.Position{Commit: point}, point
	return fill(s)
}

// Compare implements [catalog.SnapshotSink]. There is no gap.
func (s *countingStore) Compare(context.Context, schemas.Visible) (catalog.GapSink, error) {
	return nil, nil
}

// Account implements [catalog.SnapshotSink].
func (s *countingStore) Account(context.Context, schemas.Account) error { return nil }

// Owner implements [catalog.SnapshotSink].
func (s *countingStore) Owner(context.Context, schemas.OwnerEdge) error { return nil }

// Row implements [catalog.SnapshotSink].
func (s *countingStore) Row(context.Context, catalog.RowTable, [16]byte) error { return nil }

// Describe implements [catalog.SnapshotSink] and [cdc.History]: no table changes here.
func (s *countingStore) Describe(context.Context, []*catalog.TableDescription) error { return nil }

// Descriptions implements [cdc.History].
func (s *countingStore) Descriptions(context.Context) ([]*catalog.TableDescription, error) {
	return nil, nil
}

// Undescribe implements [cdc.History].
func (s *countingStore) Undescribe(context.Context, uint32, schemas.LSN) error { return nil }

// KeepSourceChange implements [source.Changes]. The server is temporary.
func (s *countingStore) KeepSourceChange(context.Context, schemas.SourceChange) (int64, error) {
	return 0, nil
}

// SourceChangeUndone implements [source.Changes].
func (s *countingStore) SourceChangeUndone(context.Context, int64) error { return nil }

// decodeSlot creates a slot at the present end of the WAL and returns its position.
func decodeSlot(ctx context.Context, url, slot string) (schemas.Checkpoint, error) {
	store := &countingStore{}
	cfg := source.Config{URL: url, Slot: slot, Catalog: catalog.Carrier()}
	err := source.Snapshot(ctx, cfg, store, source.Refuse, zap.NewNop())
	return store.checkpoint, err
}
