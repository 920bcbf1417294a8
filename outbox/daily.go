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
	openDayIDsSQL = `SELECT endpoint FROM walhook.daily WHERE true`
	openDaysSQL   = `SELECT r.endpoint, ` + dayTextSQL + `, r.since FROM walhook.daily r WHERE r.endpoint = ANY ($1)`

	// A webhook that was daily before does not end a day twice.
	lastRunSQL = `SELECT coalesce(to_char(max(day), 'YYYY-MM-DD'), '') FROM walhook.daily_run WHERE endpoint = $1 AND day BETWEEN '0001-01-01' AND '9999-12-31'`

	openDaySQL = `
		INSERT INTO walhook.daily (endpoint, day, since) VALUES ($1, $2::text::date, $3)
		ON CONFLICT DO NOTHING`

	closeDaySQL = `DELETE FROM walhook.daily WHERE endpoint = $1`
)

// loadDays takes up the days of all webhooks, which were just read: those that became
// daily begin one, and those that are no longer daily, or no longer there, end theirs.
func (p *Publisher) loadDays(ctx context.Context, webhooks []*route.Endpoint) error {
	var ids []int64
	err := p.store.scan(ctx, p.loading, tableScan{table: "daily", id: "endpoint", sql: openDayIDsSQL,
		take: func(rows pgx.Rows) error {
			var id int64
			err := rows.Scan(&id)
			ids = append(ids, id)
			return err
		},
		mark:  func() func() { n := len(ids); return func() { ids = ids[:n] } },
		alone: func(_ string, cause error) error { return cause }, // its key cannot be read
	})
	if err != nil {
		return fmt.Errorf("read the open days: %w", err)
	}
	return p.takeDays(ctx, webhooks, ids)
}

// changeDays is loadDays for the webhooks that changed.
func (p *Publisher) changeDays(ctx context.Context, read *webhooksRead) error {
	var ids []int64
	wasDaily := func(account string, id int64) bool {
		w := p.view.Webhook(account, id)
		return w != nil && w.Day != nil
	}
	for _, w := range read.changed {
		if w.Subscription.Daily || wasDaily(w.Account, w.ID) {
			ids = append(ids, w.ID)
		}
	}
	for _, w := range read.gone {
		if wasDaily(w.Account, w.ID) {
			ids = append(ids, w.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return p.takeDays(ctx, read.changed, ids)
}

// takeDays takes up the days of webhooks; ids are those of all that may have a day.
func (p *Publisher) takeDays(ctx context.Context, webhooks []*route.Endpoint, ids []int64) error {
	open, err := p.openDays(ctx, ids)
	if err != nil {
		return fmt.Errorf("read the open days: %w", err)
	}
	var begin []*route.Endpoint
	for _, w := range webhooks {
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
	if len(begin) > 0 || len(open) > 0 {
		if err := p.turnDays(ctx, begin, open); err != nil {
			return fmt.Errorf("begin and end the days of webhooks that changed: %w", err)
		}
	}
	return nil
}

// openDays reads the days of these webhooks that are open. One that is no day begins
// again.
func (p *Publisher) openDays(ctx context.Context, ids []int64) (map[int64]route.DayEnd, error) {
	open := map[int64]route.DayEnd{}
	for part := range slices.Chunk(ids, scanRows) {
		err := isolate(part, isReadFault, func(ids []int64) error {
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
		if err != nil {
			return nil, err
		}
		p.loading.answered()
	}
	return open, nil
}

// calendarOf reads a webhook's daily settings. The API refuses those that
// cannot be read; where a zone is not known here, its days are UTC's.
func (p *Publisher) calendarOf(w *route.Endpoint) route.Calendar {
	of := calendarSettings{w.Subscription.DailyAt, w.Subscription.DailyZone}
	if c, known := p.calendars[of]; known {
		return c
	}
	c, err := route.NewCalendar(of.at, of.zone) // which reads a file
	if err != nil {
		p.log.Error("days of a webhook end at midnight UTC: its settings cannot be used", zap.Int64("endpoint", w.ID), zap.Error(err))
		return route.UTC()
	}
	if len(p.calendars) >= mostShared || p.calendars == nil {
		p.calendars = map[calendarSettings]route.Calendar{}
	}
	p.calendars[of] = c
	return c
}

type calendarSettings struct {
	at   time.Duration
	zone string
}

// turnsTogether is how many days one transaction begins or ends. The beginning of each asks
// the outbox once.
const turnsTogether = 200

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
	for part := range slices.Chunk(turns, turnsTogether) {
		err := isolate(part, isReadFault, func(part []func(*pgx.Batch) (int64, error)) error {
			b := &pgx.Batch{}
			for _, turn := range part {
				if _, err := turn(b); err != nil {
					return err
				}
			}
			return p.run(ctx, &transaction{fill: func(all *pgx.Batch) { all.QueuedQueries = append(all.QueuedQueries, b.QueuedQueries...) }})
		}, func(turn func(*pgx.Batch) (int64, error), cause error) error {
			id, _ := turn(&pgx.Batch{})
			p.store.setAside(ctx, loopDays, strconv.FormatInt(id, 10), id, asideUnstorable, cause)
			return nil
		})
		if err != nil {
			return err
		}
		p.loading.answered()
	}
	return nil
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
	bounded, cancel := p.within(ctx, besideTimeout, errBeside)
	err := p.followWebhooks(bounded) // nearly always all that it asks
	err = timedOut(bounded, err)
	cancel()
	if err != nil {
		return err
	}
	ctx, cancel = context.WithTimeoutCause(ctx, publishTimeout, errors.New("end days: timed out"))
	defer cancel()
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
	if len(plan.DayEnds) == 0 { // the webhook whose day was the next to end is gone
		p.view.Apply(plan)
		return nil
	}
	err = isolate(plan.DayEnds, isDataFault, func(ends []route.DayEnd) error {
		part := route.NewPlan(p.view)
		part.DayEnds = ends
		return p.commit(ctx, part)
	}, func(e route.DayEnd, cause error) error {
		p.store.setAside(ctx, loopDays, strconv.FormatInt(e.Endpoint, 10), e.Endpoint, asideUnstorable, cause)
		return nil
	})
	if err != nil {
		if replaced(err) {
			p.live = false
		}
		p.view.ForgetWebhooks() // some days may have ended
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

	forgetDaysSQL = `DELETE FROM walhook.daily_run WHERE sent_at < statement_timestamp() - $1::interval`
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
	err = p.beside(ctx, func(ctx context.Context) error {
		return p.store.pool.QueryRow(ctx, endedDaySQL).Scan(&d.endpoint, &d.day, &d.began, &d.ended, &d.zone, &d.account)
	})
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
		if replaced(err) {
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
	var late bool
	var n int
	err := p.transact(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, markDaySQL, d.endpoint, d.day, now, dayIsLate).Scan(&late); err != nil {
			return err
		}
		note := ""
		if late {
			note = d.note()
		}
		err := tx.QueryRow(ctx, sendDaySQL, d.endpoint, d.day, dayChunk, d.account, []byte(note)).Scan(&n)
		if err == nil && n < dayChunk {
			_, err = tx.Exec(ctx, sentDaySQL, d.endpoint, d.day)
		}
		return err
	})
	if err != nil {
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
