package catalog

import (
	"context"

	"walhook/schemas"
)

// SnapshotSink takes the rows of a snapshot of the source.
type SnapshotSink interface {
	// Account takes a row of the account table.
	Account(ctx context.Context, account schemas.Account) error
	// Owner takes whose one record is.
	Owner(ctx context.Context, edge schemas.OwnerEdge) error
	// Describe takes the shapes of tables.
	Describe(ctx context.Context, list []*TableDescription) error
}
