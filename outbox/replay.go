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
		SELECT id FROM walhook.request r WHERE done_at IS NULL AND next_at <= statement_timestamp()
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

	forgetRequestsSQL = `DELETE FROM walhook.request WHERE done_at < statement_timestamp() - $1::interval`
)

// CandidatesSQL are the events of an endpoint that a request may be about: those of the event
// log, each at its first row there, and dead letters that the event log no longer holds.
// Of them those are wanted that were asked for and are delivered or dead. The newest row of a
// webhook-id stands for it; a row after $3 is a copy made since the request, so it is not wanted.
// The bound on how many are looked at is part of the text, so that the plan knows it; it holds
// for both, and what lies beyond where either of them came to its end is left for later.
//
// $1 endpoint, $2 cursor, $3 until, $4 since, $5 ids.
func CandidatesSQL(limit int, byIDs bool) string {
	if byIDs {
		return fmt.Sprintf(namedRowsSQL+wantedSQL, limit)
	}
	return fmt.Sprintf(rangeRowsSQL+wantedSQL, limit, firstRowSQL)
}

// walkSQL are the candidates in the order of their originals. A copy without its original is
// not among them: [replayOrder] has it.
func walkSQL(limit int) string { return fmt.Sprintf(rangeRowsSQL+wantedSQL, limit, "NOT replayed") }

const (
	// firstRowSQL is true of an original, and of the oldest copy where retention dropped it.
	firstRowSQL = `(NOT replayed OR (SELECT 1 FROM walhook.event o WHERE o.webhook_id = c.webhook_id AND o.endpoint = $1 AND o.id < c.at LIMIT 1) IS NULL)`

	// In the order of $5, of each id the newest row.
	namedRowsSQL = `
	named AS (SELECT webhook_id, min(place) AS at FROM unnest($5::text[]) WITH ORDINALITY AS u(webhook_id, place) GROUP BY webhook_id),
	candidate AS (
		SELECT n.at, c.*, $4::timestamptz IS NULL OR c.committed_at >= $4 AS asked FROM named n CROSS JOIN LATERAL (
			SELECT * FROM (
				SELECT e.id, true AS logged, e.replayed, e.webhook_id, e.committed_at, ` + SizeSQL + ` AS size
				FROM walhook.event e WHERE e.webhook_id = n.webhook_id AND e.endpoint = $1 ORDER BY e.id DESC LIMIT 1) e
			UNION ALL
			SELECT * FROM (
				SELECT d.event_id AS id, false AS logged, false AS replayed, d.webhook_id, d.committed_at, d.size
				FROM walhook.dead_letter d WHERE d.webhook_id = n.webhook_id AND d.endpoint = $1
				AND d.body IS NOT NULL AND d.reason <> 'unreadable' ORDER BY d.event_id DESC LIMIT 1) d
			WHERE (SELECT 1 FROM walhook.event e WHERE e.id = d.id LIMIT 1) IS NULL) c
		WHERE n.at > $2 AND c.id <= $3 ORDER BY n.at LIMIT %[1]d),`

	wantedSQL = `
	standing AS (
		SELECT c.at, coalesce(n.id, c.id) AS id, n.id IS NOT NULL AS logged, c.size
		FROM candidate c LEFT JOIN LATERAL (
			SELECT n.id FROM walhook.event n WHERE n.webhook_id = c.webhook_id AND n.endpoint = $1 ORDER BY n.id DESC LIMIT 1) n ON true
		WHERE c.asked AND (c.logged OR n.id IS NULL)),
	wanted AS (
		SELECT s.* FROM standing s
		WHERE s.id <= $3 AND (NOT logged
			OR (SELECT 1 FROM walhook.attempt a WHERE a.endpoint = $1 AND a.event_id = s.id AND a.outcome = 'delivered' LIMIT 1) IS NOT NULL
			OR (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = $1 AND d.event_id = s.id LIMIT 1) IS NOT NULL))`
)

var rangeRowsSQL = `
	logged AS (
		SELECT e.id, true AS logged, e.replayed, e.webhook_id, e.committed_at, ` + SizeSQL + ` AS size FROM walhook.event e
		WHERE ` + OfEndpointSQL("(SELECT $1::bigint)", "(SELECT $2::bigint)", "(SELECT $3::bigint)") + ` ORDER BY e.endpoint, e.id LIMIT (SELECT %[1]d)),
	died AS (
		SELECT d.event_id AS id, false AS logged, false AS replayed, d.webhook_id, d.committed_at, d.size FROM walhook.dead_letter d
		WHERE d.endpoint = $1 AND d.event_id > $2 AND d.event_id <= $3 AND d.body IS NOT NULL AND d.reason <> 'unreadable'
		ORDER BY d.event_id LIMIT %[1]d),
	candidate AS (
		SELECT c.*, ($4::timestamptz IS NULL OR c.committed_at >= $4) AND $5::text[] IS NULL AND (NOT logged OR %[2]s) AS asked
		FROM (
			SELECT id AS at, * FROM logged
			UNION ALL
			SELECT id AS at, * FROM died d WHERE (SELECT 1 FROM walhook.event e WHERE e.id = d.id LIMIT 1) IS NULL) c
		WHERE c.at <= least((SELECT max(id) FROM logged HAVING count(*) = %[1]d), (SELECT max(id) FROM died HAVING count(*) = %[1]d), $3)
		ORDER BY at LIMIT %[1]d),`

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
func replaySQL(candidates string) string {
	return `
		WITH ` + candidates + fmt.Sprintf(`,
		next AS (
			SELECT at, id, logged, row_number() OVER (ORDER BY at) AS place, sum(size) OVER (ORDER BY at) AS bytes
			FROM (SELECT * FROM wanted ORDER BY at LIMIT %[1]d) w),
		chosen AS (SELECT * FROM next WHERE place <= $6 AND (place = 1 OR bytes <= %[2]d)),
		source AS (
			SELECT e.place, e.record, e.webhook_id, e.schema, e.type, e.format, e.committed_at, e.account,
				CASE WHEN shared THEN '' ELSE `+BodySQL+` END AS body,
				CASE WHEN shared THEN coalesce(e.body_of, e.id) END AS body_of, CASE WHEN shared THEN `+SizeSQL+` END AS body_size
			FROM (SELECT c.place, e.*, `+SizeSQL+` >= %[3]d AND coalesce(e.body_of, e.id) / %[4]d = ($7::bigint + c.place) / %[4]d AS shared
				FROM chosen c JOIN walhook.event e ON c.logged AND e.id = c.id) e
			UNION ALL
			SELECT c.place, d.record, d.webhook_id, d.schema, d.type, d.format, d.committed_at, d.account, d.body, NULL, NULL
			FROM chosen c JOIN walhook.dead_letter d ON NOT c.logged AND d.endpoint = $1 AND d.event_id = c.id),
		appended AS (
			INSERT INTO walhook.event (`+eventColumns+`, replayed)
			SELECT $7::bigint + place, $1, $8, record, webhook_id, schema, type, committed_at, clock_timestamp(), format, body, body_of, body_size, account, true
			FROM source
			RETURNING id),
		raised AS (DELETE FROM walhook.dead_letter d USING chosen c WHERE d.endpoint = $1 AND d.event_id = c.id)
		SELECT (SELECT count(*) FROM appended), (SELECT count(*) FROM chosen), (SELECT count(*) FROM next),
			(SELECT coalesce(max(at), 0) FROM chosen), count(*), coalesce(max(at), 0) FROM candidate`, replayChunk, replayBytes, sharedFrom, eventPartitionSize)
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
			signal(p.resyncAsked) // it may be one of these
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
	if err := p.forgetReplayOrders(ctx); err != nil {
		return replayPoll, err
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
	ctx, cancel := context.WithTimeoutCause(ctx, replayTimeout, errors.New("send events again: timed out"))
	defer cancel()
	// The order is read before the lock: appends of changes do not wait for it.
	order, err := p.replayOrderOf(ctx, id)
	if err != nil {
		return false, fmt.Errorf("order the events of request %d: %w", id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return false, nil
	}
	if order.timeline != p.timeline.token {
		delete(p.replayOrders, id)
		return true, nil // the request may be another one: list its events again
	}
	p.rotate(ctx)
	first := p.view.NextID
	p.view.NextID += replayChunk
	var step replayed
	position := p.position
	err = p.transact(ctx, func(tx pgx.Tx) (err error) {
		if step, err = replayTx(ctx, tx, id, first, order); err != nil || step.sent == 0 {
			return err
		}
		return tx.QueryRow(ctx, keepPositionSQL, p.position.first(p.epoch, p.view.NextID)...).Scan(&position.id, &position.at)
	})
	if err = rewound(err); replaced(err) {
		p.live = false
	}
	if err != nil || step.done {
		delete(p.replayOrders, id)
	}
	if err != nil {
		return false, fmt.Errorf("send events of request %d again: %w", id, err)
	}
	p.position = position
	order.left, order.walk = order.left[step.passed:], max(order.walk, step.walk)
	if step.sent > 0 {
		p.store.metrics.appended.Add(float64(step.sent))
		p.store.signalAppended(first + step.sent - 1)
	}
	return true, nil
}

// replayed is what one step of a request did.
type replayed struct {
	sent   int64
	passed int   // of the order
	walk   int64 // how far it went in the event log; 0 for nowhere
	done   bool  // nothing is left of the request
}

// replayTx appends the next of what the order has left, and then of the walk through the log.
func replayTx(ctx context.Context, tx pgx.Tx, id, first int64, order *replayOrder) (step replayed, err error) {
	var r openRequest
	var revision int64
	var gone bool
	err = tx.QueryRow(ctx, openRequestSQL, id).Scan(&r.endpoint, &r.since, &r.ids, &r.rate, &r.cursor, &r.until, &revision, &gone)
	if isNoRows(err) {
		return replayed{done: true}, nil // its endpoint is no more, or it is done
	}
	if err != nil {
		return step, err
	}
	if gone {
		_, err := tx.Exec(ctx, moveRequestSQL, id, r.cursor, 0, time.Duration(0), true, reasonGone)
		return replayed{done: true}, err
	}
	if _, err = tx.Exec(ctx, ByIndexSQL); err != nil {
		return step, err
	}
	text, from, listed := walkSQL(replayLook), order.walk, []string(nil)
	if r.ids != nil || len(order.left) > 0 {
		listed = order.left[:min(len(order.left), replayLook)]
		text, from = CandidatesSQL(replayLook, true), 0
	}
	most := min(max(int64(r.rate), 1), replayChunk)
	var chosen, wanted, upto, looked, last int64
	err = tx.QueryRow(ctx, replaySQL(text), r.endpoint, from, r.until, r.since, listed, most, first-1, revision).
		Scan(&step.sent, &chosen, &wanted, &upto, &looked, &last)
	if err != nil {
		return step, err
	}
	if step.sent != chosen {
		// They are read in one snapshot: what is missing is a body that others share.
		return step, &badItem{asideUnreadable, fmt.Sprintf("%d of %d events can be read", step.sent, chosen)}
	}
	cursor := r.cursor
	all := chosen == wanted && wanted < replayChunk // all that it looked at is passed
	switch {
	case listed == nil:
		if all {
			upto, step.done = last, looked < replayLook
		}
		step.walk = upto
	case all:
		step.passed = len(listed)
		step.done = r.ids != nil && len(listed) == len(order.left)
	default:
		step.passed = int(upto)
	}
	if step.sent > 0 {
		cursor = -(first - 1 + step.sent) // its last copy: see replayOrder
	} else if cursor >= 0 {
		cursor = max(cursor, step.walk)
	}
	pause := time.Duration(float64(step.sent) / r.rate * float64(time.Second))
	_, err = tx.Exec(ctx, moveRequestSQL, id, cursor, step.sent, pause, step.done, "")
	return step, err
}
