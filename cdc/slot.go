package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/schemas"
)

// tellBlockersAfter is how long making a slot may take before those who hold
// it up are named.
const tellBlockersAfter = 3 * time.Second

// blockersSQL names whom a backend waits for. A role without rights sees no
// more of others than this. A prepared transaction has no backend: its is 0.
const blockersSQL = `
	SELECT string_agg(name, ', ') FROM (
		SELECT format('pid %s (%s, transaction since %s)', pid, coalesce(nullif(application_name, ''), usename, 'no name'),
			coalesce(xact_start::timestamptz(0)::text, 'unknown')) AS name
		FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1))
		UNION ALL
		SELECT format('prepared transaction %L (since %s)', gid, prepared::timestamptz(0))
		FROM pg_prepared_xacts WHERE 0 = ANY (pg_blocking_pids($1))
	) AS blocker`

// createSlot makes the slot and exports its snapshot, which lives as long as
// conn sends no other command.
func createSlot(ctx context.Context, cfg Config, conn *pgconn.PgConn, source *catalogReader, log *zap.Logger) (schemas.LSN, string, error) {
	sql := fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT", cfg.slotIdent())
	if pgsession.Major(conn) >= 17 {
		// The slot is kept on a standby that synchronises slots, so that it
		// survives a failover.
		sql = fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)", cfg.slotIdent())
	}
	type outcome struct {
		result pglogrepl.CreateReplicationSlotResult
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		result, err := pglogrepl.ParseCreateReplicationSlot(conn.Exec(ctx, sql))
		done <- outcome{result, err}
	}()
	tell := time.NewTicker(tellBlockersAfter)
	defer tell.Stop()
	for {
		select {
		case o := <-done:
			if o.err != nil {
				return 0, "", slotFault(cfg, o.err)
			}
			point, err := schemas.ParseLSN(o.result.ConsistentPoint)
			return point, o.result.SnapshotName, err
		case <-tell.C:
			var blockers *string
			if err := source.conn.QueryRow(ctx, blockersSQL, conn.PID()).Scan(&blockers); err == nil && blockers != nil {
				log.Info("making the slot waits for running transactions", zap.String("slot", cfg.Slot), zap.String("blockers", *blockers))
			}
		}
	}
}

func slotFault(cfg Config, err error) error {
	switch sqlState(err) {
	case codeInsufficientRights:
		return &Fault{Problem: "the source's role may not make replication slots", Mend: "as a superuser: ALTER ROLE … REPLICATION", Err: err}
	case codeConfigurationLimit:
		return &Fault{Problem: "the source has no free replication slot",
			Mend: "drop one that nobody uses (pg_replication_slots), or raise max_replication_slots and restart", Err: err}
	}
	return fmt.Errorf("make slot %s: %w", cfg.Slot, err)
}
