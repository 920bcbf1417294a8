package cdc

import (
	"context"
	"time"

	"walhook/schemas"
)

// Store keeps what is read. Only what it has committed is acknowledged.
type Store interface {
	History
	SourceChanges

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
	// Seen tells that the source's log ended at end at an instant of its
	// clock: all that was committed before is stored once that place is. It is
	// called beside the other methods, and does not wait.
	Seen(end schemas.LSN, at time.Time)
	// Advanced says when the position was last stored, by this process's
	// clock: zero where none is. It is called beside the other methods, and
	// waits as long as Ping.
	Advanced(ctx context.Context) (time.Time, error)
	// RecordGap keeps a durable note of a gap, for people.
	RecordGap(ctx context.Context, gap schemas.Gap) error
}
