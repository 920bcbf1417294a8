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
	"walhook/migrations"
)

// ErrNotSetUp says that the database holds no outbox, or an older one than
// this binary needs.
var ErrNotSetUp = errors.New("the outbox is not set up")

// ErrTooNew says that a newer walhook migrated this outbox.
var ErrTooNew = errors.New("the outbox is newer than this walhook")

// migrateLock lets one process at a time migrate.
const migrateLock = 0x77_61_6c_04

// However long another one takes.
const migrateTurnSQL = `
	SELECT pg_advisory_lock($1) FROM set_config('lock_timeout', '0', true)`

const versionIdentitySQL = `
	DO $$ BEGIN
		IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = '` + migrations.VersionTable + `'::pg_catalog.regclass AND relreplident = 'd') THEN
			ALTER TABLE ` + migrations.VersionTable + ` REPLICA IDENTITY FULL;
		END IF;
	END $$`

// Migrate creates the outbox in the database of url or brings it up to date.
// Any number may run at once: the first does the work, the others wait for it.
func Migrate(ctx context.Context, url string) error {
	conn, err := connectToMigrate(ctx, url)
	if err != nil {
		return err
	}
	defer pgsession.Close(ctx, conn)
	// The lock goes with the connection. tern's own comes too late for the schema.
	if _, err := conn.Exec(ctx, migrateTurnSQL, migrateLock); err != nil {
		return fmt.Errorf("wait for another migration: %w", err)
	}
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS walhook"); err != nil {
		return fmt.Errorf("create schema walhook: %w", err)
	}
	migrator, err := loadMigrator(ctx, conn)
	if err != nil {
		return err
	}
	if err := checkNotNewer(ctx, migrator); err != nil {
		return err
	}
	if err := migrateAll(ctx, conn, migrator); err != nil {
		return fmt.Errorf("migrate outbox: %w", err)
	}
	if err := pgsession.Set(ctx, conn.PgConn(), migrating()); err != nil {
		return err
	}
	if err := normalizeHolds(ctx, conn); err != nil {
		return fmt.Errorf("migrate outbox: %w", err)
	}
	return makePartitions(ctx, conn, 0)
}

// CheckMigrated says whether the outbox is there and at this binary's version:
// nil, [ErrNotSetUp] or [ErrTooNew].
func (s *Store) CheckMigrated(ctx context.Context) error {
	var exists bool
	const sql = "SELECT to_regclass($1) IS NOT NULL"
	if err := s.pool.QueryRow(ctx, sql, migrations.VersionTable).Scan(&exists); err != nil {
		return fmt.Errorf("find the outbox: %w", err)
	}
	if !exists {
		return ErrNotSetUp
	}
	var version int32
	if err := s.pool.QueryRow(ctx, "SELECT version FROM "+migrations.VersionTable).Scan(&version); err != nil {
		return fmt.Errorf("read the outbox's version: %w", err)
	}
	latest, err := latestVersion()
	if err != nil {
		return err
	}
	switch {
	case version < latest:
		return fmt.Errorf("%w: it is at version %d, this walhook needs %d", ErrNotSetUp, version, latest)
	case version > latest:
		return tooNew(version, latest)
	}
	return nil
}

func tooNew(version, latest int32) error {
	return fmt.Errorf("%w: it is at version %d, this one supports up to %d", ErrTooNew, version, latest)
}

func loadMigrator(ctx context.Context, conn *pgx.Conn) (*migrate.Migrator, error) {
	migrator, err := migrate.NewMigrator(ctx, conn, migrations.VersionTable)
	if err != nil {
		return nil, fmt.Errorf("prepare migrations: %w", err)
	}
	// Its table has no key: where all tables of the database are published, by
	// whomever, it could not be updated.
	if _, err := conn.Exec(ctx, versionIdentitySQL); err != nil {
		return nil, fmt.Errorf("prepare migrations: %w", err)
	}
	// tern resets all settings after each migration.
	migrator.OnStart = func(int32, string, string, string) { _ = pgsession.Set(ctx, conn.PgConn(), migrating()) }
	if err := migrator.LoadMigrations(migrations.Files); err != nil {
		return nil, fmt.Errorf("load migrations: %w", err)
	}
	return migrator, nil
}

func checkNotNewer(ctx context.Context, migrator *migrate.Migrator) error {
	version, err := migrator.GetCurrentVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the outbox's version: %w", err)
	}
	if latest := int32(len(migrator.Migrations)); version > latest {
		return tooNew(version, latest)
	}
	return nil
}

// latestVersion counts the migrations; tern numbers them without gaps.
func latestVersion() (int32, error) {
	paths, err := migrate.FindMigrations(migrations.Files)
	if err != nil {
		return 0, fmt.Errorf("load migrations: %w", err)
	}
	return int32(len(paths)), nil
}

// Drop removes the outbox and all that is in it.
func Drop(ctx context.Context, url string) error {
	conn, err := connectToMigrate(ctx, url)
	if err != nil {
		return err
	}
	defer pgsession.Close(ctx, conn)
	// It waits as long as it takes.
	if _, err := conn.Exec(ctx, "SET lock_timeout = 0"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS walhook CASCADE"); err != nil {
		return fmt.Errorf("drop schema walhook: %w", err)
	}
	return nil
}

// A migration changes tables that a running process writes to, and what
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
