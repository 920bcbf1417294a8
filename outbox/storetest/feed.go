package storetest

import (
	"context"
	"testing"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Publisher is the publisher of an outbox.
type Publisher interface {
	TakeOver(context.Context) (schemas.Checkpoint, error)
	BeginSnapshot(context.Context, schemas.Source) error
	LoadSnapshot(ctx context.Context, point schemas.LSN, fill func(catalog.SnapshotSink) error) error
	Append(context.Context, schemas.Batch) error
}

// FirstLSN is where the source stands when a feed begins.
const FirstLSN = 0x1000

// Source is whence the changes of a feed come.
func Source() schemas.Source {
	return schemas.Source{SystemID: "1", Timeline: 1, Database: "d", Slot: "walhook", Publication: "walhook", Catalog: "c"}
}

// TakeOver makes a publisher the one.
func TakeOver(t *testing.T, p Publisher) schemas.Checkpoint {
	t.Helper()
	checkpoint, err := p.TakeOver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return checkpoint
}

// Snapshot takes over and stores a whole initial snapshot.
func Snapshot(t *testing.T, p Publisher, point schemas.LSN, fill func(catalog.SnapshotSink) error) {
	t.Helper()
	TakeOver(t, p)
	if err := p.BeginSnapshot(t.Context(), Source()); err != nil {
		t.Fatal(err)
	}
	if err := p.LoadSnapshot(t.Context(), point, fill); err != nil {
		t.Fatal(err)
	}
}

// Append stores a batch.
func Append(t *testing.T, p Publisher, b schemas.Batch) {
	t.Helper()
	if err := p.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// Load is a snapshot of accounts, by id, with their URLs, and of owners.
func Load(t *testing.T, accounts map[string]string, owners ...schemas.OwnerEdge) func(catalog.SnapshotSink) error {
	return func(w catalog.SnapshotSink) error {
		gap, err := w.Compare(t.Context(), schemas.Visible{})
		if err != nil {
			return err
		}
		for id, url := range accounts {
			if err := w.Account(t.Context(), schemas.Account{ID: id, URL: url}); err != nil {
				return err
			}
		}
		for _, edge := range owners {
			if gap != nil {
				err = gap.Record(t.Context(), catalog.Record{OwnerEdge: edge})
			} else {
				err = w.Owner(t.Context(), edge)
			}
			if err != nil {
				return err
			}
		}
		if gap != nil {
			return gap.Tell(t.Context(), noRows{})
		}
		return nil
	}
}

// noRows is a source whose tables cannot be read: nothing is compared.
type noRows struct{}

func (noRows) Plan(string) *catalog.Plan { return nil }

func (noRows) Rows(context.Context, string, schemas.Visible, bool, func(string, schemas.Tuple) error) error {
	return nil
}

func (noRows) KeyRows(context.Context, string, [][][]byte) ([]schemas.Tuple, error) { return nil, nil }

func (noRows) TableRows(context.Context, catalog.RowTable, schemas.Visible, func(*catalog.Plan, schemas.Tuple) error) error {
	return nil
}
