package sender

import (
	"context"
	"time"

	"walhook/outbox"
)

// Log is an event log as a sender uses it: [Outbox] is the one that walhook keeps in
// PostgreSQL. Another implementation must pass the cases of package outboxtest, which
// say what each method promises.
type Log interface {
	// Join registers a sender whose lease lasts for lease unless renewed. name is
	// for display. The log holds an endpoint whose URL checkHost rejects; the error's
	// text is shown to the account.
	Join(ctx context.Context, name string, lease time.Duration, checkHost func(url string) error) (Session, error)
	// Appended gets a signal after an append by this process, and until the instant
	// of NotifiedUntil after one by any process. It may be nil: the sender polls as
	// well.
	Appended() <-chan struct{}
	NotifiedUntil() time.Time
	// Changed gets a signal after some changes of endpoints. It may be nil: the sender
	// polls as well.
	Changed() <-chan struct{}
}

// Session is one sender's lease on shards of a log. The log refuses every write
// whole, with [outbox.ErrLeaseLost], once the lease has expired or another sender has
// taken over. Where the log is on another timeline than the session joined on, methods
// return [outbox.ErrMoved]; Settle stores what was delivered and nothing else, and reads
// find nothing. After any other error the caller does not know whether the write was
// made, and may repeat it.
type Session interface {
	EventLog
	Settlements
	Endpoints
	Leases
}

// EventLog reads the events in order of id.
type EventLog interface {
	// Tail reads a stretch: of shards, or of one endpoint.
	Tail(ctx context.Context, q outbox.TailQuery) (outbox.Stretch, error)
	// Expire dead-letters the events that an endpoint may not get any more, so that
	// the log can be trimmed. The caller has none of them in flight.
	Expire(ctx context.Context, e outbox.Endpoint, cursor int64) error
}

// Settlements record what became of events, and read what is left to retry.
type Settlements interface {
	// Settle commits a batch, and returns the states of the records that have, or
	// had, rows in retry.
	Settle(ctx context.Context, batch []outbox.Settlement) ([]outbox.RecordState, error)
	// DueRetries reads an endpoint's rows of retry that are due.
	DueRetries(ctx context.Context, q outbox.RetryQuery) (outbox.Retries, error)
	// Save stores lanes and shard tails for their next owner.
	Save(ctx context.Context, lanes []outbox.LaneState, shards []outbox.Shard) error
}

// Endpoints are where events go.
type Endpoints interface {
	// Endpoints reads the current state of endpoints.
	Endpoints(ctx context.Context, ids []int64) ([]outbox.Endpoint, error)
	// EndpointsChanged returns the endpoints of the held shards that changed after
	// since, and the since of the next call. It may return one again.
	EndpointsChanged(ctx context.Context, since time.Time) ([]outbox.EndpointRevision, time.Time, error)
	// Confirm says that this sender starts no attempt by a revision older than
	// these.
	Confirm(ctx context.Context, known []outbox.EndpointRevision) error
}

// Leases assign shards to senders. Each shard has one owner at a time.
type Leases interface {
	// Renew extends the lease, and returns its end by this process's clock.
	Renew(ctx context.Context) (time.Time, error)
	// Rebalance takes free shards up to a fair share, and returns those that this
	// sender holds beyond it.
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
