package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/schemas"
)

// Status is how the outbox stands, for people: small however large the event log is.
// Ages are by the outbox's clock.
type Status struct {
	At        time.Time // the outbox's clock
	Publisher PublisherStatus
	Gaps      []GapInfo // not accepted yet, the oldest first
	// Reconciled is the newest gap whose changes were sent, or are being sent, after it was
	// accepted; nil for none.
	Reconciled *ReconciledGap
	Catalog    CatalogStatus
	// Failover is when walhook met the outbox's present timeline, and Timeline is its
	// number; zero where the outbox never failed over.
	Failover time.Time
	Timeline int32

	// Backlog is how many events wait for active endpoints, an estimate that is
	// exact when zero, and Oldest is how long ago the oldest of them was
	// appended (see [Admin.Measure]).
	Backlog int64
	Oldest  time.Duration
	// Appended, Delivered and Failed are per second, over the last
	// [ThroughputWindow].
	Appended, Delivered, Failed float64

	Endpoints map[outbox.EndpointState]int
	Lanes     map[string]int // by state, in the words of walhook_lanes
	Worst     []WorstEndpoint
	Disabled  []EndpointInfo // the latest, at most worstLimit
	// Held are endpoints to which nothing can be sent until somebody acts: their
	// URL or secret is of no use, or there is a fault of walhook's own side. Those
	// that have waited longest come first, at most worstLimit.
	Held []HeldEndpoint
	// DeadLetters counts those that are kept, by reason, until CountLimit in all.
	DeadLetters map[string]int

	// Resyncs are those in progress, the oldest first, at most statusLimit.
	Resyncs []Resync

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

// ReconciledGap says how much of an accepted gap was appended for endpoints.
type ReconciledGap struct {
	ID         int64
	AcceptedAt time.Time
	Missed     int64 // how many changes there were to append
	Left       bool  // some are not appended yet
	// Those that were appended and have a recipient. Results and Events are rows of the
	// tables of results and events.
	Inserts, Updates, Deletes, Results, Events int64
	Note                                       string
}

// CatalogStatus is the catalog in force, and the one that waits to be.
type CatalogStatus struct {
	From    schemas.LSN // what committed there or later is routed by it; 0 where that is not known
	Since   time.Time   // zero where no catalog is stored
	Pending time.Time   // when setup asked for another one; zero for none
	Why     string      // it is not in force yet; "" where nobody has tried
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

	reconciledSQL = `
		SELECT id, accepted_at, missed, reconciled_at IS NULL, inserts, updates, deletes, coalesce(results, 0), coalesce(events, 0), coalesce(note, '')
		FROM walhook.gap WHERE accepted_at IS NOT NULL AND missed IS NOT NULL ORDER BY id DESC LIMIT 1`

	catalogSQL = `
		SELECT state, coalesce(from_lsn, '0/0')::text, coalesce(CASE state WHEN 'pending' THEN asked_at ELSE adopted_at END, asked_at), coalesce(note, '')
		FROM walhook.catalog WHERE state <> 'past'`

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
func (a *Admin) Status(ctx context.Context) (Status, error) {
	st := Status{Endpoints: map[outbox.EndpointState]int{}, Lanes: map[string]int{}, DeadLetters: map[string]int{}}
	for _, part := range []struct {
		what string
		read func(context.Context, *Status) error
	}{
		{"publisher", a.readPublisher}, {"gaps", a.readGaps}, {"catalog", a.readCatalog}, {"failover", a.readFailover}, {"senders", a.readSenders},
		{"backlog", a.readBacklog}, {"throughput", a.readThroughput},
		{"endpoints", a.readStates}, {"lanes", a.readLanes}, {"dead letters", a.readDead}, {"resyncs", a.readResyncs},
	} {
		if err := part.read(ctx, &st); err != nil {
			return st, fmt.Errorf("read the status of the %s: %w", part.what, err)
		}
	}
	return st, nil
}

func (a *Admin) readPublisher(ctx context.Context, st *Status) error {
	p := &st.Publisher
	if err := a.pool.QueryRow(ctx, publisherSQL).Scan(&st.At, &p.Name, &p.Epoch, &p.TakenAt); err != nil {
		return err
	}
	var commit, flush string
	err := a.pool.QueryRow(ctx, storedSQL).Scan(&commit, &p.Position.Ordinal, &flush, &p.StoredAt)
	if errors.Is(err, pgx.ErrNoRows) {
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

func (a *Admin) readGaps(ctx context.Context, st *Status) error {
	rows, err := a.pool.Query(ctx, gapsSQL, statusLimit)
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
	if err != nil {
		return err
	}
	var g ReconciledGap
	err = a.pool.QueryRow(ctx, reconciledSQL).Scan(&g.ID, &g.AcceptedAt, &g.Missed, &g.Left, &g.Inserts, &g.Updates, &g.Deletes, &g.Results, &g.Events, &g.Note)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err == nil:
		st.Reconciled = &g
	}
	return err
}

func (a *Admin) readCatalog(ctx context.Context, st *Status) error {
	rows, err := a.pool.Query(ctx, catalogSQL)
	if err != nil {
		return err
	}
	var state, from, note string
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&state, &from, &at, &note}, func() (err error) {
		if state == "pending" {
			st.Catalog.Pending, st.Catalog.Why = at, note
			return nil
		}
		st.Catalog.Since = at
		st.Catalog.From, err = schemas.ParseLSN(from)
		return err
	})
	return err
}

func (a *Admin) readFailover(ctx context.Context, st *Status) error {
	err := a.pool.QueryRow(ctx, outbox.LastFailoverSQL).Scan(&st.Failover, &st.Timeline)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

func (a *Admin) readSenders(ctx context.Context, st *Status) error {
	rows, err := a.pool.Query(ctx, sendersSQL)
	if err == nil {
		st.Senders, err = collectEach(rows, func(row pgx.CollectableRow) (one SenderStatus, err error) {
			return one, row.Scan(&one.ID, &one.Name, &one.StartedAt, &one.Lease, &one.Shards)
		}, func(*SenderStatus, error) {})
	}
	if err == nil {
		rows, _ := a.pool.Query(ctx, unownedSQL) // rows have its error
		st.Unowned, err = pgx.CollectRows(rows, pgx.RowTo[int])
	}
	return err
}

func (a *Admin) readBacklog(ctx context.Context, st *Status) error {
	events, oldest, err := a.store.Backlog(ctx)
	st.Backlog, st.Oldest = wholeEvents(events), oldest
	return err
}

// wholeEvents rounds an estimate of events; what is more than nothing is at least one.
func wholeEvents(estimate float64) int64 {
	if !(estimate > 0) { // also where it is unknown
		return 0
	}
	return max(1, int64(math.Round(estimate)))
}

func (a *Admin) readDead(ctx context.Context, st *Status) error {
	rows, err := a.pool.Query(ctx, countDeadSQL, CountLimit)
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

func (a *Admin) readResyncs(ctx context.Context, st *Status) (err error) {
	st.Resyncs, err = a.OpenResyncs(ctx, statusLimit)
	return err
}
