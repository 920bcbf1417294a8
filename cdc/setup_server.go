package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

// minServerVersion is the oldest server whose pgoutput carries logical
// messages.
const minServerVersion = 140000

const serverSQL = `
	SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_user::text,
		current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`

// server is what logical replication needs of a server.
type server struct {
	version        int
	walLevel, role string
	slots, senders int // as many as there may be
}

func readServer(ctx context.Context, q querier) (s server, err error) {
	if err := q.QueryRow(ctx, serverSQL).Scan(&s.version, &s.walLevel, &s.role, &s.slots, &s.senders); err != nil {
		return s, fmt.Errorf("look at the source's settings: %w", err)
	}
	return s, nil
}

// faults lists what keeps walhook from replicating from a server at all.
func (s server) faults() (faults []*Fault) {
	if s.version < minServerVersion {
		faults = append(faults, &Fault{check: checkVersion, Problem: fmt.Sprintf("the source is PostgreSQL %d", s.version/10000),
			Mend: "walhook needs 14 or newer"})
	}
	if s.walLevel != "logical" {
		faults = append(faults, &Fault{check: checkWALLevel,
			Problem: fmt.Sprintf("wal_level is %s on the source, logical replication needs logical", s.walLevel),
			Mend:    "run \"ALTER SYSTEM SET wal_level = 'logical'\" as a superuser and restart the server",
			steps:   doctor.Configure(source, "wal_level", "logical", true)})
	}
	const none, mend = "the source allows no replication slots or no WAL senders", "raise max_replication_slots and max_wal_senders and restart the server"
	if s.slots == 0 {
		faults = append(faults, &Fault{check: checkSlots, Problem: none, Mend: mend,
			steps: doctor.Configure(source, "max_replication_slots", "10", true)})
	}
	if s.senders == 0 {
		faults = append(faults, &Fault{check: checkSenders, Problem: none, Mend: mend,
			steps: doctor.Configure(source, "max_wal_senders", "10", true)})
	}
	return faults
}

// dropsDefaults says whether the server has the bug that [dropsDefaults] names.
func (s server) dropsDefaults() bool {
	return dropsDefaults(fmt.Sprintf("%d.%d", s.version/10000, s.version%10000))
}

// droppedDefaults is what that means, and what ends it.
const droppedDefaults = "this minor version of PostgreSQL sends old rows without the values of columns that were added later with a default (fixed in 15.6 and 16.2): " +
	"walhook takes such a value for not known where it is null"

// roleFault is why a session of the replication protocol is refused, if it is
// for want of the right.
func (s server) roleFault(err error) error {
	if sqlState(err) != codeInsufficientRights {
		return err
	}
	sql := fmt.Sprintf("ALTER ROLE %s REPLICATION", schemas.QuoteIdent(s.role))
	return &Fault{check: checkRole, Problem: fmt.Sprintf("role %s may not replicate", s.role),
		Mend: fmt.Sprintf("run %q as a superuser", sql), Err: err,
		steps: doctor.Steps{{Kind: doctor.SQL, On: source, Text: sql, Needs: doctor.Superuser,
			Note: "on hosted services what they grant in its place, such as GRANT rds_replication TO the role"}}}
}

func checkServer(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	s, err := readServer(ctx, conn)
	if err != nil {
		return err
	}
	if faults := s.faults(); len(faults) > 0 {
		return faults[0]
	}
	// Tried, not looked up: hosted services grant the right in ways of their
	// own.
	replication, err := cfg.connectReplication(ctx)
	if err != nil {
		return s.roleFault(err)
	}
	closeConn(ctx, replication)
	return nil
}
