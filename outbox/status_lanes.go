package outbox

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// worstLimit is how many endpoints a status names.
const worstLimit = 10

// WorstEndpoint is an endpoint that is sent to and does not get its events.
type WorstEndpoint struct {
	EndpointInfo
	Status LaneStatus // of its lane
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

// asideEndpointsSQL are the endpoints that are held because of what is stored of
// them.
const asideEndpointsSQL = `SELECT endpoint, min(first_at) AS since FROM walhook.set_aside WHERE loop = 'endpoints' GROUP BY endpoint`

const (
	countEndpointsSQL = `
		SELECT CASE WHEN p.state IN ('cleared', 'disabled') OR p.state = 'active' AND a.endpoint IS NULL THEN p.state ELSE 'unusable' END, count(*)
		FROM walhook.endpoint p LEFT JOIN (` + asideEndpointsSQL + `) a ON a.endpoint = p.id
		WHERE p.deleted_at IS NULL GROUP BY 1`

	countLanesSQL = `
		SELECT ` + laneFactsSQL + `, count(*)
		FROM walhook.endpoint p LEFT JOIN walhook.lane l ON l.endpoint = p.id
			LEFT JOIN (` + asideEndpointsSQL + `) a ON a.endpoint = p.id
		WHERE p.deleted_at IS NULL GROUP BY 1, 2, 3, 4, 5, 6`

	disabledSQL = `
		SELECT ` + infoColumns + ` FROM walhook.endpoint
		WHERE state = 'disabled' AND deleted_at IS NULL ORDER BY changed_at DESC LIMIT $1`

	// Those that have only failed for longest come first, then those that are
	// furthest behind.
	worstSQL = `
		SELECT l.endpoint, ` + laneFactsSQL + `, l.failing_since, l.stage, l.last_reason,
			(SELECT count(*) FROM (SELECT FROM walhook.retry r WHERE r.endpoint = p.id LIMIT $2) AS counted),
			(SELECT count(*) FROM (SELECT FROM walhook.dead_letter d WHERE d.endpoint = p.id LIMIT $2) AS counted),
			-walhook.until(least(
				(SELECT e.appended_at FROM walhook.event e WHERE e.id = (
					SELECT r.event_id FROM walhook.retry r WHERE r.endpoint = p.id ORDER BY r.event_id LIMIT 1)),
				(SELECT e.appended_at FROM walhook.event e
					WHERE l.behind AND e.endpoint = p.id AND e.id > l.cursor ORDER BY e.id LIMIT 1)))
		FROM walhook.lane l JOIN walhook.endpoint p ON p.id = l.endpoint
			LEFT JOIN (` + asideEndpointsSQL + `) a ON a.endpoint = p.id
		WHERE p.state = 'active' AND p.deleted_at IS NULL AND (l.failing_since IS NOT NULL OR l.behind)
		ORDER BY l.failing_since NULLS LAST, l.cursor LIMIT $1`

	infosSQL = `SELECT ` + infoColumns + ` FROM walhook.endpoint WHERE id = ANY ($1)`
)

// sinceSQL is a time since when something is so. One that is none counts from
// now: a single row would make the whole list unreadable.
func sinceSQL(since string) string {
	return "CASE WHEN " + since + " BETWEEN '2000-01-01Z' AND clock_timestamp() THEN " + since + " ELSE clock_timestamp() END"
}

// heldListSQL lists what is held, at most $1 of it.
func heldListSQL() string {
	return `
		SELECT p.id, ` + sinceSQL(`least(a.since, l.held_since, CASE WHEN p.state = 'unusable' THEN p.changed_at END)`) + ` AS since,
			CASE WHEN p.state = 'active' AND a.endpoint IS NULL THEN coalesce(l.held_reason, '') ELSE '' END
		FROM walhook.endpoint p LEFT JOIN (` + asideEndpointsSQL + `) a ON a.endpoint = p.id
			LEFT JOIN walhook.lane l ON l.endpoint = p.id AND l.revision >= p.revision
		WHERE p.deleted_at IS NULL AND (p.state = 'unusable' OR p.state = 'active' AND (a.endpoint IS NOT NULL OR l.held_since IS NOT NULL))
		ORDER BY since, p.id LIMIT $1`
}

func (s *Store) readStates(ctx context.Context, st *Status) error {
	counts, err := s.countEndpoints(ctx)
	if err != nil {
		return err
	}
	st.Endpoints = counts
	rows, err := s.pool.Query(ctx, disabledSQL, worstLimit)
	if err == nil {
		st.Disabled, err = collectEach(rows, scanEndpointInfo, func(*EndpointInfo, error) {})
	}
	if err != nil {
		return err
	}
	st.Held, err = s.readHeld(ctx)
	return err
}

func (s *Store) readHeld(ctx context.Context) ([]HeldEndpoint, error) {
	rows, err := s.pool.Query(ctx, heldListSQL(), worstLimit)
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
	infos, err := s.readInfos(ctx, ids)
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
func (s *Store) readInfos(ctx context.Context, ids []int64) ([]EndpointInfo, error) {
	rows, err := s.pool.Query(ctx, infosSQL, ids)
	if err != nil {
		return nil, err
	}
	infos, err := collectEach(rows, scanEndpointInfo, func(e *EndpointInfo, _ error) {
		e.State, e.Reason = EndpointUnusable, reasonUnreadable
	})
	if err != nil {
		return nil, err
	}
	held, err := s.heldReasons(ctx, ids)
	for i := range infos {
		infos[i].showHeld(held)
	}
	return infos, err
}

// countEndpoints has every state, those without endpoints as zero.
func (s *Store) countEndpoints(ctx context.Context) (map[EndpointState]int, error) {
	rows, err := s.pool.Query(ctx, countEndpointsSQL)
	if err != nil {
		return nil, err
	}
	counts := map[EndpointState]int{}
	for _, state := range endpointStates() {
		counts[state] = 0
	}
	var state EndpointState
	var n int
	_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error {
		counts[state] = n
		return nil
	})
	return counts, err
}

func endpointStates() []EndpointState {
	return []EndpointState{EndpointActive, EndpointCleared, EndpointUnusable, EndpointDisabled}
}

func (s *Store) readLanes(ctx context.Context, st *Status) error {
	rows, err := s.pool.Query(ctx, countLanesSQL)
	if err != nil {
		return err
	}
	var facts LaneFacts
	var n int
	_, err = pgx.ForEachRow(rows, append(facts.columns(), &n), func() error {
		st.Lanes[string(facts.Status())] += n
		return nil
	})
	if err != nil {
		return err
	}
	return s.readWorst(ctx, st)
}

func (s *Store) readWorst(ctx context.Context, st *Status) error {
	rows, err := s.pool.Query(ctx, worstSQL, worstLimit, CountLimit)
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
	infos, err := s.readInfos(ctx, ids)
	for _, info := range infos {
		w := &st.Worst[slices.Index(ids, info.ID)]
		info.Lane, info.Retries, info.Dead = w.Lane, w.Retries, w.Dead
		w.EndpointInfo = info
	}
	return err
}

// scanWorst reads all but what the endpoint itself says.
func scanWorst(row pgx.CollectableRow) (w WorstEndpoint, err error) {
	var failing *time.Time
	var oldest *time.Duration
	var facts LaneFacts
	err = row.Scan(slices.Concat([]any{&w.ID}, facts.columns(), []any{&failing, &w.Lane.Stage, &w.Lane.LastReason, &w.Retries, &w.Dead, &oldest})...)
	w.Status = facts.Status()
	w.Lane.FailingSince = zeroTime(failing)
	if oldest != nil {
		w.Oldest = *oldest
	}
	return w, err
}
