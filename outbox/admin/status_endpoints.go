package admin

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

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
		WHERE p.deleted_at IS NULL AND p.delivery <> 'pull' AND (p.ended_at IS NULL OR l.endpoint IS NOT NULL) GROUP BY 1, 2, 3, 4, 5, 6`

	disabledSQL = `
		SELECT ` + infoColumns + ` FROM walhook.endpoint
		WHERE state = 'disabled' AND deleted_at IS NULL AND ended_at IS NULL ORDER BY changed_at DESC LIMIT $1`

	infosSQL = `SELECT ` + infoColumns + ` FROM walhook.endpoint WHERE id = ANY ($1)`
)

// Those that have only failed for longest come first, then those that are
// furthest behind.
var worstSQL = `
		SELECT l.endpoint, ` + outbox.LaneFactsSQL + `, l.failing_since, l.stage, l.last_reason,
			CASE WHEN l.held_since IS NOT NULL AND l.revision >= p.revision THEN coalesce(l.held_reason, '') ELSE '' END,
			(SELECT count(*) FROM (SELECT FROM walhook.retry r WHERE r.endpoint = p.id LIMIT $2) AS counted),
			(SELECT count(*) FROM (SELECT FROM walhook.dead_letter d WHERE d.endpoint = p.id LIMIT $2) AS counted),
			-walhook.until(least(
				(SELECT e.appended_at FROM walhook.event e WHERE e.id = (
					SELECT r.event_id FROM walhook.retry r WHERE r.endpoint = p.id ORDER BY r.event_id LIMIT 1)),
				(SELECT e.appended_at FROM walhook.event e
					WHERE l.behind AND ` + outbox.OfEndpointSQL("p.id", "l.cursor", outbox.LastEventID) + ` ORDER BY e.endpoint, e.id LIMIT 1)))
		FROM walhook.lane l JOIN walhook.endpoint p ON p.id = l.endpoint
			LEFT JOIN (` + outbox.AsideEndpointsSQL + `) a ON a.endpoint = p.id
		WHERE p.state = 'active' AND p.deleted_at IS NULL AND (l.failing_since IS NOT NULL OR l.behind)
		ORDER BY l.failing_since NULLS LAST, l.cursor LIMIT $1`

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
