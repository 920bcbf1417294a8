package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/outbox/route"
)

// What endpoints missed in a gap is appended by whoever takes over next, before anything
// newer. Each transaction deletes what it appends, so a publisher that ends in between
// leaves the rest to the next one.

const (
	// Those of the gaps whose snapshot is stored. An older walhook knows no missed_row.
	reconcilingGapsSQL = `
		SELECT id, missed, accepted_at FROM walhook.gap g
		WHERE accepted_at IS NOT NULL AND missed IS NOT NULL AND (reconciled_at IS NULL OR EXISTS (SELECT FROM walhook.missed_row r WHERE r.gap = g.id)) ORDER BY id`

	// The size of a row of walhook.missed as it is read; at least one is read.
	readMissedSQL = `
		SELECT n, type, schema, key, account, coalesce(above, ''), about, own, body, masked
		FROM walhook.missed WHERE gap = $1 AND n <= (
			SELECT max(n) FROM (
				SELECT n, row_number() OVER w AS place, sum(octet_length(body) + coalesce(octet_length(masked), 0)) OVER w AS size
				FROM (SELECT n, body, masked FROM walhook.missed WHERE gap = $1 ORDER BY n LIMIT $2) AS next WINDOW w AS (ORDER BY n)
			) AS sized WHERE place = 1 OR size <= $3
		) ORDER BY n`

	leaveMissedSQL = `WITH gone AS (DELETE FROM walhook.missed WHERE gap = $1 AND n = ANY ($2) RETURNING 1) SELECT count(*) FROM gone`

	countMissedSQL = `
		UPDATE walhook.gap SET inserts = inserts + $2, updates = updates + $3, deletes = deletes + $4, results = coalesce(results, 0) + $5, events = coalesce(events, 0) + $6
		WHERE id = $1`

	reconciledSQL = `UPDATE walhook.gap SET reconciled_at = clock_timestamp() WHERE id = $1 AND NOT EXISTS (SELECT FROM walhook.missed WHERE gap = $1) AND NOT EXISTS (SELECT FROM walhook.missed_row WHERE gap = $1)`

	// Their last events are appended.
	endMissingSQL = `
		UPDATE walhook.endpoint e SET ended_at = clock_timestamp(), revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE ended_at IS NULL AND EXISTS (SELECT FROM walhook.ended_account a WHERE a.account = e.account)`
)

// Nothing newer is appended before what was missed, unless an older walhook publishes in
// between, which does not know of it.
const (
	// The first id of what was appended since, and whether there is any.
	appendedSinceSQL = `
		SELECT coalesce((SELECT next_event_id FROM walhook.position WHERE flush_lsn <= s.consistent_point ORDER BY id DESC LIMIT 1), 1),
			coalesce((SELECT flush_lsn FROM walhook.position ORDER BY id DESC LIMIT 1) > s.consistent_point, false)
		FROM walhook.source s`

	// Which endpoints have a newer event of which record.
	newerSQL = `
		SELECT DISTINCT m.n, e.endpoint FROM walhook.event e
		JOIN walhook.missed m ON m.gap = $1 AND m.schema = e.schema AND e.record = m.schema || ':' || m.key
		WHERE e.id >= $2 AND NOT e.replayed AND NOT starts_with(e.webhook_id, format('gap_%s_', $1::bigint))`

	noteSQL = `UPDATE walhook.gap SET note = concat_ws('; ', note, $2::text) WHERE id = $1 AND position($2::text IN coalesce(note, '')) = 0`

	noteLate = "an older walhook published before this was appended: a record that has changed since is sent by that change alone, and results and emitted events of the gap come after newer ones"
)

// What one transaction appends of what was missed.
const (
	missedChunk = 1000
	missedBytes = 8 << 20
)

// errMissedMoved says that rows of walhook.missed are gone that a plan was made of.
var errMissedMoved = errors.New("an earlier transaction has appended what was missed")

// missedGap is a gap that is not reconciled yet.
type missedGap struct {
	id, missed int64
	at         time.Time
	newer      map[missedBy]bool // what is not appended, since a newer event is there
}

// missedBy is a row of walhook.missed and an endpoint.
type missedBy struct{ n, endpoint int64 }

func (g missedGap) webhookID(n int64) string { return fmt.Sprintf("gap_%d_%d", g.id, n) }

// tellMissed appends what was missed in gaps, and reports whether there was a gap to end.
// What was read by the take-over is then to be read again.
func (p *Publisher) tellMissed(ctx context.Context) (found bool, err error) {
	var gaps []missedGap
	rows, err := p.store.pool.Query(ctx, reconcilingGapsSQL)
	if err == nil {
		var one missedGap
		_, err = pgx.ForEachRow(rows, []any{&one.id, &one.missed, &one.at}, func() error { gaps = append(gaps, one); return nil })
	}
	if err != nil {
		return false, fmt.Errorf("read which gaps are not reconciled yet: %w", err)
	}
	for _, one := range gaps {
		if one.newer, err = p.newerThan(ctx, one); err != nil {
			return true, fmt.Errorf("read what is newer than gap %d: %w", one.id, err)
		}
		began, logged, n := time.Now(), time.Now(), int64(0)
		for {
			appended, err := p.tellSome(ctx, one)
			if err != nil {
				return true, fmt.Errorf("append what was missed in gap %d: %w", one.id, err)
			}
			if appended == 0 {
				break
			}
			n += int64(appended)
			if time.Since(logged) > missedProgress {
				logged = time.Now()
				p.log.Info("appending what endpoints missed, more follows", zap.Int64("gap", one.id), zap.Int64("appended", n), zap.Int64("of", one.missed))
			}
		}
		err := p.run(ctx, &transaction{fill: func(b *pgx.Batch) {
			b.Queue(lockAccountsSQL, accountsLock)
			b.Queue("LOCK TABLE walhook.endpoint IN SHARE ROW EXCLUSIVE MODE")
			b.Queue(endMissingSQL)
			b.Queue(reconciledSQL, one.id)
		}})
		if err != nil {
			return true, fmt.Errorf("end the reconciliation of gap %d: %w", one.id, err)
		}
		p.log.Info("appended what endpoints missed", zap.Int64("gap", one.id), zap.Int64("missed", one.missed), zap.Duration("duration", time.Since(began)))
	}
	return len(gaps) > 0, nil
}

const missedProgress = 5 * time.Second

// newerThan finds the events that are newer than what is left of a gap; usually there are
// none.
func (p *Publisher) newerThan(ctx context.Context, gap missedGap) (newer map[missedBy]bool, err error) {
	var first int64
	var late bool
	if err := p.store.pool.QueryRow(ctx, appendedSinceSQL).Scan(&first, &late); err != nil || !late {
		return nil, err
	}
	rows, err := p.store.pool.Query(ctx, newerSQL, gap.id, first)
	if err != nil {
		return nil, err
	}
	newer = map[missedBy]bool{}
	var one missedBy
	if _, err := pgx.ForEachRow(rows, []any{&one.n, &one.endpoint}, func() error { newer[one] = true; return nil }); err != nil {
		return nil, err
	}
	p.log.Warn("an older walhook has published before all was appended that endpoints missed, it comes behind newer events", zap.Int64("gap", gap.id), zap.Int("left_out", len(newer)))
	_, err = p.store.pool.Exec(ctx, noteSQL, gap.id, noteLate)
	return newer, err
}

// tellSome appends the next of what was missed: records first, and then rows of the tables of
// results and events.
func (p *Publisher) tellSome(ctx context.Context, gap missedGap) (n int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errAppendTimeout)
	defer cancel()
	list, err := p.readMissed(ctx, gap)
	if err != nil {
		return 0, err
	}
	var plan *route.Plan
	if n = len(list); n > 0 {
		p.rotate(ctx)
		plan = route.RouteMissed(p.view, gap.id, list, func(n, endpoint int64) bool { return gap.newer[missedBy{n, endpoint}] })
	} else {
		rows, err := p.readMissedRows(ctx, gap)
		if n = len(rows); err != nil || n == 0 {
			return 0, err
		}
		p.rotate(ctx)
		plan = route.RouteMissedRows(p.view, gap.id, rows)
	}
	if err := p.commit(ctx, plan); err != nil {
		return 0, err
	}
	for kind, n := range plan.Sent {
		p.store.metrics.reconciled.WithLabelValues(kind).Add(float64(n))
	}
	return n, nil
}

// readMissed reads the next records of a gap.
func (p *Publisher) readMissed(ctx context.Context, gap missedGap) (list []route.Missed, err error) {
	rows, err := p.store.pool.Query(ctx, readMissedSQL, gap.id, missedChunk, missedBytes)
	if err != nil {
		return nil, err
	}
	var m route.Missed
	_, err = pgx.ForEachRow(rows, []any{&m.N, &m.Type, &m.Schema, &m.Key, &m.Account, &m.Above, &m.About, &m.Own, &m.Body, &m.Masked}, func() error {
		m.WebhookID, m.At = gap.webhookID(m.N), gap.at
		m.Key, m.Account = p.store.encoding.original(m.Key), p.accountText([]byte(m.Account))
		list = append(list, m)
		m.Body, m.Masked = nil, nil // the next row has its own
		return nil
	})
	return list, err
}
