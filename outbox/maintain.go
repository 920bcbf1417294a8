package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

// maintainEvery is how often partitions are made ahead and old ones dropped.
const maintainEvery = 10 * time.Minute

// Maintain makes partitions ahead of their use and drops those whose contents
// are older than retention, until ctx ends. Any number of processes may run
// it; one at a time works. A fault is logged and tried again: the partitions
// ahead are there to give it time.
func (s *Store) Maintain(ctx context.Context) error {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		if err := s.maintainOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("maintenance of the outbox did not finish, it is tried again",
				zap.Duration("retry_in", maintainEvery), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Store) maintainOnce(ctx context.Context) error {
	if err := s.makePartitions(ctx); err != nil {
		return err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var mine bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", retentionLock).Scan(&mine); err != nil || !mine {
		return err
	}
	defer func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", retentionLock); err != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx)) // the lock goes with its session
		}
	}()
	return s.retain(ctx, conn)
}

// retentionLock lets one process at a time drop what is too old.
const retentionLock = 0x77_61_6c_03

const (
	// An event partition may go when its newest event is too old and nothing
	// in it is still to be delivered.
	eventPartitionsSQL = `
		SELECT c.relname, coalesce(substring(c.relname FROM '\d+$')::bigint, -1), i.inhdetachpending
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'walhook.event'::regclass ORDER BY 2`

	dailyPartitionsSQL = `
		SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') + 1, i.inhdetachpending
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = ('walhook.' || $1)::regclass ORDER BY 2`

	newestEventSQL = `SELECT appended_at FROM walhook.event WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT 1`
	oldestEventSQL = `SELECT appended_at FROM walhook.event ORDER BY id LIMIT 1`

	undeliveredBelowSQL = `
		SELECT EXISTS (SELECT FROM walhook.shard WHERE tail < $1)
			OR EXISTS (SELECT FROM walhook.lane WHERE behind AND cursor < $1)
			OR EXISTS (SELECT FROM walhook.retry WHERE event_id < $1)`

	newestPositionSQL = `SELECT stored_at FROM walhook.position ORDER BY id DESC LIMIT 1`

	forgetDeletedSQL = `DELETE FROM walhook.owner WHERE deleted_at < clock_timestamp() - $1::interval`
)

// retain drops the partitions that are past retention. A partition of the log
// with something undelivered stays, and so do the attempts that tell what of
// it was delivered.
func (s *Store) retain(ctx context.Context, conn *pgxpool.Conn) error {
	if err := s.dropEventPartitions(ctx, conn); err != nil {
		return err
	}
	cutoff := time.Now().Add(-s.cfg.Retention)
	var oldest, position time.Time
	if err := conn.QueryRow(ctx, oldestEventSQL).Scan(&oldest); err == nil && oldest.Before(cutoff) {
		cutoff = oldest
	} else if err != nil && !isNoRows(err) {
		return err
	}
	err := conn.QueryRow(ctx, newestPositionSQL).Scan(&position)
	if err != nil && !isNoRows(err) {
		return err
	}
	for _, table := range dailyTables() {
		limit := cutoff
		if table == "position" && position.Before(limit) {
			limit = position // the newest position is never dropped
		}
		if err := s.dropDailyPartitions(ctx, conn, table, limit); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, forgetDeletedSQL, s.cfg.Retention)
	return err
}

func (s *Store) dropEventPartitions(ctx context.Context, conn *pgxpool.Conn) error {
	var nextID int64
	if err := conn.QueryRow(ctx, currentEventIDSQL).Scan(&nextID); err != nil {
		return err
	}
	type partition struct {
		name    string
		number  int64
		pending bool
	}
	rows, err := conn.Query(ctx, eventPartitionsSQL)
	if err != nil {
		return err
	}
	partitions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p partition, err error) {
		return p, row.Scan(&p.name, &p.number, &p.pending)
	})
	if err != nil {
		return err
	}
	for _, p := range partitions {
		if p.number >= eventPartition(nextID) {
			break
		}
		from, to := p.number*eventPartitionSize, (p.number+1)*eventPartitionSize
		var newest time.Time
		err := conn.QueryRow(ctx, newestEventSQL, from, to).Scan(&newest)
		if err != nil && !isNoRows(err) {
			return err
		}
		if time.Since(newest) < s.cfg.Retention {
			break
		}
		var undelivered bool
		if err := conn.QueryRow(ctx, undeliveredBelowSQL, to-1).Scan(&undelivered); err != nil {
			return err
		}
		if undelivered {
			s.log.Warn("a partition of the log is past retention and kept: not all of it is delivered",
				zap.String("partition", p.name), zap.Time("newest", newest))
			break
		}
		if err := s.dropPartition(ctx, conn, "event", p.name, p.pending); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dropDailyPartitions(ctx context.Context, conn *pgxpool.Conn, table string, cutoff time.Time) error {
	rows, err := conn.Query(ctx, dailyPartitionsSQL, table)
	if err != nil {
		return err
	}
	var name string
	var end time.Time
	var pending bool
	drop := map[string]bool{}
	_, err = pgx.ForEachRow(rows, []any{&name, &end, &pending}, func() error {
		if end.Before(cutoff) {
			drop[name] = pending
		}
		return nil
	})
	for name, pending := range drop {
		if err == nil {
			err = s.dropPartition(ctx, conn, table, name, pending)
		}
	}
	return err
}

// dropPartition detaches concurrently, which no append waits for, and drops
// what is then a table of its own. An interrupted detach is finished first.
func (s *Store) dropPartition(ctx context.Context, conn *pgxpool.Conn, table, name string, pending bool) error {
	how := "CONCURRENTLY"
	if pending {
		how = "FINALIZE"
	}
	for _, sql := range []string{
		"SET lock_timeout = '2s'",
		fmt.Sprintf("ALTER TABLE walhook.%s DETACH PARTITION walhook.%s %s", table, name, how),
		fmt.Sprintf("DROP TABLE walhook.%s", name),
		"RESET lock_timeout",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("drop partition %s: %w", name, err)
		}
	}
	s.log.Info("partition dropped", zap.String("partition", name))
	return nil
}
