package outbox

import (
	"context"
	"time"
)

// resyncStands is how long a resync may append nothing before somebody should look.
const resyncStands = 10 * time.Minute

// Since when what is under way has appended nothing.
const (
	// The last event of a resync has its last number; one that began again has skipped a
	// number. A resync that has not begun stands only if it is its turn.
	resyncProgressSQL = `
		SELECT r.id, p.account, p.webhook, r.sent, r.total, moved.at
		FROM walhook.resync r JOIN walhook.endpoint p ON p.id = r.endpoint, LATERAL (
			SELECT greatest(r.asked_at, r.started_at, max(e.committed_at)) AS at FROM walhook.event e
			WHERE e.webhook_id IN (format('sync_%s_%s', r.id, r.numbered), format('sync_%s_%s', r.id, r.numbered - 1))
		) AS moved
		WHERE r.done_at IS NULL AND (r.started_at IS NOT NULL OR r.id IN (SELECT id FROM walhook.resync WHERE done_at IS NULL ORDER BY id LIMIT $1))`

	standingResyncsSQL = `SELECT * FROM (` + resyncProgressSQL + ` ORDER BY r.id LIMIT $2) AS open WHERE at < clock_timestamp() - $3::interval ORDER BY at, id LIMIT 20`

	resyncStalledSQL = `
		SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(at)), 0), 0)::float8
		FROM (` + resyncProgressSQL + ` ORDER BY r.id LIMIT $2) AS open`

	// What is left has the highest numbers. Of the last that were appended, some may have had
	// no recipient.
	reconciliationStalledSQL = `
		SELECT coalesce(max(extract(epoch FROM clock_timestamp() - greatest(g.accepted_at, (
			SELECT max(e.appended_at) FROM walhook.event e WHERE e.webhook_id = ANY (ARRAY(
				SELECT format('gap_%s_%s', g.id, n) FROM generate_series(greatest(next.n - 20, 1), next.n - 1) AS n)))))), 0)::float8
		FROM walhook.gap g, LATERAL (
			SELECT least((SELECT min(n) FROM walhook.missed WHERE gap = g.id), (SELECT min(n) FROM walhook.missed_row WHERE gap = g.id)) AS n
		) AS next
		WHERE g.accepted_at IS NOT NULL AND next.n IS NOT NULL`
)

// mostOpenResyncs bounds how many resyncs are looked at.
const mostOpenResyncs = 200

// measureProgress says for how long the resync that stands for longest has appended
// nothing, and what endpoints missed in a gap, in seconds.
func (s *Store) measureProgress(ctx context.Context) (resync, reconciliation float64, err error) {
	err = s.pool.QueryRow(ctx, resyncStalledSQL, resyncsAtOnce, mostOpenResyncs).Scan(&resync)
	if err == nil {
		err = s.pool.QueryRow(ctx, reconciliationStalledSQL).Scan(&reconciliation)
	}
	return resync, reconciliation, err
}
