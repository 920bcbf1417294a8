package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

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
	openDayIDsSQL = `SELECT endpoint FROM walhook.daily`
	openDaysSQL   = `SELECT r.endpoint, ` + dayTextSQL + `, r.since FROM walhook.daily r WHERE r.endpoint = ANY ($1)`

	// A webhook that was daily before does not end a day twice.
	lastRunSQL = `SELECT coalesce(to_char(max(day), 'YYYY-MM-DD'), '') FROM walhook.daily_run WHERE endpoint = $1 AND day BETWEEN '0001-01-01' AND '9999-12-31'`

	openDaySQL = `
		INSERT INTO walhook.daily (endpoint, day, since) VALUES ($1, $2::text::date, $3)
		ON CONFLICT DO NOTHING`

	endDaySQL = `
		INSERT INTO walhook.daily_run (endpoint, day, began_at, ended_at, zone, commit_lsn, ordinal)
		SELECT $1, $2::text::date, least($3::timestamptz, $4), $4, $5, coalesce($6::text::pg_lsn, p.commit_lsn, '0/0'), coalesce($7, p.ordinal, 0)
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
	for i := r.part.first; i < r.part.end; i++ {
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
	err = isolate(p.takeEnds(at, schemas.Position{}), isDataFault, func(ends []dayEnd) error {
		b := &pgx.Batch{}
		for _, e := range ends {
			e.queue(b)
		}
		return p.fencedTx(ctx, b)
	}, func(e dayEnd, cause error) error {
		p.store.setAside(ctx, loopDays, strconv.FormatInt(e.endpoint, 10), e.endpoint, asideUnstorable, cause)
		return nil
	})
	if err != nil {
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
