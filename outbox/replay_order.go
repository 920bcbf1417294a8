package outbox

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// replayOrder lists the events of a request that a walk through the event log would send in the
// wrong order: those that are named, and those whose original retention dropped while a copy or
// a dead letter is kept. Copies lie in the log in the order of earlier replays. Whatever is gone
// from the log is older than what is there, so the list comes before the walk.
//
// It is in memory alone. Once a request sent an event, its cursor is the negative id of the last
// copy. A publisher that resumes it, or finds that retention overtook it, continues behind
// that event: what was still waiting when its turn came is not sent behind later ones.
type replayOrder struct {
	timeline string   // the token of the one that it was listed on
	left     []string // webhook-ids
	walk     int64    // how far the walk is
	first    int64    // the first id of the event log when it was listed
}

// openRequest is what is stored of a request that is under way.
type openRequest struct {
	endpoint, cursor, until int64
	since                   *time.Time
	ids                     []string
	rate                    float64
}

const (
	// orderPage is how many rows of an endpoint one statement looks at.
	orderPage = 5000

	// clockSkew is how far the clocks of source and outbox may differ before a replay misses
	// a copy whose original is gone.
	clockSkew = 24 * time.Hour

	// walkSkew is how far they may differ before a replay misses an event: its walk begins
	// with what was appended so long before its time.
	walkSkew = time.Hour

	orderRequestSQL = `
		SELECT r.endpoint, r.since, r.webhook_ids, r.cursor, coalesce(e.webhook_id, ''), coalesce((
			SELECT o.id FROM walhook.event o WHERE o.webhook_id = e.webhook_id AND o.endpoint = r.endpoint AND NOT o.replayed ORDER BY o.id LIMIT 1), 0)
		FROM walhook.request r LEFT JOIN walhook.event e ON e.id = -r.cursor AND e.endpoint = r.endpoint
		WHERE r.id = $1 AND r.done_at IS NULL`

	firstRowOfLogSQL = `SELECT id, appended_at FROM walhook.event ORDER BY id LIMIT 1`

	goneDeadLettersSQL = `
		WITH page AS (
			SELECT event_id AS id, webhook_id, committed_at FROM walhook.dead_letter
			WHERE endpoint = $1 AND event_id > $2 AND event_id < $5 AND body IS NOT NULL AND reason <> 'unreadable' ORDER BY event_id LIMIT $4)
		SELECT count(*), coalesce(max(id), 0), coalesce(array_agg(id) FILTER (WHERE committed_at >= $3), '{}'),
			coalesce(array_agg(webhook_id) FILTER (WHERE committed_at >= $3), '{}'), coalesce(array_agg(committed_at) FILTER (WHERE committed_at >= $3), '{}') FROM page`

	// Of each id the row that tells its place: the original, or else what is kept of it.
	namedPlacesSQL = `
		SELECT n.webhook_id, coalesce(e.id, d.event_id), coalesce(e.committed_at, d.committed_at), e.id IS NOT NULL AND NOT e.replayed
		FROM (SELECT DISTINCT webhook_id FROM unnest($2::text[]) AS u(webhook_id)) n
		LEFT JOIN LATERAL (
			SELECT id, committed_at, replayed FROM walhook.event e WHERE e.webhook_id = n.webhook_id AND e.endpoint = $1 ORDER BY e.id LIMIT 1) e ON true
		LEFT JOIN LATERAL (
			SELECT event_id, committed_at FROM walhook.dead_letter d WHERE d.webhook_id = n.webhook_id AND d.endpoint = $1 ORDER BY d.event_id LIMIT 1) d ON true
		WHERE coalesce(e.id, d.event_id) IS NOT NULL`
)

// Without its original: no older row has its webhook-id, and it is a copy itself.
var orphansSQL = `
		WITH page AS (
			SELECT id, replayed, webhook_id, committed_at FROM walhook.event e
			WHERE ` + OfEndpointSQL("(SELECT $1::bigint)", "(SELECT $2::bigint)", LastEventID) + ` ORDER BY e.endpoint, e.id LIMIT (SELECT $4::bigint)),
		orphan AS (
			SELECT id, webhook_id, committed_at FROM page p WHERE replayed AND committed_at >= $3
			AND (SELECT 1 FROM walhook.event o WHERE o.webhook_id = p.webhook_id AND o.endpoint = $1 AND o.id < p.id LIMIT 1) IS NULL)
		SELECT (SELECT count(*) FROM page), (SELECT coalesce(max(id), 0) FROM page),
			coalesce(array_agg(id), '{}'), coalesce(array_agg(webhook_id), '{}'), coalesce(array_agg(committed_at), '{}') FROM orphan`

// AppendedFromSQL is the first id of the endpoint $1 that was appended at $2 or later: ids
// rise with that time. Each step halves what is left, so it takes as many as the ids have bits.
var AppendedFromSQL = `
		WITH RECURSIVE seek AS (
			SELECT 0::bigint AS low, coalesce((SELECT id FROM walhook.event e WHERE ` + OfEndpointSQL("(SELECT $1::bigint)", "0", LastEventID) + ` ORDER BY e.endpoint DESC, e.id DESC LIMIT 1), 0) + 1 AS high
			UNION ALL
			SELECT CASE WHEN f.id < s.high AND f.appended_at < $2 THEN f.id + 1 ELSE s.low END,
				CASE WHEN f.id < s.high AND f.appended_at < $2 THEN s.high ELSE s.low + (s.high - s.low) / 2 END
			FROM seek s LEFT JOIN LATERAL (
				SELECT e.id, e.appended_at FROM walhook.event e
				WHERE ` + OfEndpointSQL("(SELECT $1::bigint)", "s.low + (s.high - s.low) / 2 - 1", LastEventID) + ` ORDER BY e.endpoint, e.id LIMIT 1) f ON true
			WHERE s.low < s.high)
		SELECT max(low) FROM seek`

// replayOrderOf returns the order of a request, listed when it is not known, and again when
// retention drops what its walk did not reach.
func (p *Publisher) replayOrderOf(ctx context.Context, id int64) (order *replayOrder, err error) {
	p.mu.Lock()
	timeline := p.timeline.token
	p.mu.Unlock()
	var r openRequest
	var last string
	var original int64
	err = p.store.pool.QueryRow(ctx, orderRequestSQL, id).Scan(&r.endpoint, &r.since, &r.ids, &r.cursor, &last, &original)
	if isNoRows(err) {
		delete(p.replayOrders, id)
		return &replayOrder{timeline: timeline}, nil // done, or withdrawn
	}
	if err != nil {
		return nil, err
	}
	var first int64
	var began time.Time
	if err = p.store.pool.QueryRow(ctx, firstRowOfLogSQL).Scan(&first, &began); isNoRows(err) {
		first, began = 1<<62, time.Now() // the log is empty: whatever there is, is gone from it
	} else if err != nil {
		return nil, err
	}
	if known := p.replayOrders[id]; known != nil && known.timeline == timeline && (r.ids != nil || known.first == first || known.walk >= first) {
		return known, nil
	}
	order = &replayOrder{timeline: timeline, first: first, walk: max(r.cursor, original)}
	err = pgx.BeginFunc(ctx, p.store.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, ByIndexSQL); err != nil {
			return err
		}
		switch {
		case r.ids != nil:
			order.left, err = namedOrder(ctx, tx, r)
		case order.walk < first && r.since.Before(began.Add(clockSkew)):
			order.left, err = goneOrder(ctx, tx, r, first)
		}
		if err != nil || r.since == nil {
			return err
		}
		var from int64
		err = tx.QueryRow(ctx, AppendedFromSQL, r.endpoint, r.since.Add(-walkSkew)).Scan(&from)
		order.walk = max(order.walk, from-1)
		return err
	})
	if err != nil {
		return nil, err
	}
	if last != "" {
		order.left = order.left[slices.Index(order.left, last)+1:] // all, where its copy is gone, too
	}
	if p.replayOrders == nil {
		p.replayOrders = map[int64]*replayOrder{}
	}
	p.replayOrders[id] = order
	return order, nil
}

const overRequestsSQL = `SELECT u.id FROM unnest($1::bigint[]) AS u(id) WHERE (SELECT 1 FROM walhook.request r WHERE r.id = u.id AND r.done_at IS NULL LIMIT 1) IS NULL`

// forgetReplayOrders drops the orders of requests that somebody else ended: they were cancelled.
func (p *Publisher) forgetReplayOrders(ctx context.Context) error {
	if len(p.replayOrders) == 0 {
		return nil
	}
	rows, _ := p.store.pool.Query(ctx, overRequestsSQL, slices.Collect(maps.Keys(p.replayOrders))) // rows have its error
	var id int64
	_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
		delete(p.replayOrders, id)
		return nil
	})
	return err
}

// placed is an event and what tells its place among those of its record.
type placed struct {
	webhookID   string
	committedAt time.Time
	row         int64 // of the log, or what a dead letter has of it
}

// namedOrder orders the named events: by their originals; before them those without one.
func namedOrder(ctx context.Context, tx pgx.Tx, r openRequest) ([]string, error) {
	var gone, kept []placed
	rows, _ := tx.Query(ctx, namedPlacesSQL, r.endpoint, r.ids) // rows have its error
	var e placed
	var original bool
	_, err := pgx.ForEachRow(rows, []any{&e.webhookID, &e.row, &e.committedAt, &original}, func() error {
		if original {
			kept = append(kept, e)
		} else {
			gone = append(gone, e)
		}
		return nil
	})
	slices.SortFunc(kept, func(a, b placed) int { return cmp.Compare(a.row, b.row) })
	return idsOf(append(orderGone(gone), kept...)), err
}

// goneOrder orders what is kept of events whose original is gone.
func goneOrder(ctx context.Context, tx pgx.Tx, r openRequest, first int64) ([]string, error) {
	var gone []placed
	for _, s := range []struct {
		text string
		args []any
	}{{orphansSQL, nil}, {goneDeadLettersSQL, []any{first}}} {
		for looked, after := orderPage, int64(-1); looked == orderPage; {
			var rows []int64
			var ids []string
			var at []time.Time
			if err := tx.QueryRow(ctx, s.text, append([]any{r.endpoint, after, r.since, orderPage}, s.args...)...).Scan(&looked, &after, &rows, &ids, &at); err != nil {
				return nil, err
			}
			for i := range ids {
				gone = append(gone, placed{ids[i], at[i], rows[i]})
			}
		}
	}
	return idsOf(orderGone(gone)), nil
}

func idsOf(events []placed) []string {
	ids := make([]string, len(events))
	for i := range events {
		ids[i] = events[i].webhookID
	}
	return ids
}

// orderGone orders events by their webhook-id, which names the commit and the place in it. Ids
// of another form name none: those events come in by the time of their commit.
func orderGone(events []placed) []placed {
	type named struct {
		placed
		commit, ordinal uint64
		part            string
	}
	var changes []named
	var others []placed
	for _, e := range events {
		if commit, ordinal, part, ok := changePlace(e.webhookID); ok {
			changes = append(changes, named{e, commit, ordinal, part})
		} else {
			others = append(others, e)
		}
	}
	slices.SortFunc(changes, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.commit, b.commit), cmp.Compare(a.ordinal, b.ordinal),
			cmp.Compare(len(a.part), len(b.part)), cmp.Compare(a.part, b.part))
	})
	slices.SortFunc(others, func(a, b placed) int {
		return cmp.Or(a.committedAt.Compare(b.committedAt), cmp.Compare(len(a.webhookID), len(b.webhookID)),
			cmp.Compare(a.webhookID, b.webhookID), cmp.Compare(a.row, b.row))
	})
	ordered := make([]placed, 0, len(events))
	var now time.Time // the source's clock may step back, its log does not
	for _, c := range changes {
		if c.committedAt.After(now) {
			now = c.committedAt
		}
		for len(others) > 0 && others[0].committedAt.Before(now) {
			ordered, others = append(ordered, others[0]), others[1:]
		}
		ordered = append(ordered, c.placed)
	}
	return append(ordered, others...)
}

// changePlace reads the webhook-id of a change: evt_<commit LSN>_<ordinal><part>.
func changePlace(webhookID string) (commit, ordinal uint64, part string, ok bool) {
	lsn, place, ok := strings.Cut(strings.TrimPrefix(webhookID, "evt_"), "_")
	if !ok || !strings.HasPrefix(webhookID, "evt_") {
		return 0, 0, "", false
	}
	digits := strings.TrimRight(place, "abcdefghijklmnopqrstuvwxyz")
	commit, err := strconv.ParseUint(lsn, 16, 64)
	if err == nil {
		ordinal, err = strconv.ParseUint(digits, 10, 64)
	}
	return commit, ordinal, place[len(digits):], err == nil
}
