package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

const (
	// dayChunk bounds one transaction that sends counts.
	dayChunk = 1000

	// dayIsLate is how long after its end a day is marked as late.
	dayIsLate = 15 * time.Minute
)

const (
	// The counts of a webhook that is gone go the same way, and are counted as
	// events without an endpoint.
	endedDaySQL = `
		SELECT r.endpoint, ` + dayTextSQL + `, r.began_at, r.ended_at, r.zone, coalesce(e.account, '')
		FROM walhook.daily_run r LEFT JOIN walhook.endpoint e ON e.id = r.endpoint
		WHERE r.sent_at IS NULL AND NOT EXISTS (
			SELECT FROM walhook.set_aside a WHERE a.loop = 'days' AND a.item = r.endpoint || ' ' || ` + dayTextSQL + `)
		ORDER BY r.day, r.endpoint LIMIT 1`

	// to_char has nothing for a day that is none, and refuses those that no
	// timestamp reaches.
	dayTextSQL = `CASE WHEN r.day BETWEEN '0001-01-01' AND '9999-12-31' THEN to_char(r.day, 'YYYY-MM-DD') ELSE r.day::text END`

	// Whether a day is late is decided once, by the first chunk of it.
	markDaySQL = `
		UPDATE walhook.daily_run SET late = coalesce(late, $3 - ended_at > $4::interval)
		WHERE endpoint = $1 AND day = $2::text::date RETURNING late`

	// What is deleted here is put into the inbox by the same transaction:
	// exactly once.
	sendDaySQL = `
		WITH chosen AS (
			SELECT period, account, kin FROM walhook.daily_count
			WHERE endpoint = $1 AND period < $2::text::date ORDER BY period, account, kin LIMIT $3),
		counted AS (
			DELETE FROM walhook.daily_count d USING chosen c
			WHERE d.endpoint = $1 AND (d.period, d.account, d.kin) = (c.period, c.account, c.kin) RETURNING d.*),
		put AS (
			INSERT INTO walhook.inbox (endpoint, account, webhook_id, record, schema, type, format, body)
			SELECT $1, $4, 'day_' || replace($2, '-', '') || '_' || $1 || '_' ||
					left(encode(sha256(convert_to(to_char(period, 'YYYYMMDD ') || account, 'UTF8') || kin), 'hex'), 24),
				'day/' || account, hook, type, format,
				head || convert_to(n::text, 'UTF8') || substring(tail FOR octet_length(tail) - 1) || $5::bytea || '}'::bytea
			FROM counted WHERE n <> 0 ORDER BY account, hook, type, kin)
		SELECT count(*) FROM counted`

	sentDaySQL = `UPDATE walhook.daily_run SET sent_at = clock_timestamp() WHERE endpoint = $1 AND day = $2::text::date`

	forgetDaysSQL = `DELETE FROM walhook.daily_run WHERE sent_at < clock_timestamp() - $1::interval`
)

// endedDay is a day whose counts have to be sent.
type endedDay struct {
	endpoint     int64
	day          string
	began, ended time.Time
	zone         string
	account      string
}

// sendDays puts what was counted on days that ended into the inbox, a chunk at
// a time.
func (p *Publisher) sendDays(ctx context.Context) error {
	for {
		more, err := p.sendDay(ctx)
		if err != nil || !more {
			return err
		}
	}
}

// sendDay sends a chunk of the oldest day that is not sent; false when there is
// none.
func (p *Publisher) sendDay(ctx context.Context) (more bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return false, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errors.New("send a day: timed out"))
	defer cancel()
	var d endedDay
	err = p.store.pool.QueryRow(ctx, endedDaySQL).Scan(&d.endpoint, &d.day, &d.began, &d.ended, &d.zone, &d.account)
	if isNoRows(err) {
		return false, nil
	}
	var now time.Time
	if err == nil {
		now, err = p.clock(ctx)
	}
	if err == nil {
		err = p.sendDayAt(ctx, d, now)
	}
	if isReadFault(err) && d.endpoint != 0 && p.store.setAsideAgain(ctx, loopDays, fmt.Sprintf("%d %s", d.endpoint, d.day), d.endpoint, asideUnstorable, err) {
		return true, nil
	}
	if err != nil {
		if err = fenceError(err); errors.Is(err, ErrFenced) {
			p.live = false
		}
		if d.endpoint == 0 {
			return false, fmt.Errorf("look for a day that ended: %w", err)
		}
		return false, fmt.Errorf("send the day %s of endpoint %d: %w", d.day, d.endpoint, err)
	}
	return true, nil
}

func (p *Publisher) sendDayAt(ctx context.Context, d endedDay, now time.Time) error {
	tx, err := p.store.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, assertEpochSQL, p.epoch); err != nil {
		return err
	}
	var late bool
	if err := tx.QueryRow(ctx, markDaySQL, d.endpoint, d.day, now, dayIsLate).Scan(&late); err != nil {
		return err
	}
	note := ""
	if late {
		note = d.note()
	}
	var n int
	if err := tx.QueryRow(ctx, sendDaySQL, d.endpoint, d.day, dayChunk, d.account, []byte(note)).Scan(&n); err != nil {
		return err
	}
	if n < dayChunk {
		if _, err := tx.Exec(ctx, sentDaySQL, d.endpoint, d.day); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	if n > 0 {
		p.log.Info("day ended, sending its counts", zap.Int64("endpoint", d.endpoint), zap.String("day", d.day), zap.Bool("late", late), zap.Int("counts", n))
		p.store.signalInbox()
	}
	return nil
}

// note is what a late body says besides: that it is, and which time it covers.
func (d endedDay) note() string {
	zone, err := time.LoadLocation(d.zone)
	if err != nil {
		zone = time.UTC
	}
	return fmt.Sprintf(`,"late":true,"period_start":"%s","period_end":"%s"`,
		d.began.In(zone).Format(time.RFC3339), d.ended.In(zone).Format(time.RFC3339))
}
