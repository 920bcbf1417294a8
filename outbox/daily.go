package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
)

const (
	openDayIDsSQL = `SELECT endpoint FROM walhook.daily`
	openDaysSQL   = `SELECT r.endpoint, ` + dayTextSQL + `, r.since FROM walhook.daily r WHERE r.endpoint = ANY ($1)`

	// A webhook that was daily before does not end a day twice.
	lastRunSQL = `SELECT coalesce(to_char(max(day), 'YYYY-MM-DD'), '') FROM walhook.daily_run WHERE endpoint = $1 AND day BETWEEN '0001-01-01' AND '9999-12-31'`

	openDaySQL = `
		INSERT INTO walhook.daily (endpoint, day, since) VALUES ($1, $2::text::date, $3)
		ON CONFLICT DO NOTHING`

	closeDaySQL = `DELETE FROM walhook.daily WHERE endpoint = $1`
)

// loadDays takes up the days of the webhooks that were just read: those that
// became daily begin one, and those that are no longer daily, or no longer
// there, end theirs.
func (p *Publisher) loadDays(ctx context.Context, webhooks map[string][]*route.Endpoint) error {
	open, err := p.openDays(ctx)
	if err != nil {
		return fmt.Errorf("read the open days: %w", err)
	}
	var begin []*route.Endpoint
	for _, list := range webhooks {
		for _, w := range list {
			if !w.Subscription.Daily {
				continue
			}
			if e, known := open[w.ID]; known {
				w.Day = route.NewOpenDay(p.calendarOf(w), e.Day, e.Began)
				delete(open, w.ID)
			} else {
				begin = append(begin, w)
			}
		}
	}
	if len(begin) > 0 || len(open) > 0 {
		if err := p.turnDays(ctx, begin, open); err != nil {
			return fmt.Errorf("begin and end the days of webhooks that changed: %w", err)
		}
	}
	return nil
}

// openDays reads the days that are open. One that is no day begins again.
func (p *Publisher) openDays(ctx context.Context) (map[int64]route.DayEnd, error) {
	ids, err := collect[int64](p.store.pool.Query(ctx, openDayIDsSQL))
	if err != nil {
		return nil, err
	}
	open := map[int64]route.DayEnd{}
	err = isolate(ids, isReadFault, func(ids []int64) error {
		rows, err := p.store.pool.Query(ctx, openDaysSQL, ids)
		if err != nil {
			return err
		}
		var day string
		var e route.DayEnd
		_, err = pgx.ForEachRow(rows, []any{&e.Endpoint, &day, &e.Began}, func() (err error) {
			if e.Day, err = route.ParseDate(day); err != nil {
				return &badItem{asideUnreadable, "its open day is not a date"}
			}
			open[e.Endpoint] = e
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
func (p *Publisher) calendarOf(w *route.Endpoint) route.Calendar {
	c, err := route.NewCalendar(w.Subscription.DailyAt, w.Subscription.DailyZone)
	if err != nil {
		p.log.Error("days of a webhook end at midnight UTC: its settings cannot be used", zap.Int64("endpoint", w.ID), zap.Error(err))
		c = route.UTC()
	}
	return c
}

// turnDays begins the day of webhooks that became daily, and ends the day of
// those that were, at the stored position.
func (p *Publisher) turnDays(ctx context.Context, begin []*route.Endpoint, ends map[int64]route.DayEnd) error {
	now, err := p.clock(ctx)
	if err != nil {
		return err
	}
	turns := make([]func(*pgx.Batch) (int64, error), 0, len(begin)+len(ends))
	for _, e := range ends {
		turns = append(turns, func(b *pgx.Batch) (int64, error) {
			e.Day, e.Ended, e.Zone = e.Day+1, now, "UTC"
			if now.Before(e.Began) {
				e.Ended = e.Began // the clock was set back
			}
			queueDayEnd(b, e)
			b.Queue(closeDaySQL, e.Endpoint)
			return e.Endpoint, nil
		})
	}
	for _, w := range begin {
		turns = append(turns, func(b *pgx.Batch) (int64, error) { return w.ID, p.queueBegin(ctx, b, w, now) })
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
func (p *Publisher) queueBegin(ctx context.Context, b *pgx.Batch, w *route.Endpoint, now time.Time) error {
	c := p.calendarOf(w)
	last := c.Ended(now)
	w.Day = route.NewOpenDay(c, last, now) // whatever becomes of the rest
	var text string
	if err := p.store.pool.QueryRow(ctx, lastRunSQL, w.ID).Scan(&text); err != nil {
		return err
	}
	if run, err := route.ParseDate(text); err == nil {
		last = max(last, run)
	}
	w.Day = route.NewOpenDay(c, last, now)
	b.Queue(openDaySQL, w.ID, last.String(), now)
	return nil
}

// fencedTx runs statements in one transaction of this publisher's epoch.
func (p *Publisher) fencedTx(ctx context.Context, statements *pgx.Batch) error {
	return p.store.run(ctx, &transaction{
		fence: func(b *pgx.Batch) { b.Queue(assertEpochSQL, p.epoch) },
		fill:  func(b *pgx.Batch) { b.QueuedQueries = append(b.QueuedQueries, statements.QueuedQueries...) },
	})
}

// daySettles is how much further than its end the WAL has to be stored before a
// day ends without a change that says so: a commit is in the WAL a little after
// its time stamp was taken.
const daySettles = 2 * time.Second

// endReachedDays ends the days that are past where no change said so.
func (p *Publisher) endReachedDays(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errors.New("end days: timed out"))
	defer cancel()
	if err := p.followWebhooks(ctx); err != nil {
		return err
	}
	at := p.watermark.at().Add(-daySettles)
	if next := p.view.NextEnd(); next.IsZero() || at.Before(next) {
		return nil
	}
	now, err := p.clock(ctx)
	if err != nil {
		return err
	}
	if now.Before(at) {
		at = now
	}
	plan := route.EndDays(p.view, at)
	err = isolate(plan.DayEnds, isDataFault, func(ends []route.DayEnd) error {
		part := route.NewPlan(p.view)
		part.DayEnds = ends
		return p.commit(ctx, part)
	}, func(e route.DayEnd, cause error) error {
		p.store.setAside(ctx, loopDays, strconv.FormatInt(e.Endpoint, 10), e.Endpoint, asideUnstorable, cause)
		return nil
	})
	if err != nil {
		if errors.Is(err, ErrFenced) {
			p.live = false
		}
		p.view.WebhooksVersion = route.UnknownVersion // some may have ended
		return fmt.Errorf("end days: %w", err)
	}
	p.view.Apply(plan)
	return nil
}

// outboxClock reads the outbox's clock.
func (s *Store) outboxClock(ctx context.Context) (now time.Time, err error) {
	if err := s.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return now, fmt.Errorf("read the outbox's clock: %w", err)
	}
	return now, nil
}

const writeSumsSQL = `
	INSERT INTO walhook.daily_count AS d (endpoint, period, account, kin, hook, type, format, n, head, tail)
	SELECT * FROM unnest($1::bigint[], $2::text[]::date[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bytea[], $10::bytea[])
	ON CONFLICT (endpoint, period, account, kin) DO UPDATE SET n = d.n + excluded.n, head = excluded.head, tail = excluded.tail`

func queueSums(b *pgx.Batch, sums map[route.SumKey]*route.Sum) {
	if len(sums) == 0 {
		return
	}
	var endpoints, numbers []int64
	var periods, accounts, hooks, types, formats []string
	var groups, heads, tails [][]byte
	for k, d := range sums {
		endpoints, periods, accounts = append(endpoints, k.Endpoint), append(periods, k.Period.String()), append(accounts, k.Account)
		groups, hooks, types = append(groups, slices.Clone(k.Group[:])), append(hooks, d.Hook), append(types, d.Type)
		formats = append(formats, d.Format)
		numbers, heads, tails = append(numbers, d.N), append(heads, d.Head), append(tails, d.Tail)
	}
	b.Queue(writeSumsSQL, endpoints, periods, accounts, groups, hooks, types, formats, numbers, heads, tails)
}

const (
	endDaySQL = `
		INSERT INTO walhook.daily_run (endpoint, day, began_at, ended_at, zone, commit_lsn, ordinal)
		SELECT $1, $2::text::date, least($3::timestamptz, $4), $4, $5, coalesce($6::text::pg_lsn, p.commit_lsn, '0/0'), coalesce($7, p.ordinal, 0)
		FROM (SELECT) AS one LEFT JOIN (SELECT commit_lsn, ordinal FROM walhook.position ORDER BY id DESC LIMIT 1) AS p ON true
		ON CONFLICT DO NOTHING`

	nextDaySQL = `UPDATE walhook.daily SET day = $2::text::date, since = $3 WHERE endpoint = $1`
)

// queueDayEnd ends a day. The row in daily_run decides, and is written under the
// publisher's epoch.
func queueDayEnd(b *pgx.Batch, e route.DayEnd) {
	var commit *string
	var ordinal *int64
	if e.Position != (schemas.Position{}) {
		commit, ordinal = new(e.Position.Commit.String()), &e.Position.Ordinal
	}
	b.Queue(endDaySQL, e.Endpoint, e.Day.String(), e.Began, e.Ended, e.Zone, commit, ordinal)
	b.Queue(nextDaySQL, e.Endpoint, e.Day.String(), e.Ended)
}
