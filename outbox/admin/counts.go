package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// CountRange is a time of which the attempts of one endpoint are to be counted.
type CountRange struct {
	Endpoint int64
	From, To time.Time // From on, before To
}

// AttemptCount is how many attempts of a range began in one step of time.
type AttemptCount struct {
	Range             int // of the ranges that were asked for
	Step              int64
	Delivered, Failed int64
}

// countAttemptsSQL counts in each range from its end back, one range after the other,
// until it has read $4 rows. $5 is the step in seconds.
const countAttemptsSQL = `
	SELECT place - 1, step, count(*) FILTER (WHERE outcome = 'delivered'), count(*) FILTER (WHERE outcome <> 'delivered')
	FROM (
		SELECT w.place::int, a.outcome, floor(extract(epoch FROM a.at) / $5)::bigint AS step
		FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) WITH ORDINALITY AS w(endpoint, since, until, place)
		CROSS JOIN LATERAL (
			SELECT at, outcome FROM walhook.attempt a
			WHERE a.endpoint = w.endpoint AND a.at >= w.since AND a.at < w.until ORDER BY a.at DESC) a
		LIMIT $4) a
	GROUP BY place, step ORDER BY place, step DESC`

// CountAttempts counts the attempts of each range by steps since 1970, in the order of
// the ranges, and in each of them the newest step first. A step without any is left out.
// Once it has read most rows it ends: ended is then the range, and the step of it, that
// it did not count to its end; it did not look at the ranges behind that one. ended is
// nil when it has counted everything.
func (a *Admin) CountAttempts(ctx context.Context, ranges []CountRange, step time.Duration, most int64) (counts []AttemptCount, ended *AttemptCount, err error) {
	var endpoints []int64
	var since, until []time.Time
	for _, r := range ranges {
		endpoints, since, until = append(endpoints, r.Endpoint), append(since, r.From), append(until, r.To)
	}
	err = a.byIndex(ctx, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, countAttemptsSQL, endpoints, since, until, most, int64(step/time.Second)) // rows have its error
		counts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c AttemptCount, err error) {
			return c, row.Scan(&c.Range, &c.Step, &c.Delivered, &c.Failed)
		})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("count attempts: %w", err)
	}
	var read int64
	for _, c := range counts {
		read += c.Delivered + c.Failed
	}
	if read >= most {
		ended = &counts[len(counts)-1]
	}
	return counts, ended, nil
}

// OwnEndpoints are the endpoints of an account, the [KeptDeleted] that it deleted last
// included.
func (a *Admin) OwnEndpoints(ctx context.Context, account string) (endpoints []int64, err error) {
	if err := a.pool.QueryRow(ctx, ownEndpointsSQL, account, KeptDeleted).Scan(&endpoints); err != nil {
		return nil, fmt.Errorf("list the endpoints of account %s: %w", account, err)
	}
	return endpoints, nil
}
