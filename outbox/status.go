package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// Status is how the outbox stands, for people: small however large the log is.
// Ages are by the outbox's clock.
type Status struct {
	At        time.Time // the outbox's clock
	Publisher PublisherStatus
	Gaps      []GapInfo // not accepted yet, the oldest first

	// Backlog is how many events wait for active endpoints, an estimate that is
	// exact when zero, and Oldest is how long ago the oldest of them was
	// appended (see [Store.Measure]).
	Backlog float64
	Oldest  time.Duration
	// Appended, Delivered and Failed are per second, over the last
	// [ThroughputWindow].
	Appended, Delivered, Failed float64

	Endpoints map[EndpointState]int
	Lanes     map[string]int // by state, in the words of walhook_lanes
	Worst     []WorstEndpoint
	Disabled  []EndpointInfo // the latest, at most worstLimit
	// Held are endpoints to which nothing can be sent until somebody acts: their
	// URL or secret is of no use, or there is a fault of walhook's own side. Those
	// that have waited longest come first, at most worstLimit.
	Held []HeldEndpoint
	// DeadLetters counts those that are kept, by reason, until CountLimit in all.
	DeadLetters map[string]int

	Senders []SenderStatus
	Unowned []int // shards that no living sender holds
}

// PublisherStatus is who publishes, and how far.
type PublisherStatus struct {
	Name    string // host and process; "" for nobody yet
	Epoch   int64
	TakenAt time.Time

	Position schemas.Position // zero before the first snapshot
	Flush    schemas.LSN      // what the source was told
	StoredAt time.Time        // when the position was stored
}

// GapInfo is a stretch of the source's log whose changes may never be seen.
type GapInfo struct {
	FoundAt  time.Time
	From, To schemas.LSN // To is 0 where it is not known
	Reason   string
}

// SenderStatus is a sending process.
type SenderStatus struct {
	ID        int64
	Name      string // host and process
	StartedAt time.Time
	Lease     time.Duration // what is left of it; not positive for one that is over
	Shards    []int
}

const (
	publisherSQL = `SELECT clock_timestamp(), publisher, epoch, taken_at FROM walhook.epoch`

	storedSQL = `
		SELECT commit_lsn::text, ordinal, flush_lsn::text, stored_at FROM walhook.position ORDER BY id DESC LIMIT 1`

	gapsSQL = `
		SELECT found_at, from_lsn::text, coalesce(to_lsn, '0/0')::text, reason
		FROM walhook.gap WHERE accepted_at IS NULL ORDER BY id LIMIT $1`

	sendersSQL = `
		SELECT s.id, s.name, s.started_at, walhook.until(s.lease_until),
			(SELECT coalesce(array_agg(h.id ORDER BY h.id), '{}') FROM walhook.shard h WHERE h.sender = s.id)
		FROM walhook.sender s ORDER BY s.id`

	unownedSQL = `
		SELECT h.id FROM walhook.shard h LEFT JOIN walhook.sender s ON s.id = h.sender AND s.lease_until > clock_timestamp()
		WHERE s.id IS NULL ORDER BY h.id`

	// Whatever there is of them, no more are looked at.
	countDeadSQL = `
		SELECT reason, count(*) FROM (SELECT coalesce(reason, '') AS reason FROM walhook.dead_letter LIMIT $1) AS counted GROUP BY reason`
)

// Status reads all of it, in as many statements as it has parts: not a moment,
// but close to one.
func (s *Store) Status(ctx context.Context) (Status, error) {
	st := Status{Endpoints: map[EndpointState]int{}, Lanes: map[string]int{}, DeadLetters: map[string]int{}}
	for _, part := range []struct {
		what string
		read func(context.Context, *Status) error
	}{
		{"publisher", s.readPublisher}, {"gaps", s.readGaps}, {"senders", s.readSenders},
		{"backlog", s.readBacklog}, {"throughput", s.readThroughput},
		{"endpoints", s.readStates}, {"lanes", s.readLanes}, {"dead letters", s.readDead},
	} {
		if err := part.read(ctx, &st); err != nil {
			return st, fmt.Errorf("read the status of the %s: %w", part.what, err)
		}
	}
	return st, nil
}

func (s *Store) readPublisher(ctx context.Context, st *Status) error {
	p := &st.Publisher
	if err := s.pool.QueryRow(ctx, publisherSQL).Scan(&st.At, &p.Name, &p.Epoch, &p.TakenAt); err != nil {
		return err
	}
	var commit, flush string
	err := s.pool.QueryRow(ctx, storedSQL).Scan(&commit, &p.Position.Ordinal, &flush, &p.StoredAt)
	if isNoRows(err) {
		return nil
	}
	if err == nil {
		p.Position.Commit, err = schemas.ParseLSN(commit)
	}
	if err == nil {
		p.Flush, err = schemas.ParseLSN(flush)
	}
	return err
}

// statusLimit bounds lists that are short unless something is very wrong.
const statusLimit = 100

func (s *Store) readGaps(ctx context.Context, st *Status) error {
	rows, err := s.pool.Query(ctx, gapsSQL, statusLimit)
	if err != nil {
		return err
	}
	st.Gaps, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (g GapInfo, err error) {
		var from, to string
		if err = row.Scan(&g.FoundAt, &from, &to, &g.Reason); err == nil {
			g.From, err = schemas.ParseLSN(from)
		}
		if err == nil {
			g.To, err = schemas.ParseLSN(to)
		}
		return g, err
	})
	return err
}

func (s *Store) readSenders(ctx context.Context, st *Status) error {
	rows, err := s.pool.Query(ctx, sendersSQL)
	if err == nil {
		st.Senders, err = collectEach(rows, func(row pgx.CollectableRow) (one SenderStatus, err error) {
			return one, row.Scan(&one.ID, &one.Name, &one.StartedAt, &one.Lease, &one.Shards)
		}, func(*SenderStatus, error) {})
	}
	if err == nil {
		st.Unowned, err = collect[int](s.pool.Query(ctx, unownedSQL))
	}
	return err
}

func (s *Store) readBacklog(ctx context.Context, st *Status) error {
	b, err := s.measure(ctx)
	st.Backlog, st.Oldest = b.events, time.Duration(b.oldest*float64(time.Second))
	return err
}

func (s *Store) readDead(ctx context.Context, st *Status) error {
	rows, err := s.pool.Query(ctx, countDeadSQL, CountLimit)
	if err != nil {
		return err
	}
	var reason string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&reason, &n}, func() error {
		st.DeadLetters[reason] = n
		return nil
	})
	return err
}
