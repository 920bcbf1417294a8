package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	Backlog float64
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
	var err error
	st.Backlog, st.Oldest, err = a.store.Backlog(ctx)
	return err
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

// worstLimit is how many endpoints a status names.
const worstLimit = 10

// WorstEndpoint is an endpoint that is sent to and does not get its events.
type WorstEndpoint struct {
	EndpointInfo
	Status outbox.LaneStatus // of its lane
	// Why is what keeps it from getting its events: the reason of [HeldEndpoint] if it
	// is held, otherwise that of the last attempt.
	Why string
	// Oldest is how long ago the oldest event was appended that waits for it;
	// 0 where that is not known.
	Oldest time.Duration
}

// HeldEndpoint is an endpoint that nothing can be sent to.
type HeldEndpoint struct {
	EndpointInfo
	Since time.Time
	Why   string // for people; of a fault of our own as metrics name it
}

const (
	countLanesSQL = `
		SELECT ` + outbox.LaneFactsSQL + `, count(*)
		FROM walhook.endpoint p LEFT JOIN walhook.lane l ON l.endpoint = p.id
			LEFT JOIN (` + outbox.AsideEndpointsSQL + `) a ON a.endpoint = p.id
		WHERE p.deleted_at IS NULL AND (p.ended_at IS NULL OR l.endpoint IS NOT NULL) GROUP BY 1, 2, 3, 4, 5, 6`

	disabledSQL = `
		SELECT ` + infoColumns + ` FROM walhook.endpoint
		WHERE state = 'disabled' AND deleted_at IS NULL AND ended_at IS NULL ORDER BY changed_at DESC LIMIT $1`

	// Those that have only failed for longest come first, then those that are
	// furthest behind.
	worstSQL = `
		SELECT l.endpoint, ` + outbox.LaneFactsSQL + `, l.failing_since, l.stage, l.last_reason,
			CASE WHEN l.held_since IS NOT NULL AND l.revision >= p.revision THEN coalesce(l.held_reason, '') ELSE '' END,
			(SELECT count(*) FROM (SELECT FROM walhook.retry r WHERE r.endpoint = p.id LIMIT $2) AS counted),
			(SELECT count(*) FROM (SELECT FROM walhook.dead_letter d WHERE d.endpoint = p.id LIMIT $2) AS counted),
			-walhook.until(least(
				(SELECT e.appended_at FROM walhook.event e WHERE e.id = (
					SELECT r.event_id FROM walhook.retry r WHERE r.endpoint = p.id ORDER BY r.event_id LIMIT 1)),
				(SELECT e.appended_at FROM walhook.event e
					WHERE l.behind AND e.endpoint = p.id AND e.id > l.cursor ORDER BY e.id LIMIT 1)))
		FROM walhook.lane l JOIN walhook.endpoint p ON p.id = l.endpoint
			LEFT JOIN (` + outbox.AsideEndpointsSQL + `) a ON a.endpoint = p.id
		WHERE p.state = 'active' AND p.deleted_at IS NULL AND (l.failing_since IS NOT NULL OR l.behind)
		ORDER BY l.failing_since NULLS LAST, l.cursor LIMIT $1`

	infosSQL = `SELECT ` + infoColumns + ` FROM walhook.endpoint WHERE id = ANY ($1)`
)

// heldListSQL lists what is held, at most $1 of it.
func heldListSQL() string {
	return `
		SELECT p.id, ` + outbox.SinceSQL(`least(a.since, l.held_since, CASE WHEN p.state = 'unusable' THEN p.changed_at END)`) + ` AS since,
			CASE WHEN p.state = 'active' AND a.endpoint IS NULL THEN coalesce(l.held_reason, '') ELSE '' END
		FROM walhook.endpoint p LEFT JOIN (` + outbox.AsideEndpointsSQL + `) a ON a.endpoint = p.id
			LEFT JOIN walhook.lane l ON l.endpoint = p.id AND l.revision >= p.revision
		WHERE p.deleted_at IS NULL AND (p.state = 'unusable' OR p.state = 'active' AND (a.endpoint IS NOT NULL OR l.held_since IS NOT NULL))
		ORDER BY since, p.id LIMIT $1`
}

func (a *Admin) readStates(ctx context.Context, st *Status) error {
	counts, err := a.store.CountEndpoints(ctx)
	if err != nil {
		return err
	}
	st.Endpoints = counts
	rows, err := a.pool.Query(ctx, disabledSQL, worstLimit)
	if err == nil {
		st.Disabled, err = collectEach(rows, scanEndpointInfo, func(*EndpointInfo, error) {})
	}
	if err != nil {
		return err
	}
	st.Held, err = a.readHeld(ctx)
	return err
}

func (a *Admin) readHeld(ctx context.Context) ([]HeldEndpoint, error) {
	rows, err := a.pool.Query(ctx, heldListSQL(), worstLimit)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h HeldEndpoint, err error) {
		return h, row.Scan(&h.ID, &h.Since, &h.Why)
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	ids := make([]int64, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	infos, err := a.readInfos(ctx, ids)
	for _, info := range infos {
		h := &list[slices.Index(ids, info.ID)]
		if h.Why == "" {
			h.Why = info.Reason
		}
		h.EndpointInfo = info
	}
	return list, err
}

// readInfos reads endpoints as their senders have them, in any order.
func (a *Admin) readInfos(ctx context.Context, ids []int64) ([]EndpointInfo, error) {
	rows, err := a.pool.Query(ctx, infosSQL, ids)
	if err != nil {
		return nil, err
	}
	infos, err := collectEach(rows, scanEndpointInfo, func(e *EndpointInfo, _ error) {
		e.State, e.Reason = outbox.EndpointUnusable, outbox.ReasonUnreadable
	})
	if err != nil {
		return nil, err
	}
	held, err := a.store.HeldReasons(ctx, ids)
	for i := range infos {
		infos[i].showHeld(held)
	}
	return infos, err
}

func (a *Admin) readLanes(ctx context.Context, st *Status) error {
	rows, err := a.pool.Query(ctx, countLanesSQL)
	if err != nil {
		return err
	}
	var facts outbox.LaneFacts
	var n int
	_, err = pgx.ForEachRow(rows, append(facts.Columns(), &n), func() error {
		st.Lanes[string(facts.Status())] += n
		return nil
	})
	if err != nil {
		return err
	}
	return a.readWorst(ctx, st)
}

func (a *Admin) readWorst(ctx context.Context, st *Status) error {
	rows, err := a.pool.Query(ctx, worstSQL, worstLimit, CountLimit)
	if err == nil {
		st.Worst, err = collectEach(rows, scanWorst, func(*WorstEndpoint, error) {})
	}
	if err != nil || len(st.Worst) == 0 {
		return err
	}
	ids := make([]int64, len(st.Worst))
	for i := range st.Worst {
		ids[i] = st.Worst[i].ID
	}
	infos, err := a.readInfos(ctx, ids)
	for _, info := range infos {
		w := &st.Worst[slices.Index(ids, info.ID)]
		info.Lane, info.Retries, info.Dead = w.Lane, w.Retries, w.Dead
		w.EndpointInfo = info
		w.Why = cmp.Or(w.Lane.HeldReason, w.Lane.LastReason)
		if info.State != outbox.EndpointActive {
			w.Why = info.Reason
		}
	}
	return err
}

// scanWorst reads all but what the endpoint itself says.
func scanWorst(row pgx.CollectableRow) (w WorstEndpoint, err error) {
	var failing *time.Time
	var oldest *time.Duration
	var facts outbox.LaneFacts
	err = row.Scan(slices.Concat([]any{&w.ID}, facts.Columns(), []any{&failing, &w.Lane.Stage, &w.Lane.LastReason, &w.Lane.HeldReason, &w.Retries, &w.Dead, &oldest})...)
	w.Status = facts.Status()
	w.Lane.FailingSince = *cmp.Or(failing, new(time.Time))
	if oldest != nil {
		w.Oldest = *oldest
	}
	return w, err
}

// ThroughputWindow is what the rates of a [Status] are over.
const ThroughputWindow = 10 * time.Second

// throughputBlocks bounds how much of the newest attempts is looked at: 32 MiB,
// some hundred thousand rows. Above that many the rates are over less time.
const throughputBlocks = 4096

const (
	// The position of a while ago: positions rise with time, so this walks back
	// from the newest. Without one that old nothing was appended before.
	pastPositionSQL = `
		SELECT coalesce((SELECT next_event_id - 1 FROM walhook.position WHERE stored_at < statement_timestamp() - $1::interval ORDER BY id DESC LIMIT 1), 0)`

	// Attempts have no index by time, since nothing else needs one. They are
	// only ever appended, so the newest lie at the end of the table, and a
	// range of row addresses (PostgreSQL 14 and newer) reads just that.
	newestAttemptsSQL = `
		SELECT count(*) FILTER (WHERE outcome = 'delivered'), count(*) FILTER (WHERE outcome <> 'delivered'),
			extract(epoch FROM clock_timestamp() - min(ended))::float8
		FROM (SELECT outcome, at + least(greatest(duration, '0'), '1 day') AS ended FROM walhook.%[1]s WHERE ctid >= $1::text::tid) a
		WHERE ended > statement_timestamp() - $2::interval`

	attemptBlocksSQL = `
		SELECT c.relname::text, pg_relation_size(c.oid) / current_setting('block_size')::bigint
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'walhook.attempt'::regclass
			AND substring(c.relname FROM '\d+$') IN (
				to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD'),
				to_char((clock_timestamp() - $1::interval) AT TIME ZONE 'UTC', 'YYYYMMDD'))`
)

// readThroughput computes the rates from what is stored, whichever processes did
// it.
func (a *Admin) readThroughput(ctx context.Context, st *Status) error {
	var past int64
	if err := a.pool.QueryRow(ctx, pastPositionSQL, ThroughputWindow).Scan(&past); err != nil {
		return err
	}
	appended, err := a.store.AppendedAfter(ctx, past)
	if err != nil {
		return err
	}
	st.Appended = appended / ThroughputWindow.Seconds()
	rows, err := a.pool.Query(ctx, attemptBlocksSQL, ThroughputWindow)
	if err != nil {
		return err
	}
	type part struct {
		name   string
		blocks int64
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p part, err error) { return p, row.Scan(&p.name, &p.blocks) })
	for _, p := range parts {
		if err == nil {
			err = a.addAttempts(ctx, st, p.name, p.blocks)
		}
	}
	return err
}

// addAttempts adds the rates of one day's attempts.
func (a *Admin) addAttempts(ctx context.Context, st *Status, partition string, blocks int64) error {
	var delivered, failed float64
	var span *float64
	from := max(blocks-throughputBlocks, 0)
	sql := fmt.Sprintf(newestAttemptsSQL, pgx.Identifier{partition}.Sanitize())
	err := a.pool.QueryRow(ctx, sql, fmt.Sprintf("(%d,0)", from), ThroughputWindow).Scan(&delivered, &failed, &span)
	if err != nil || span == nil {
		return err
	}
	seconds := ThroughputWindow.Seconds()
	if from > 0 {
		seconds = min(max(*span, 0.1), seconds)
	}
	st.Delivered += delivered / seconds
	st.Failed += failed / seconds
	return nil
}
