package outbox

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// loadDays takes up the days of the webhooks that were just read: those that
// became daily begin one, and those that are no longer daily, or no longer
// there, end theirs.
func (p *Publisher) loadDays(ctx context.Context, webhooks map[string][]*route) (daily []*route, err error) {
	open, err := p.openDays(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the open days: %w", err)
	}
	var begin []*route
	for _, list := range webhooks {
		for _, w := range list {
			if !w.subscription.daily {
				continue
			}
			daily = append(daily, w)
			if e, known := open[w.endpoint]; known {
				w.day = newOpenDay(p.calendarOf(w), e.day, e.began)
				delete(open, w.endpoint)
			} else {
				begin = append(begin, w)
			}
		}
	}
	if len(begin) > 0 || len(open) > 0 {
		if err := p.turnDays(ctx, begin, open); err != nil {
			return nil, fmt.Errorf("begin and end the days of webhooks that changed: %w", err)
		}
	}
	return daily, nil
}

// openDays reads the days that are open. One that is no day begins again.
func (p *Publisher) openDays(ctx context.Context) (map[int64]dayEnd, error) {
	ids, err := collect[int64](p.store.pool.Query(ctx, openDayIDsSQL))
	if err != nil {
		return nil, err
	}
	open := map[int64]dayEnd{}
	err = isolate(ids, isReadFault, func(ids []int64) error {
		rows, err := p.store.pool.Query(ctx, openDaysSQL, ids)
		if err != nil {
			return err
		}
		var day string
		var e dayEnd
		_, err = pgx.ForEachRow(rows, []any{&e.endpoint, &day, &e.began}, func() (err error) {
			if e.day, err = parseDate(day); err != nil {
				return &badItem{asideUnreadable, "its open day is no day"}
			}
			open[e.endpoint] = e
			return nil
		})
		return err
	}, func(id int64, cause error) error {
		p.store.setAside(ctx, loopDays, strconv.FormatInt(id, 10), id, asideUnreadable, cause)
		return nil
	})
	return open, err
}

// calendarOf reads a webhook's daily settings. The API refuses those that
// cannot be read; where a zone is not known here, its days are UTC's.
func (p *Publisher) calendarOf(w *route) calendar {
	c, err := newCalendar(w.subscription.dailyAt, w.subscription.dailyZone)
	if err != nil {
		p.log.Error("days of a webhook end at midnight UTC: its settings cannot be used", zap.Int64("endpoint", w.endpoint), zap.Error(err))
		c = calendar{zone: time.UTC}
	}
	return c
}

// turnDays begins the day of webhooks that became daily, and ends the day of
// those that were, at the stored position.
func (p *Publisher) turnDays(ctx context.Context, begin []*route, ends map[int64]dayEnd) error {
	now, err := p.clock(ctx)
	if err != nil {
		return err
	}
	turns := make([]func(*pgx.Batch) (int64, error), 0, len(begin)+len(ends))
	for _, e := range ends {
		turns = append(turns, func(b *pgx.Batch) (int64, error) {
			e.day, e.ended, e.zone = e.day+1, now, "UTC"
			if now.Before(e.began) {
				e.ended = e.began // the clock was set back
			}
			e.queue(b)
			b.Queue(closeDaySQL, e.endpoint)
			return e.endpoint, nil
		})
	}
	for _, w := range begin {
		turns = append(turns, func(b *pgx.Batch) (int64, error) { return w.endpoint, p.queueBegin(ctx, b, w, now) })
	}
	return isolate(turns, isReadFault, func(part []func(*pgx.Batch) (int64, error)) error {
		b := &pgx.Batch{}
		for _, turn := range part {
			if _, err := turn(b); err != nil {
				return err
			}
		}
		return p.fencedTx(ctx, b)
	}, func(turn func(*pgx.Batch) (int64, error), cause error) error {
		id, _ := turn(&pgx.Batch{})
		p.store.setAside(ctx, loopDays, strconv.FormatInt(id, 10), id, asideUnstorable, cause)
		return nil
	})
}

// queueBegin begins the day of a webhook.
func (p *Publisher) queueBegin(ctx context.Context, b *pgx.Batch, w *route, now time.Time) error {
	c := p.calendarOf(w)
	last := c.ended(now)
	w.day = newOpenDay(c, last, now) // whatever becomes of the rest
	var text string
	if err := p.store.pool.QueryRow(ctx, lastRunSQL, w.endpoint).Scan(&text); err != nil {
		return err
	}
	if run, err := parseDate(text); err == nil {
		last = max(last, run)
	}
	w.day = newOpenDay(c, last, now)
	b.Queue(openDaySQL, w.endpoint, last.String(), now)
	return nil
}

// fencedTx runs statements in one transaction of this publisher's epoch.
func (p *Publisher) fencedTx(ctx context.Context, statements *pgx.Batch) error {
	return p.store.run(ctx, transaction{
		fence: func(b *pgx.Batch) { b.Queue(assertEpochSQL, p.epoch) },
		fill:  func(b *pgx.Batch) { b.QueuedQueries = append(b.QueuedQueries, statements.QueuedQueries...) },
	})
}
