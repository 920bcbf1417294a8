package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// minServerVersion is the oldest server whose pgoutput carries logical
// messages.
const minServerVersion = 140000

const serverSQL = `
	SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
		current_user::text,
		current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`

func checkServer(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	var version, slots, senders int
	var walLevel, role string
	if err := conn.QueryRow(ctx, serverSQL).Scan(&version, &walLevel, &role, &slots, &senders); err != nil {
		return fmt.Errorf("look at the source's settings: %w", err)
	}
	switch {
	case version < minServerVersion:
		return &Fault{Problem: fmt.Sprintf("the source is PostgreSQL %d", version/10000), Mend: "walhook needs 14 or newer"}
	case walLevel != "logical":
		return &Fault{Problem: fmt.Sprintf("wal_level is %s on the source, logical replication needs logical", walLevel),
			Mend: "run \"ALTER SYSTEM SET wal_level = 'logical'\" as a superuser and restart the server"}
	case slots == 0 || senders == 0:
		return &Fault{Problem: "the source allows no replication slots or no WAL senders",
			Mend: "raise max_replication_slots and max_wal_senders and restart the server"}
	}
	// Tried, not looked up: hosted services grant the right in ways of their
	// own.
	replication, err := cfg.connectReplication(ctx)
	if sqlState(err) == codeInsufficientRights {
		return &Fault{Problem: fmt.Sprintf("role %s may not replicate", role),
			Mend: fmt.Sprintf("run \"ALTER ROLE %s REPLICATION\" as a superuser", schemas.QuoteIdent(role)), Err: err}
	}
	if err != nil {
		return err
	}
	closeConn(ctx, replication)
	return nil
}
