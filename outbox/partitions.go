package outbox

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

func (s *Store) dropEventPartitions(ctx context.Context, conn *pgxpool.Conn) error {
	var nextID int64
	if err := conn.QueryRow(ctx, currentEventIDSQL).Scan(&nextID); err != nil {
		return err
	}
	partitions, err := partitionsOf(ctx, conn, "event")
	if err != nil {
		return err
	}
	for _, p := range partitions {
		number, err := strconv.ParseInt(p.suffix, 10, 64)
		if err != nil {
			s.setAside(ctx, loopMaintain, p.name, 0, asideUnreadable, &badItem{asideUnreadable, "table looks like a partition by its name, and is none"})
			continue
		}
		if number >= eventPartition(nextID) {
			break
		}
		from, to := number*eventPartitionSize, (number+1)*eventPartitionSize
		var newest time.Time
		err = conn.QueryRow(ctx, newestEventSQL, from, to).Scan(&newest)
		if err != nil && !isNoRows(err) {
			return err
		}
		if time.Since(newest) < s.cfg.Retention {
			break
		}
		if err := s.expireBefore(ctx, to); err != nil {
			return err
		}
		if err := s.dropPartition(ctx, conn, "event", p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dropDailyPartitions(ctx context.Context, conn *pgxpool.Conn, table string, cutoff time.Time) error {
	partitions, err := partitionsOf(ctx, conn, table)
	if err != nil {
		return err
	}
	for _, p := range partitions {
		day, err := time.Parse(dayFormat, p.suffix)
		if err != nil {
			s.setAside(ctx, loopMaintain, p.name, 0, asideUnreadable, &badItem{asideUnreadable, "table looks like a partition by its name, and is none"})
			continue
		}
		if !day.AddDate(0, 0, 1).Before(cutoff) {
			break
		}
		if err := s.dropPartition(ctx, conn, table, p); err != nil {
			return err
		}
	}
	return nil
}

// partition is one part of a table.
type partition struct {
	name   string
	suffix string // its number or day
	detach string // how; "" when it is detached already
}

func partitionsOf(ctx context.Context, conn *pgxpool.Conn, table string) ([]partition, error) {
	rows, err := conn.Query(ctx, partitionsSQL, table)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p partition, err error) {
		return p, row.Scan(&p.name, &p.suffix, &p.detach)
	})
}

// dropPartition detaches concurrently, which no append waits for, and drops
// what is then a table of its own. What was interrupted is finished.
func (s *Store) dropPartition(ctx context.Context, conn *pgxpool.Conn, table string, p partition) error {
	if p.detach != "" {
		detach := fmt.Sprintf("ALTER TABLE walhook.%s DETACH PARTITION walhook.%s %s", table, p.name, p.detach)
		if _, err := conn.Exec(ctx, detach); err != nil {
			return fmt.Errorf("detach partition %s: %w", p.name, err)
		}
	}
	if _, err := conn.Exec(ctx, "DROP TABLE walhook."+p.name); err != nil {
		return fmt.Errorf("drop partition %s: %w", p.name, err)
	}
	s.log.Info("partition dropped", zap.String("partition", p.name))
	return nil
}

// eventPartitionSize is the number of ids that one partition of the event log holds.
// The publisher leaves a partition early when it is old enough.
const eventPartitionSize = 1 << 24

// partitionsAhead is how many partitions exist beyond the one in use.
const partitionsAhead = 2

// partitionLock lets one process at a time change partitions.
const partitionLock = 0x77_61_6c_02

// dailyTables are partitioned by day (UTC); what they are partitioned by is
// the time stamp of the row.
func dailyTables() []string { return []string{"position", "attempt", "dead_letter", "unrouted"} }

// dayFormat is how a daily partition's name ends.
const dayFormat = "20060102"

func eventPartition(id int64) int64 { return id / eventPartitionSize }

const currentEventIDSQL = `SELECT coalesce((SELECT next_event_id FROM walhook.position ORDER BY id DESC LIMIT 1), 1)`

// MakePartitions makes the partitions in use and the next ones, where they are
// missing: before anything is appended, and ahead of their use.
func (s *Store) MakePartitions(ctx context.Context) error { return s.makePartitions(ctx, 0) }

// makePartitions makes those for events from an id on, where that is beyond what is stored.
func (s *Store) makePartitions(ctx context.Context, from int64) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return makePartitions(ctx, conn.Conn(), from)
}

// makePartitions makes the partitions in use and the next ones, where they are
// missing; events may continue at the id from, beyond what is stored. Attaching takes no lock that an append would wait for, and a lock
// that cannot be had soon is given up, so that nothing queues behind it.
func makePartitions(ctx context.Context, conn *pgx.Conn, from int64) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", partitionLock); err != nil {
			return fmt.Errorf("create partitions: another process is doing it: %w", err)
		}
		var now time.Time
		if err := tx.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
			return err
		}
		var nextID int64
		if err := tx.QueryRow(ctx, currentEventIDSQL).Scan(&nextID); err != nil {
			return fmt.Errorf("create partitions: %w", err)
		}
		current := eventPartition(max(nextID, from))
		for n := current; n <= current+partitionsAhead; n++ {
			low, end := n*eventPartitionSize, (n+1)*eventPartitionSize
			if err := makePartitionTx(ctx, tx, "event", fmt.Sprintf("event_%06d", n), fmt.Sprint(low), fmt.Sprint(end)); err != nil {
				return err
			}
		}
		for _, table := range dailyTables() {
			for ahead := range partitionsAhead + 1 {
				day := now.UTC().AddDate(0, 0, ahead)
				from, to := day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)
				name := table + "_" + day.Format(dayFormat)
				if err := makePartitionTx(ctx, tx, table, name, "'"+from+" 00:00+00'", "'"+to+" 00:00+00'"); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// makePartitionTx creates and attaches one partition. All its arguments are
// made here, from table names, numbers and dates.
func makePartitionTx(ctx context.Context, tx pgx.Tx, table, name, from, to string) error {
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", "walhook."+name).Scan(&exists); err != nil {
		return err
	}
	if exists {
		return nil
	}
	// Without a key a table of a database all of whose tables are published, by
	// whomever, could not be updated.
	var keyless bool
	if err := tx.QueryRow(ctx, "SELECT relreplident = 'f' FROM pg_class WHERE oid = $1::regclass", "walhook."+table).Scan(&keyless); err != nil {
		return err
	}
	create := fmt.Sprintf("CREATE TABLE walhook.%s (LIKE walhook.%s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)", name, table)
	attach := fmt.Sprintf("ALTER TABLE walhook.%s ATTACH PARTITION walhook.%s FOR VALUES FROM (%s) TO (%s)", table, name, from, to)
	statements := []string{create, attach}
	if keyless {
		statements = append(statements, fmt.Sprintf("ALTER TABLE walhook.%s REPLICA IDENTITY FULL", name))
	}
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("create partition %s: %w", name, err)
		}
	}
	return nil
}
