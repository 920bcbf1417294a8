package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// slotState is what the source says of the slot and the publication.
type slotState struct {
	exists      bool
	active      bool
	lost        bool
	lostBy      string              // pg_replication_slots.invalidation_reason; "" before PostgreSQL 17
	unlimited   bool                // max_slot_wal_keep_size is -1, now
	confirmed   schemas.LSN         // where the server goes on from
	publication uint32              // OID; 0 for none
	operations  bool                // and publishes every kind of change
	published   []schemas.TableName // of the catalog
	unpublished []schemas.TableName // of the catalog, though they exist and are logged
	walEnd      schemas.LSN
}

const (
	slotSQL = `
		SELECT active, coalesce(wal_status = 'lost', false), coalesce(plugin, ''), coalesce(database, ''),
			current_database()::text, coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),
			current_setting('max_slot_wal_keep_size') LIKE '-%'
		FROM pg_replication_slots s WHERE slot_name = $1`

	publicationOIDSQL = `SELECT coalesce((SELECT oid FROM pg_publication WHERE pubname = $1), 0)`

	operationsSQL = `
		SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND pubinsert AND pubupdate AND pubdelete AND pubtruncate)`

	walEndSQL = `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text`

	outboxPublishedSQL = `
		SELECT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = $1 AND schemaname = 'walhook')`

	// The tables of the catalog that exist and reach the WAL, and whether they
	// are in the publication.
	loggedTablesSQL = `
		SELECT n.nspname::text, c.relname::text, ` + isPublishedSQL + `
		FROM unnest($1::text[], $3::text[]) AS catalog (namespace, name)
		JOIN pg_namespace n ON n.nspname = catalog.namespace
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = catalog.name
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
			AND NOT (` + refusesFullSQL + ` AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))`

	// A partitioned table is published under its own name, or as its
	// partitions: then as many as there are, which may be none.
	isPublishedSQL = `(
		EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $2 AND t.schemaname = n.nspname AND t.tablename = c.relname)
		OR c.relkind = 'p' AND (
			EXISTS (SELECT FROM pg_partition_tree(c.oid) WHERE isleaf AND relid <> c.oid)
			OR EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $2 AND (p.puballtables
				OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))))
		AND NOT EXISTS (
			SELECT FROM pg_partition_tree(c.oid) leaf JOIN pg_class lc ON lc.oid = leaf.relid JOIN pg_namespace ln ON ln.oid = lc.relnamespace
			WHERE leaf.isleaf AND lc.relkind <> 'p' AND NOT EXISTS (
				SELECT FROM pg_publication_tables t WHERE t.pubname = $2 AND t.schemaname = ln.nspname AND t.tablename = lc.relname)))`
)

// whyLost says in words why the server gave the slot up (PostgreSQL manual,
// pg_replication_slots, invalidation_reason). Up to 16 the server names no reason:
// what is left to say is what its settings allow. In 16 every lost slot is called
// conflicting, whatever the reason.
func (s slotState) whyLost() string {
	switch s.lostBy {
	case "idle_timeout":
		return "nobody read it for longer than idle_replication_slot_timeout"
	case "rows_removed":
		return "rows of the catalog that it needs were removed (rows_removed), as on a standby without hot_standby_feedback"
	case "wal_level_insufficient":
		return "wal_level was lowered (wal_level_insufficient)"
	case "wal_removed":
		return "max_slot_wal_keep_size was exceeded" + s.unlimitedNow()
	case "":
		if s.unlimited {
			return "the log that it needs is gone, and this version of PostgreSQL does not say why; max_slot_wal_keep_size, which makes a server remove it, is -1 now"
		}
		return "max_slot_wal_keep_size was exceeded"
	}
	return s.lostBy
}

func (s slotState) unlimitedNow() string {
	if s.unlimited {
		return " (it is -1 now)"
	}
	return ""
}

// inspect reads the state of slot and publication. A [*Fault] says that one of
// them is not what it has to be.
func (r *catalogReader) inspect(ctx context.Context, cfg Config) (slotState, error) {
	var s slotState
	if err := r.inspectSlot(ctx, cfg, &s); err != nil {
		return s, err
	}
	if err := r.inspectPublication(ctx, cfg, &s); err != nil {
		return s, err
	}
	var err error
	s.walEnd, err = r.walEnd(ctx)
	return s, err
}

func (r *catalogReader) walEnd(ctx context.Context) (schemas.LSN, error) {
	var end string
	if err := r.conn.QueryRow(ctx, walEndSQL).Scan(&end); err != nil {
		return 0, fmt.Errorf("read the WAL's end: %w", err)
	}
	return schemas.ParseLSN(end)
}

func (r *catalogReader) inspectSlot(ctx context.Context, cfg Config, s *slotState) error {
	var plugin, database, ours, confirmed string
	err := r.conn.QueryRow(ctx, slotSQL, cfg.Slot).Scan(&s.active, &s.lost, &plugin, &database, &ours, &confirmed, &s.lostBy, &s.unlimited)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at slot %s: %w", cfg.Slot, err)
	}
	if plugin != "pgoutput" {
		return &Fault{check: checkSlot, Problem: fmt.Sprintf("slot %s exists and is no pgoutput slot", cfg.Slot),
			Mend: "choose another name with --slot"}
	}
	if database != ours {
		return &Fault{check: checkSlot, Problem: fmt.Sprintf("slot %s belongs to database %s, not to %s", cfg.Slot, database, ours),
			Mend: "correct --source, or choose another name with --slot"}
	}
	s.exists = true
	s.confirmed, err = schemas.ParseLSN(confirmed)
	return err
}

func (r *catalogReader) inspectPublication(ctx context.Context, cfg Config, s *slotState) error {
	var own bool
	for sql, answer := range map[string]any{
		publicationOIDSQL: &s.publication, operationsSQL: &s.operations, outboxPublishedSQL: &own,
	} {
		if err := r.conn.QueryRow(ctx, sql, cfg.Publication).Scan(answer); err != nil {
			return fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
		}
	}
	if own {
		return &Fault{
			check:   checkOutboxPublished,
			Problem: fmt.Sprintf("publication %s holds the outbox's own tables: every event would make another", cfg.Publication),
			Mend:    "publish only the catalog's tables, as 'walhook setup --dry-run' prints them",
		}
	}
	var err error
	s.published, s.unpublished, err = r.loggedTables(ctx, cfg)
	return err
}

// loggedTables tells the catalog's tables that are published from those that
// are not; those that do not exist or never reach the WAL are neither.
func (r *catalogReader) loggedTables(ctx context.Context, cfg Config) (published, unpublished []schemas.TableName, err error) {
	namespaces, names := tableNames(cfg.Catalog)
	rows, err := r.conn.Query(ctx, loggedTablesSQL, namespaces, cfg.Publication, names)
	if err == nil {
		var table schemas.TableName
		var in bool
		_, err = pgx.ForEachRow(rows, []any{&table.Namespace, &table.Name, &in}, func() error {
			if in {
				published = append(published, table)
			} else {
				unpublished = append(unpublished, table)
			}
			return nil
		})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
	}
	return published, unpublished, nil
}
