package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/retry"
)

const (
	// replayPoll is how often a publisher looks for requests of other processes.
	replayPoll = time.Second

	// replayLook is how many events one transaction looks at, and replayChunk
	// how many it appends at most: appends may be waiting behind it.
	replayLook    = 500
	replayChunk   = 200
	replayBytes   = 8 << 20 // of bodies, but for a single one that is larger
	replayTimeout = besideTimeout
)

const (
	dueRequestSQL = `
		SELECT id FROM walhook.request r WHERE done_at IS NULL AND next_at <= clock_timestamp()
		AND NOT EXISTS (SELECT FROM walhook.set_aside a WHERE a.loop = 'replay' AND a.item = r.id::text) ORDER BY next_at, id LIMIT 1`

	nextRequestSQL = `SELECT walhook.until(min(next_at)) FROM walhook.request r WHERE done_at IS NULL
		AND NOT EXISTS (SELECT FROM walhook.set_aside a WHERE a.loop = 'replay' AND a.item = r.id::text)`

	openRequestSQL = `
		SELECT r.endpoint, r.since, r.webhook_ids, r.rate, r.cursor, r.until_id, coalesce(p.revision, 0), coalesce(p.state, 'cleared') = 'cleared'
		FROM walhook.request r LEFT JOIN walhook.endpoint p ON p.id = r.endpoint
		WHERE r.id = $1 AND r.done_at IS NULL FOR UPDATE OF r`

	moveRequestSQL = `
		UPDATE walhook.request SET cursor = $2, sent = sent + $3, next_at = clock_timestamp() + $4::interval,
			done_at = CASE WHEN $5 THEN clock_timestamp() END, reason = $6
		WHERE id = $1`

	endRequestSQL = `UPDATE walhook.request SET done_at = clock_timestamp(), reason = $2 WHERE id = $1`

	forgetRequestsSQL = `DELETE FROM walhook.request WHERE done_at < clock_timestamp() - $1::interval`
)

// CandidatesSQL are the rows of an endpoint that a request may be about, in
// order of id: those of the event log, and dead letters that the event log no longer holds.
// Of them those are wanted that were asked for, are delivered or dead, and have
// no newer copy, which would be what stands for them. The bound on how many are
// looked at is part of the text, so that the plan knows it; it holds for both, and
// what lies beyond where either of them came to its end is left for later.
//
// $1 endpoint, $2 cursor, $3 until, $4 since, $5 ids.
func CandidatesSQL(limit int, byIDs bool) string {
	rows := rangeRowsSQL
	if byIDs {
		rows = namedRowsSQL
	}
	return fmt.Sprintf(rows+`,
	candidate AS (
		SELECT c.*, ($4::timestamptz IS NULL OR c.committed_at >= $4) AND ($5::text[] IS NULL OR c.webhook_id = ANY ($5)) AS asked
		FROM (
			SELECT * FROM logged
			UNION ALL
			SELECT * FROM died d WHERE (SELECT 1 FROM walhook.event e WHERE e.id = d.id LIMIT 1) IS NULL) c
		WHERE c.id <= least((SELECT max(id) FROM logged HAVING count(*) = %[1]d), (SELECT max(id) FROM died HAVING count(*) = %[1]d), $3)
		ORDER BY id LIMIT %[1]d),
	wanted AS (
		SELECT c.id, c.logged, c.size FROM candidate c
		WHERE asked AND (NOT logged
			OR (SELECT 1 FROM walhook.attempt a WHERE a.endpoint = $1 AND a.event_id = c.id AND a.outcome = 'delivered' LIMIT 1) IS NOT NULL
			OR (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = $1 AND d.event_id = c.id LIMIT 1) IS NOT NULL)
		AND (SELECT 1 FROM walhook.event n WHERE n.replayed AND n.endpoint = $1 AND n.webhook_id = c.webhook_id AND n.id > c.id LIMIT 1) IS NULL)`, limit)
}

const (
	rangeRowsSQL = `
	logged AS (
		SELECT e.id, true AS logged, e.webhook_id, e.committed_at, ` + SizeSQL + ` AS size FROM walhook.event e
		WHERE e.endpoint = $1 AND e.id > $2 AND e.id <= $3 ORDER BY e.id LIMIT %[1]d),
	died AS (
		SELECT d.event_id AS id, false AS logged, d.webhook_id, d.committed_at, d.size FROM walhook.dead_letter d
		WHERE d.endpoint = $1 AND d.event_id > $2 AND d.event_id <= $3 AND d.body IS NOT NULL AND d.reason <> 'unreadable'
		ORDER BY d.event_id LIMIT %[1]d)`

	// Of each id the newest row, which is what stands for it.
	namedRowsSQL = `
	named AS (SELECT DISTINCT webhook_id FROM unnest($5::text[]) AS u(webhook_id)),
	logged AS (
		SELECT e.id, true AS logged, e.webhook_id, e.committed_at, ` + SizeSQL + ` AS size
		FROM named n CROSS JOIN LATERAL (
			SELECT * FROM walhook.event e WHERE e.webhook_id = n.webhook_id AND e.endpoint = $1 ORDER BY e.id DESC LIMIT 1) e
		WHERE e.id > $2 AND e.id <= $3 ORDER BY e.id LIMIT %[1]d),
	died AS (
		SELECT d.event_id AS id, false AS logged, d.webhook_id, d.committed_at, d.size
		FROM named n CROSS JOIN LATERAL (
			SELECT * FROM walhook.dead_letter d WHERE d.webhook_id = n.webhook_id AND d.endpoint = $1
			AND d.body IS NOT NULL AND d.reason <> 'unreadable' ORDER BY d.event_id DESC LIMIT 1) d
		WHERE d.event_id > $2 AND d.event_id <= $3 ORDER BY d.event_id LIMIT %[1]d)`
)

// ByIndexSQL keeps what a transaction reads on the indexes that have its order.
// How much one endpoint has the planner knows only when it sees which one it is,
// and of several at once not even then: it takes all for average ones, reads all
// they have and sorts it.
const ByIndexSQL = `
	SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`

// replaySQL appends the next of what is wanted; what is appended and what leaves
// the dead letters is one. It answers how many it appended, chose and could have
// chosen, how far the chosen go, how many it looked at, and how far those go.
//
// A large body is not copied but carried by the event that carries it already,
// as far as that is in the same partition: however often somebody asks for it,
// the event log grows by short rows. A dead letter's body moves.
//
// $6 most events to append, $7 the id before their first, $8 the revision.
func replaySQL(byIDs bool) string {
	return `
		WITH ` + CandidatesSQL(replayLook, byIDs) + fmt.Sprintf(`,
		next AS (
			SELECT id, logged, row_number() OVER (ORDER BY id) AS place, sum(size) OVER (ORDER BY id) AS bytes
			FROM (SELECT * FROM wanted ORDER BY id LIMIT %[1]d) w),
		chosen AS (SELECT * FROM next WHERE place <= $6 AND (place = 1 OR bytes <= %[2]d)),
		source AS (
			SELECT e.place, e.record, e.webhook_id, e.schema, e.type, e.format, e.committed_at,
				CASE WHEN shared THEN '' ELSE `+bodySQL+` END AS body,
				CASE WHEN shared THEN coalesce(e.body_of, e.id) END AS body_of, CASE WHEN shared THEN `+SizeSQL+` END AS body_size
			FROM (SELECT c.place, e.*, `+SizeSQL+` >= %[3]d AND coalesce(e.body_of, e.id) / %[4]d = ($7::bigint + c.place) / %[4]d AS shared
				FROM chosen c JOIN walhook.event e ON c.logged AND e.id = c.id) e
			UNION ALL
			SELECT c.place, d.record, d.webhook_id, d.schema, d.type, d.format, d.committed_at, d.body, NULL, NULL
			FROM chosen c JOIN walhook.dead_letter d ON NOT c.logged AND d.endpoint = $1 AND d.event_id = c.id),
		appended AS (
			INSERT INTO walhook.event (`+eventColumns+`, replayed)
			SELECT $7::bigint + place, $1, $8, record, webhook_id, schema, type, committed_at, clock_timestamp(), format, body, body_of, body_size, true
			FROM source
			RETURNING id),
		raised AS (DELETE FROM walhook.dead_letter d USING chosen c WHERE d.endpoint = $1 AND d.event_id = c.id)
		SELECT (SELECT count(*) FROM appended), (SELECT count(*) FROM chosen), (SELECT count(*) FROM next),
			(SELECT coalesce(max(id), 0) FROM chosen), count(*), coalesce(max(id), 0) FROM candidate`, replayChunk, replayBytes, sharedFrom, eventPartitionSize)
}

// reasonGone ends a request whose endpoint has gone meanwhile.
const reasonGone = "the endpoint no longer gets events"

// reasonDamaged ends a request of which an event cannot be read or stored.
const reasonDamaged = "one of its events cannot be read or stored: request the others again"

// replay works through requests until ctx ends, while this publisher is the
// one. How far each is is stored with what it appends, so that a restart goes
// on where it was.
func (p *Publisher) replay(ctx context.Context) {
	replays := retry.NewOutage("replays").Caller()
	for {
		wait, err := p.replayDue(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrFenced):
			replays.Abandoned(p.log) // another publisher does it
		case err != nil:
			replays.Failed(p.log, "append", replayPoll, err)
		default:
			replays.Answered(p.log)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-p.store.requested:
		}
	}
}

// replayDue does what is due, and says how long nothing will be.
func (p *Publisher) replayDue(ctx context.Context) (wait time.Duration, err error) {
	for {
		var id int64
		err := p.store.pool.QueryRow(ctx, dueRequestSQL).Scan(&id)
		if isNoRows(err) {
			break
		}
		if err != nil {
			return replayPoll, err
		}
		began := time.Now()
		worked, err := p.replayStep(ctx, id)
		if isReadFault(err) {
			// Without this the others would never have their turn.
			p.store.setAsideAgain(ctx, loopReplay, strconv.FormatInt(id, 10), 0, asideUnreadable, err)
			if _, err = p.store.pool.Exec(ctx, endRequestSQL, id, reasonDamaged); isDataFault(err) {
				err = nil // it stays open, and is left out
			}
			worked = true
		}
		if err != nil || !worked {
			return replayPoll, err
		}
		// Appends have at least half of the publisher's time.
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(min(time.Since(began), replayTimeout)):
		}
	}
	var next *time.Duration
	if err := p.store.pool.QueryRow(ctx, nextRequestSQL).Scan(&next); err != nil || next == nil {
		return replayPoll, err
	}
	return min(max(*next, 0), replayPoll), nil
}

// replayStep appends the next chunk of a request, unless this publisher is not
// the one. After an error it is not known whether it was stored; the request's
// cursor shows it, and the ids that it took are not given again.
func (p *Publisher) replayStep(ctx context.Context, id int64) (worked bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return false, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, replayTimeout, errors.New("send events again: timed out"))
	defer cancel()
	p.rotate(ctx)
	first := p.view.NextID
	p.view.NextID += replayChunk
	sent, position := int64(0), p.position
	err = p.transact(ctx, func(tx pgx.Tx) (err error) {
		if sent, err = replayTx(ctx, tx, id, first); err != nil || sent == 0 {
			return err
		}
		return tx.QueryRow(ctx, keepPositionSQL, p.position.first(p.epoch, p.view.NextID)...).Scan(&position.id, &position.at)
	})
	if err = rewound(err); errors.Is(err, ErrFenced) || errors.Is(err, errOutboxRewound) {
		p.live = false
	}
	if err != nil {
		return false, fmt.Errorf("send events of request %d again: %w", id, err)
	}
	p.position = position
	if sent > 0 {
		p.store.metrics.appended.Add(float64(sent))
		p.store.signalAppended(first + sent - 1)
	}
	return true, nil
}

func replayTx(ctx context.Context, tx pgx.Tx, id, first int64) (sent int64, err error) {
	var endpoint int64
	var rate float64
	var since *time.Time
	var ids []string
	var cursor, until, revision int64
	var gone bool
	err = tx.QueryRow(ctx, openRequestSQL, id).Scan(&endpoint, &since, &ids, &rate, &cursor, &until, &revision, &gone)
	if isNoRows(err) {
		return 0, nil // its endpoint is no more, or it is done
	}
	if err != nil {
		return 0, err
	}
	if gone {
		_, err := tx.Exec(ctx, moveRequestSQL, id, cursor, 0, time.Duration(0), true, reasonGone)
		return 0, err
	}
	if _, err = tx.Exec(ctx, ByIndexSQL); err != nil {
		return 0, err
	}
	most := min(max(int64(rate), 1), replayChunk)
	var chosen, wanted, upto, looked, last int64
	err = tx.QueryRow(ctx, replaySQL(ids != nil), endpoint, cursor, until, since, ids, most, first-1, revision).
		Scan(&sent, &chosen, &wanted, &upto, &looked, &last)
	if err != nil {
		return 0, err
	}
	if sent != chosen {
		// They are read in one snapshot: what is missing is a body that others share.
		return 0, &badItem{asideUnreadable, fmt.Sprintf("%d of %d events can be read", sent, chosen)}
	}
	done := false
	if chosen == wanted && wanted < replayChunk {
		upto, done = last, looked < replayLook // all that it looked at is passed
	}
	pause := time.Duration(float64(sent) / rate * float64(time.Second))
	_, err = tx.Exec(ctx, moveRequestSQL, id, max(cursor, upto), sent, pause, done, "")
	return sent, err
}
