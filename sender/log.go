package sender

import (
	"context"
	"time"

	"walhook/outbox"
)

// Log is an event log as a sender asks it: [Outbox] is the one that walhook keeps
// in PostgreSQL. Whoever writes another has it pass package outboxtest, whose cases
// say what each method promises.
type Log interface {
	// Join registers a sender whose lease lasts for lease unless renewed. name is
	// for people. An endpoint to whose host checkHost says that nothing may be
	// sent is held: its text is for the account's people.
	Join(ctx context.Context, name string, lease time.Duration, checkHost func(url string) error) (Session, error)
	// Appended is signalled after an append by this process. It may be nil: the
	// sender polls as well.
	Appended() <-chan struct{}
}

// Session is one sender's hold on shards of a log. Every write is refused whole,
// with [outbox.ErrLeaseLost], once the lease is over or another took over; after
// another error it is not known whether it was made, and it may be made again.
type Session interface {
	EventLog
	Settlements
	Endpoints
	Leases
}

// EventLog is what was appended, in order of id.
type EventLog interface {
	// Tail reads a stretch: of shards, or of one endpoint.
	Tail(ctx context.Context, q outbox.TailQuery) (outbox.Stretch, error)
	// Expire makes dead letters of what an endpoint may not be sent any more, so
	// that the log can be trimmed. Whoever calls it has nothing of it in flight.
	Expire(ctx context.Context, e outbox.Endpoint, cursor int64) error
}

// Settlements are what became of events, and what is left to do.
type Settlements interface {
	// Settle makes a batch durable, and answers how the records stand
	// that have, or had, rows in retry.
	Settle(ctx context.Context, batch []outbox.Settlement) ([]outbox.RecordState, error)
	// DueRetries reads an endpoint's rows of retry that are due.
	DueRetries(ctx context.Context, q outbox.RetryQuery) (outbox.Retries, error)
	// Save stores lanes and shard tails, for whoever owns them next.
	Save(ctx context.Context, lanes []outbox.LaneState, shards []outbox.Shard) error
}

// Endpoints are where events go.
type Endpoints interface {
	// Endpoints reads the named ones as they stand now.
	Endpoints(ctx context.Context, ids []int64) ([]outbox.Endpoint, error)
	// EndpointsChanged says which of the held shards changed after since, and what
	// to ask with next. It may name one again.
	EndpointsChanged(ctx context.Context, since time.Time) ([]outbox.EndpointRevision, time.Time, error)
	// Confirm says that this sender starts nothing any more by what endpoints were
	// before these revisions.
	Confirm(ctx context.Context, known []outbox.EndpointRevision) error
}

// Leases assignment out shards. Each has one owner at a time.
type Leases interface {
	// Renew extends the lease, and says until when it holds by this process's clock.
	Renew(ctx context.Context) (time.Time, error)
	// Rebalance takes free shards up to a fair share, and names those that this
	// sender holds too many of.
	Rebalance(ctx context.Context) (gained outbox.Handover, surplus []int, err error)
	// Release stores the tails of drained shards and releases them.
	Release(ctx context.Context, shards []outbox.Shard) error
	// Leave ends the session and frees what it holds.
	Leave(ctx context.Context) error
}

// Outbox is the log that package outbox keeps in PostgreSQL.
func Outbox(store *outbox.Store) Log { return outboxLog{store} }

type outboxLog struct{ *outbox.Store }

func (l outboxLog) Join(ctx context.Context, name string, lease time.Duration, checkHost func(url string) error) (Session, error) {
	joined, err := l.Store.Join(ctx, name, lease)
	if err != nil {
		return nil, err
	}
	joined.CheckHosts(checkHost)
	return joined, nil
}
