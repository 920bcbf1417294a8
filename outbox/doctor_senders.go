package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

// staleAfter is how long a lease may be over before somebody should have ended
// it: any running sender does so within a lease.
const staleAfter = 30 * time.Second

const (
	staleSendersSQL = `
		SELECT s.name, extract(epoch FROM clock_timestamp() - s.lease_until)::float8, count(h.id)
		FROM walhook.sender s LEFT JOIN walhook.shard h ON h.sender = s.id
		WHERE s.lease_until < clock_timestamp() - $1::interval GROUP BY s.id ORDER BY s.id LIMIT 5`

	countSendersNowSQL = `
		SELECT count(*) FILTER (WHERE lease_until > clock_timestamp()), coalesce(string_agg(name, ', '), '') FROM walhook.sender`

	// It is run by whoever reads it, whose search_path may lead elsewhere.
	dropStaleSQL = `DELETE FROM walhook.sender WHERE lease_until OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '30 seconds'::pg_catalog.interval)`
)

// lookAtSenders tells of senders that ended without giving up what they held,
// and that nobody replaced.
func (e *examination) lookAtSenders(ctx context.Context) error {
	rows, err := e.s.Query(ctx, staleSendersSQL, staleAfter)
	if err != nil {
		return err
	}
	var name string
	var seconds float64
	var shards int
	_, err = pgx.ForEachRow(rows, []any{&name, &seconds, &shards}, func() error {
		e.r.Warn(checkSenders, doctor.Steps{{Kind: doctor.SQL, On: here, Text: dropStaleSQL, Note: "a new sender takes over by itself"}},
			"sender %s has disappeared: its lease expired %s ago and it still holds %s", name,
			(time.Duration(seconds * float64(time.Second))).Round(time.Second), doctor.Count(shards, "shard"))
		return nil
	})
	if err != nil {
		return err
	}
	var n int
	var names string
	if err := e.s.QueryRow(ctx, countSendersNowSQL).Scan(&n, &names); err != nil {
		return err
	}
	e.r.OK(checkSenders, "%d running %s", n, names)
	return nil
}

const shardsSQL = `
	SELECT count(*), count(*) FILTER (WHERE s.lease_until > clock_timestamp()),
		(SELECT count(*) FROM walhook.sender WHERE lease_until > clock_timestamp())
	FROM walhook.shard h LEFT JOIN walhook.sender s ON s.id = h.sender`

// secondLook is how long shards that are dealt out may be without an owner.
const secondLook = 3 * time.Second

// lookAtShards tells of shards that nobody sends from: while senders run, a
// moment's look may fall between two of them, so it looks twice; while none
// runs, it matters once something waits.
func (e *examination) lookAtShards(ctx context.Context) error {
	var shards, owned, senders int
	read := func() error { return e.s.QueryRow(ctx, shardsSQL).Scan(&shards, &owned, &senders) }
	if err := read(); err != nil {
		return err
	}
	if senders > 0 && owned < shards {
		select {
		case <-time.After(secondLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := read(); err != nil {
			return err
		}
	}
	var oldest float64
	err := e.s.QueryRow(ctx, oldestTailSQL, measureLog).Scan(&oldest)
	if err != nil && !isNoRows(err) {
		return err
	}
	waits := err == nil
	run := doctor.Run("walhook run --role sender")
	age := time.Duration(oldest * float64(time.Second)).Round(time.Second)
	switch {
	case shards != Shards:
		e.r.Fail(checkShards, doctor.Ask(here, "", fmt.Sprintf("INSERT INTO walhook.shard (id) SELECT pg_catalog.generate_series(0, %d) ON CONFLICT DO NOTHING", Shards-1)),
			"there are %d shards, want %d: the endpoints of missing shards get nothing", shards, Shards)
	case senders > 0 && owned < shards:
		e.r.Warn(checkShards, run, "%d of %d shards %s no owner though %s %s", shards-owned, shards, doctor.Choose(shards-owned, "has", "have"), doctor.Count(senders, "sender"), doctor.Choose(senders, "runs", "run"))
	case senders == 0 && waits:
		e.r.Warn(checkShards, run, "no sender runs, and events wait, the oldest has waited for %s", age)
	default:
		e.r.OK(checkShards, "%d of %d have an owner", owned, shards)
	}
	return nil
}
