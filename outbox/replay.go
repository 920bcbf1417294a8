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
	replayTimeout = 4 * time.Second
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

// replaySQL appends the next of what is wanted; what is appended and what leaves
// the dead letters is one. It answers how many it appended, chose and could have
// chosen, how far the chosen go, how many it looked at, and how far those go.
//
// A large body is not copied but carried by the event that carries it already,
// as far as that is in the same partition: however often somebody asks for it,
// the log grows by short rows. A dead letter's body moves.
//
// $6 most events to append, $7 the id before their first, $8 the revision.
func replaySQL(byIDs bool) string {
	return `
		WITH ` + candidatesSQL(replayLook, byIDs) + fmt.Sprintf(`,
		next AS (
			SELECT id, logged, row_number() OVER (ORDER BY id) AS place, sum(size) OVER (ORDER BY id) AS bytes
			FROM (SELECT * FROM wanted ORDER BY id LIMIT %[1]d) w),
		chosen AS (SELECT * FROM next WHERE place <= $6 AND (place = 1 OR bytes <= %[2]d)),
		source AS (
			SELECT e.place, e.record, e.webhook_id, e.schema, e.type, e.format, e.committed_at,
				CASE WHEN shared THEN '' ELSE `+bodySQL+` END AS body,
				CASE WHEN shared THEN coalesce(e.body_of, e.id) END AS body_of, CASE WHEN shared THEN `+sizeSQL+` END AS body_size
			FROM (SELECT c.place, e.*, `+sizeSQL+` >= %[3]d AND coalesce(e.body_of, e.id) / %[4]d = ($7::bigint + c.place) / %[4]d AS shared
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
// cursor tells, and the ids that it took are not given again.
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
	sent := int64(0)
	err = p.transact(ctx, func(tx pgx.Tx) (err error) {
		if sent, err = replayTx(ctx, tx, id, first); err != nil || sent == 0 {
			return err
		}
		_, err = tx.Exec(ctx, keepPositionSQL, p.epoch, p.view.NextID)
		return err
	})
	if errors.Is(err, ErrFenced) {
		p.live = false
	}
	if err != nil {
		return false, fmt.Errorf("send events of request %d again: %w", id, err)
	}
	if sent > 0 {
		p.store.metrics.appended.Add(float64(sent))
		p.store.signalAppended()
	}
	return true, nil
}

func replayTx(ctx context.Context, tx pgx.Tx, id, first int64) (sent int64, err error) {
	var r Request
	var since *time.Time
	var ids []string
	var cursor, until, revision int64
	var gone bool
	err = tx.QueryRow(ctx, openRequestSQL, id).Scan(&r.Endpoint, &since, &ids, &r.Rate, &cursor, &until, &revision, &gone)
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
	if _, err = tx.Exec(ctx, byIndexSQL); err != nil {
		return 0, err
	}
	most := min(max(int64(r.Rate), 1), replayChunk)
	var chosen, wanted, upto, looked, last int64
	err = tx.QueryRow(ctx, replaySQL(ids != nil), r.Endpoint, cursor, until, since, ids, most, first-1, revision).
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
	pause := time.Duration(float64(sent) / r.Rate * float64(time.Second))
	_, err = tx.Exec(ctx, moveRequestSQL, id, max(cursor, upto), sent, pause, done, "")
	return sent, err
}
