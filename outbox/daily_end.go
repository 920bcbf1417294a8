package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
)

// A day ends at a place of the log, and whatever comes before counts for it:
//
//   - before the first change that was committed at or after its end, while the
//     publisher appends that change. So days that were missed are told apart
//     when the log of them is read;
//   - or, where there is none, at the stored position once all that the source
//     had committed before its end is stored.
//
// Both ask the outbox's clock too: a time stamp from the future ends nothing.
// So what a day counts depends on the log alone, however late it is read.
// The row in daily_run decides, and is written under the publisher's epoch.
const (
	openDaysSQL = `SELECT endpoint, to_char(day, 'YYYY-MM-DD'), since FROM walhook.daily`

	// A webhook that was daily before does not end a day twice.
	lastRunSQL = `SELECT coalesce(to_char(max(day), 'YYYY-MM-DD'), '') FROM walhook.daily_run WHERE endpoint = $1`

	openDaySQL = `
		INSERT INTO walhook.daily (endpoint, day, since) VALUES ($1, $2::text::date, $3)
		ON CONFLICT DO NOTHING`

	endDaySQL = `
		INSERT INTO walhook.daily_run (endpoint, day, began_at, ended_at, zone, commit_lsn, ordinal)
		SELECT $1, $2::text::date, $3, $4, $5, coalesce($6::text::pg_lsn, p.commit_lsn, '0/0'), coalesce($7, p.ordinal, 0)
		FROM (SELECT) AS one LEFT JOIN (SELECT commit_lsn, ordinal FROM walhook.position ORDER BY id DESC LIMIT 1) AS p ON true
		ON CONFLICT DO NOTHING`

	nextDaySQL = `UPDATE walhook.daily SET day = $2::text::date, since = $3 WHERE endpoint = $1`

	closeDaySQL = `DELETE FROM walhook.daily WHERE endpoint = $1`
)

// daySettles is how much further than its end the log has to be stored before a
// day ends without a change that says so: a commit is in the log a little after
// its time stamp was taken.
const daySettles = 2 * time.Second

// dayEnd is a day that ends. position is the last of it; zero is the stored one.
type dayEnd struct {
	endpoint     int64
	day          date
	began, ended time.Time
	zone         string
	position     schemas.Position
}

func (e dayEnd) queue(b *pgx.Batch) {
	var commit *string
	var ordinal *int64
	if e.position != (schemas.Position{}) {
		commit, ordinal = new(e.position.Commit.String()), &e.position.Ordinal
	}
	b.Queue(endDaySQL, e.endpoint, e.day.String(), e.began, e.ended, e.zone, commit, ordinal)
	b.Queue(nextDaySQL, e.endpoint, e.day.String(), e.ended)
}

// loadDays takes up the days of the webhooks that were just read: those that
// became daily begin one, and those that are no longer daily, or no longer
// there, end theirs.
func (p *Publisher) loadDays(ctx context.Context, webhooks map[string][]*route) (daily []*route, err error) {
	open := map[int64]dayEnd{}
	rows, err := p.store.pool.Query(ctx, openDaysSQL)
	var day string
	var e dayEnd
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&e.endpoint, &day, &e.began}, func() (err error) {
			e.day, err = parseDate(day)
			open[e.endpoint] = e
			return err
		})
	}
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
	b := &pgx.Batch{}
	for _, e := range ends {
		e.day, e.ended, e.zone = e.day+1, now, "UTC"
		if now.Before(e.began) {
			e.ended = e.began // the clock was set back
		}
		e.queue(b)
		b.Queue(closeDaySQL, e.endpoint)
	}
	for _, w := range begin {
		var text string
		if err := p.store.pool.QueryRow(ctx, lastRunSQL, w.endpoint).Scan(&text); err != nil {
			return err
		}
		c := p.calendarOf(w)
		last := c.ended(now)
		if text != "" {
			run, err := parseDate(text)
			if err != nil {
				return err
			}
			last = max(last, run)
		}
		w.day = newOpenDay(c, last, now)
		b.Queue(openDaySQL, w.endpoint, last.String(), now)
	}
	return p.fencedTx(ctx, b)
}

// fencedTx runs statements in one transaction of this publisher's epoch.
func (p *Publisher) fencedTx(ctx context.Context, statements *pgx.Batch) error {
	return p.store.batchTx(ctx, func(b *pgx.Batch) {
		b.Queue(assertEpochSQL, p.epoch)
		b.QueuedQueries = append(b.QueuedQueries, statements.QueuedQueries...)
	}, nil)
}

func (p *Publisher) findNextEnd() {
	p.nextEnd = time.Time{}
	for _, w := range p.daily {
		if p.nextEnd.IsZero() || w.day.ends.Before(p.nextEnd) {
			p.nextEnd = w.day.ends
		}
	}
}

// lookAtClock learns what time it is, where the batch may end a day.
func (r *router) lookAtClock(ctx context.Context) (err error) {
	if r.p.nextEnd.IsZero() {
		return nil
	}
	for i := range r.changes {
		if !r.changes[i].CommittedAt.Before(r.p.nextEnd) {
			r.now, err = r.p.clock(ctx)
			return err
		}
	}
	return nil
}

// endDays ends, before the i-th change, the days that it is past.
func (r *router) endDays(i int) {
	at := r.changes[i].CommittedAt
	if r.now.Before(at) {
		at = r.now
	}
	if r.p.nextEnd.IsZero() || at.Before(r.p.nextEnd) {
		return
	}
	var last schemas.Position
	if i > 0 {
		last = r.changes[i-1].Position
	}
	r.dayEnds = append(r.dayEnds, r.p.takeEnds(at, last)...)
}

// maxDayEnds bounds how many days end at one stroke. What is left, of an outbox
// that was away for years, ends with the next.
const maxDayEnds = 10_000

// takeEnds makes the days that have ended at an instant the past.
func (p *Publisher) takeEnds(at time.Time, last schemas.Position) []dayEnd {
	var ends []dayEnd
	for _, w := range p.daily {
		for d := w.day; !at.Before(d.ends) && len(ends) < maxDayEnds; d.end() {
			ends = append(ends, dayEnd{w.endpoint, d.day, d.since, d.ends, d.calendar.zone.String(), last})
		}
	}
	p.findNextEnd()
	return ends
}

// endReachedDays ends the days that are past where no change said so.
func (p *Publisher) endReachedDays(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errors.New("end days: no answer in time"))
	defer cancel()
	if err := p.followWebhooks(ctx); err != nil {
		return err
	}
	at := p.reached.at().Add(-daySettles)
	if p.nextEnd.IsZero() || at.Before(p.nextEnd) {
		return nil
	}
	now, err := p.clock(ctx)
	if err != nil {
		return err
	}
	if now.Before(at) {
		at = now
	}
	b := &pgx.Batch{}
	for _, e := range p.takeEnds(at, schemas.Position{}) {
		e.queue(b)
	}
	if err := p.fencedTx(ctx, b); err != nil {
		if errors.Is(err, ErrFenced) {
			p.live = false
		}
		p.version = unknownVersion // it is not known whether they ended
		return fmt.Errorf("end days: %w", err)
	}
	return nil
}

// outboxClock reads the outbox's clock.
func (s *Store) outboxClock(ctx context.Context) (now time.Time, err error) {
	if err := s.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return now, fmt.Errorf("read the outbox's clock: %w", err)
	}
	return now, nil
}

func parseDate(text string) (date, error) {
	t, err := time.Parse(time.DateOnly, text)
	return dateOf(t.Date()), err
}
