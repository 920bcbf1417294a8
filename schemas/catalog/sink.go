package catalog

import (
	"context"

	"walhook/schemas"
)

// SnapshotSink takes the rows of a snapshot of the source.
type SnapshotSink interface {
	// Compare takes, first of all, what the snapshot sees. It returns nil, or the sink that
	// takes the records in place of Owner: what was missed in a gap is to be told.
	Compare(ctx context.Context, visible schemas.Visible) (GapSink, error)
	// Account takes a row of the account table.
	Account(ctx context.Context, account schemas.Account) error
	// Owner takes whose one record is.
	Owner(ctx context.Context, edge schemas.OwnerEdge) error
	// Row takes a row that is in a table of rows, by its digest. All come before what is told.
	Row(ctx context.Context, of RowTable, digest [16]byte) error
	// Describe takes the shapes of tables.
	Describe(ctx context.Context, list []*TableDescription) error
}

// GapSink compares a snapshot with what was known before a gap.
type GapSink interface {
	// Since is between which transactions a row was written that may have changed in the
	// gap. Its Xmin is 0 where every row may have.
	Since() schemas.Visible
	// Former is the table that a schema had before the gap, by its OID.
	Former(schema *Schema) (relation uint32, known bool)
	// Record takes a record of the snapshot.
	Record(ctx context.Context, record Record) error
	// Tell comes last. It asks for the rows of what was missed.
	Tell(ctx context.Context, source GapSource) error
}

// Record is a record of a snapshot, and whose it is.
type Record struct {
	schemas.OwnerEdge
	// Xmin is the transaction that wrote the row.
	Xmin uint32
	// Orphan says that the snapshot lacks the parent record, of the key Parent, so that
	// Account is "".
	Orphan bool
	Parent string
	// Hidden says that the publication's row filter keeps it from the stream.
	Hidden bool
}

// GapSource reads rows of the same snapshot.
type GapSource interface {
	// Plan is the catalog bound to the table of a schema; nil if there is no such table, or
	// its records cannot be told apart.
	Plan(schema string) *Plan
	// Rows reads a schema's whole rows with their keys: all of them, or with changed those
	// that may have been written since. row is valid during the call only.
	Rows(ctx context.Context, schema string, since schemas.Visible, changed bool, f func(key string, row schemas.Tuple) error) error
	// KeyRows makes rows of a schema from the normal forms of their keys' columns: with
	// these columns alone, as the table shows them.
	KeyRows(ctx context.Context, schema string, keys [][][]byte) ([]schemas.Tuple, error)
	// TableRows reads those of a table of rows that may have been written since, in the
	// order of their commits as far as the server knows it, then of a whole number that is
	// their key, then of their transactions. row is valid during the call only.
	TableRows(ctx context.Context, of RowTable, since schemas.Visible, f func(plan *Plan, row schemas.Tuple) error) error
}
