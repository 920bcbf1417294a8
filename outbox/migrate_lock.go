package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/tern/v2/migrate"

	"walhook/internal/pgsession"
)

// A migration changes tables that a running process writes to, and whoever
// waits for such a lock makes all others wait behind it. So it waits for less
// time than an append may take, lets the others go on, and tries again.
const (
	migrateLockTimeout = 2 * time.Second
	migratePause       = time.Second
	migrateTries       = 20
)

const (
	// Who holds a lock on a table of the outbox, the oldest transaction first.
	lockHoldersSQL = `
		SELECT DISTINCT ON (a.xact_start, a.pid) format('pid %s (%s, for %s s)', a.pid, coalesce(nullif(a.application_name, ''), a.usename),
			round(extract(epoch FROM clock_timestamp() - a.xact_start)))
		FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation
		WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND c.relnamespace = 'walhook'::regnamespace AND l.granted AND a.pid <> pg_backend_pid()
		ORDER BY a.xact_start, a.pid LIMIT 5`
)

// migrating are the settings of a session that migrates: every wait for a lock
// is bounded, and nothing else is.
func migrating() []pgsession.Setting {
	settings := append(pinned(0), pgsession.Setting{Name: "search_path", Value: pgsession.Path, List: true}, pgsession.Setting{Name: "jit", Value: "off"})
	for i := range settings {
		if settings[i].Name == "lock_timeout" {
			settings[i].Value = milliseconds(migrateLockTimeout)
		}
	}
	return settings
}

func connectToMigrate(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if err := adapt(&config.Config, "walhook setup", migrating()); err != nil {
		return nil, err
	}
	return pgsession.ConnectConfig(ctx, config)
}

// migrateAll runs what migrations are missing, each in a transaction of its own.
func migrateAll(ctx context.Context, conn *pgx.Conn, migrator *migrate.Migrator) error {
	for try := 1; ; try++ {
		err := migrator.Migrate(ctx)
		fault, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || fault.Code != lockNotAvailable && fault.Code != deadlockDetected {
			return err
		}
		if try == migrateTries {
			return fmt.Errorf("%w; these transactions lock tables of the outbox, end them and try again: %s", err, lockHolders(ctx, conn))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(migratePause):
		}
	}
}

// SQLSTATEs, PostgreSQL appendix A.
const (
	lockNotAvailable = "55P03"
	deadlockDetected = "40P01"
)

func lockHolders(ctx context.Context, conn *pgx.Conn) string {
	rows, err := conn.Query(ctx, lockHoldersSQL)
	if err == nil {
		var holders []string
		if holders, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil && len(holders) > 0 {
			return strings.Join(holders, ", ")
		}
	}
	return "not known"
}
