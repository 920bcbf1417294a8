package source

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/schemas"
)

// SlotState is the state of the slot and the publication.
type SlotState struct {
	Exists      bool
	Active      bool
	Lost        bool
	lostBy      string              // pg_replication_slots.invalidation_reason; "" before PostgreSQL 17
	unlimited   bool                // max_slot_wal_keep_size is -1 now
	Confirmed   schemas.LSN         // where the server continues
	publication uint32              // OID; 0 for none
	operations  bool                // it publishes every kind of change
	published   []schemas.TableName // of the catalog
	unpublished []schemas.TableName // of the catalog: they exist and are logged
	members     published           // by which rows they are published
	WALEnd      schemas.LSN
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

	// A partitioned table is published under its own name, or as its partitions, of
	// which there may be none.
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

// whyLost says in words why the server invalidated the slot (PostgreSQL manual,
// pg_replication_slots, invalidation_reason). Up to 16 the server shows no reason, so
// whyLost names those that its settings allow. 16 shows every lost slot as conflicting.
func (s SlotState) whyLost() string {
	switch s.lostBy {
	case "idle_timeout":
		return "it was idle for longer than idle_replication_slot_timeout"
	case "rows_removed":
		return "rows of the catalog that it needs were removed (rows_removed), as on a standby without hot_standby_feedback"
	case "wal_level_insufficient":
		return "wal_level was lowered (wal_level_insufficient)"
	case "wal_removed":
		return "max_slot_wal_keep_size was exceeded" + s.unlimitedNow()
	case "":
		if s.unlimited {
			return "the WAL that it needs is gone, and this version of PostgreSQL does not say why; max_slot_wal_keep_size, which can cause that, is now -1"
		}
		return "max_slot_wal_keep_size was exceeded"
	}
	return s.lostBy
}

func (s SlotState) unlimitedNow() string {
	if s.unlimited {
		return " (it is now -1)"
	}
	return ""
}

// Inspect reads the state of slot and publication. It returns a [*Fault] if one of them
// is not usable.
func (r *Introspector) Inspect(ctx context.Context, cfg Config) (SlotState, error) {
	var s SlotState
	if err := r.inspectSlot(ctx, cfg, &s); err != nil {
		return s, err
	}
	if err := r.inspectPublication(ctx, cfg, &s); err != nil {
		return s, err
	}
	var err error
	s.WALEnd, err = r.WALEnd(ctx)
	return s, err
}

// KeepsSlot reports whether the slot of cfg exists and has all WAL that it may still be asked
// for.
func KeepsSlot(ctx context.Context, cfg Config) (bool, error) {
	cfg = cfg.WithDefaults()
	r, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer r.Close(ctx)
	var s SlotState
	err = r.inspectSlot(ctx, cfg, &s)
	return s.Exists && !s.Lost, err
}

func (r *Introspector) WALEnd(ctx context.Context) (schemas.LSN, error) {
	var end string
	if err := r.conn.QueryRow(ctx, walEndSQL).Scan(&end); err != nil {
		return 0, fmt.Errorf("read the WAL's end: %w", err)
	}
	return schemas.ParseLSN(end)
}

func (r *Introspector) inspectSlot(ctx context.Context, cfg Config, s *SlotState) error {
	var plugin, database, ours, confirmed string
	err := r.conn.QueryRow(ctx, slotSQL, cfg.Slot).Scan(&s.Active, &s.Lost, &plugin, &database, &ours, &confirmed, &s.lostBy, &s.unlimited)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read slot %s: %w", cfg.Slot, err)
	}
	if plugin != "pgoutput" {
		return &checkedFault{check: checkSlot, Fault: Fault{Problem: fmt.Sprintf("slot %s exists and is not a pgoutput slot", cfg.Slot), Fix: "choose another name with --slot"}}
	}
	if database != ours {
		return &checkedFault{
			check: checkSlot,
			Fault: Fault{
				Problem: fmt.Sprintf("slot %s belongs to database %s, not to %s", cfg.Slot, database, ours),
				Fix:     "correct --source, or choose another name with --slot",
			},
		}
	}
	s.Exists = true
	s.Confirmed, err = schemas.ParseLSN(confirmed)
	return err
}

func (r *Introspector) inspectPublication(ctx context.Context, cfg Config, s *SlotState) error {
	var own bool
	for sql, answer := range map[string]any{
		publicationOIDSQL: &s.publication, operationsSQL: &s.operations, outboxPublishedSQL: &own,
	} {
		if err := r.conn.QueryRow(ctx, sql, cfg.Publication).Scan(answer); err != nil {
			return fmt.Errorf("read publication %s: %w", cfg.Publication, err)
		}
	}
	if own {
		return &checkedFault{
			check: checkOutboxPublished,
			Fault: Fault{
				Problem: fmt.Sprintf("publication %s contains the outbox's own tables: every event would make another event", cfg.Publication),
				Fix:     "publish only the catalog's tables, as 'walhook setup --dry-run' prints them",
			},
		}
	}
	var err error
	if s.published, s.unpublished, err = r.loggedTables(ctx, cfg); err != nil {
		return err
	}
	s.members, err = readPublished(ctx, r.conn, pgsession.Major(r.conn.PgConn()), cfg)
	return err
}

// loggedTables returns the catalog's tables that are published and those that are not. It
// leaves out tables that do not exist or never reach the WAL.
func (r *Introspector) loggedTables(ctx context.Context, cfg Config) (published, unpublished []schemas.TableName, err error) {
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
		return nil, nil, fmt.Errorf("read publication %s: %w", cfg.Publication, err)
	}
	return published, unpublished, nil
}

const reportSQL = `
	WITH waiting AS (
		SELECT pid, client_addr, client_port FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = left('` + waitingName + `' || $1, 63) ORDER BY backend_start, pid LIMIT 20)
	SELECT CASE WHEN s.slot_name IS NULL THEN 'missing' ELSE coalesce(s.wal_status, 'lost') END, coalesce(s.active, false),
		coalesce(s.confirmed_flush_lsn, '0/0')::text, pg_current_wal_lsn()::text,
		-- The statement's snapshot is older than the end of the WAL that it reads.
		pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint, pg_current_wal_insert_lsn()::text,
		coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::float8,
		CASE WHEN current_setting('max_slot_wal_keep_size') LIKE '-%' THEN -1
			ELSE pg_size_bytes(current_setting('max_slot_wal_keep_size')) END::float8,
		r.flush_lag, clock_timestamp(), coalesce(s.active_pid, 0), coalesce(a.application_name, ''),
		coalesce(host(a.client_addr), CASE WHEN a.client_port = -1 THEN 'local' ELSE '' END), coalesce(a.wait_event, ''),
		coalesce((SELECT string_agg(format('%s (%s)', n.name, CASE WHEN o.slot_name IS NULL THEN 'which does not exist' WHEN o.active THEN 'which is behind' ELSE 'which nobody reads' END), ', ')
			FROM unnest(string_to_array(replace(replace(current_setting('synchronized_standby_slots', true), ' ', ''), '"', ''), ',')) AS n (name)
			LEFT JOIN pg_replication_slots o ON o.slot_name = n.name), ''),
		ARRAY(SELECT pid FROM waiting), ARRAY(SELECT coalesce(host(client_addr), CASE WHEN client_port = -1 THEN 'local' ELSE '' END) FROM waiting)
	FROM (VALUES ($1)) AS wanted (name) LEFT JOIN pg_replication_slots s ON s.slot_name = wanted.name
	LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid`

// slotMissing is the wal_status of a slot that does not exist.
const slotMissing = "missing"

func SlotStatuses() []string {
	return []string{"reserved", "extended", "unreserved", "lost", slotMissing}
}

// SlotReport is the state of a slot, with the WAL that the source retains for it.
type SlotReport struct {
	// WALStatus is pg_replication_slots.wal_status, or "missing" for a slot that
	// does not exist.
	WALStatus string
	Active    bool        // a session reads it
	Confirmed schemas.LSN // by its reader; 0 for a missing slot
	WALEnd    schemas.LSN // the end of the WAL
	At        time.Time   // the time of WALEnd, by the source's clock
	Visible   schemas.Visible
	Retained  float64 // bytes of WAL that the source retains for it
	Limit     float64 // the most bytes that the source retains; +Inf for no limit
	// FlushLag is how long its reader took for the last confirmation; 0 without a
	// reader, or if all is confirmed.
	FlushLag time.Duration

	Reader    SlotReader   // the session that reads it
	Waiting   []SlotReader // sessions of walhooks that wait to read it, at most 20
	waitEvent string       // what its WAL sender waits for
	standbys  string       // the slots of synchronized_standby_slots, with their states
}

// SlotReader is the session that reads a slot. Fields that the role may not see are "".
type SlotReader struct {
	PID         int // 0 for none
	Application string
	Address     string // "local" for a Unix socket
}

// Foreign reports whether the reader is another program than walhook.
func (s SlotReader) Foreign() bool {
	return s.PID != 0 && s.Application != "" && s.Application != applicationName
}

// String is the reader for display.
func (s SlotReader) String() string {
	text := fmt.Sprintf("pid %d", s.PID)
	if s.Application != "" {
		text += ", application " + s.Application
	}
	if s.Address != "" {
		text += ", address " + s.Address
	}
	return text
}

// Held says that the source withholds changes until its standbys have them (PostgreSQL
// 17, synchronized_standby_slots); "" if it does not.
func (s SlotReport) Held() string {
	if s.waitEvent != "WaitForStandbyConfirmation" {
		return ""
	}
	return "it waits for the standbys of synchronized_standby_slots: " + s.standbys
}

// ReportSlot reads the state of the slot over a session of its own.
func ReportSlot(ctx context.Context, cfg Config) (SlotReport, error) {
	cfg = cfg.WithDefaults()
	source, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return SlotReport{}, err
	}
	defer source.Close(ctx)
	return source.Report(ctx, cfg.Slot)
}

// waitingName begins the name of a session whose process waits to read a slot.
const waitingName = "walhook, standby for "

// Wait names the session, so that [SlotReport] finds its process among those that wait to
// read the slot.
func (r *Introspector) Wait(ctx context.Context, slot string) error {
	if r.waits {
		return nil
	}
	if _, err := r.conn.Exec(ctx, "SELECT set_config('application_name', left('"+waitingName+"' || $1, 63), false)", slot); err != nil {
		return fmt.Errorf("name the session of a standby: %w", err)
	}
	r.waits = true
	return nil
}

func (r *Introspector) Report(ctx context.Context, slot string) (s SlotReport, err error) {
	var confirmed, end, inserted string
	var lag *time.Duration
	var pids []int
	var addresses []string
	err = r.conn.QueryRow(ctx, reportSQL, slot).Scan(&s.WALStatus, &s.Active, &confirmed, &end,
		&s.Visible.Xmin, &s.Visible.Xmax, &inserted, &s.Retained, &s.Limit, &lag, &s.At,
		&s.Reader.PID, &s.Reader.Application, &s.Reader.Address, &s.waitEvent, &s.standbys, &pids, &addresses)
	if err != nil {
		return s, fmt.Errorf("read slot %s: %w", slot, err)
	}
	for i, pid := range pids {
		s.Waiting = append(s.Waiting, SlotReader{PID: pid, Address: addresses[i]})
	}
	if s.Limit < 0 {
		s.Limit = math.Inf(1)
	}
	if lag != nil {
		s.FlushLag = *lag
	}
	var endErr, insertedErr error
	s.Confirmed, err = schemas.ParseLSN(confirmed)
	s.WALEnd, endErr = schemas.ParseLSN(end)
	s.Visible.End, insertedErr = schemas.ParseLSN(inserted)
	return s, errors.Join(err, endErr, insertedErr)
}

// StillPublished returns an error if the publication was narrowed, dropped, recreated, or
// altered and altered back since remembered was returned, or stored: the stream lacks
// changes since then. A new table of the catalog is no error: the next start notices it.
//
// It returns what the publication holds, to remember; "" while a table has another row
// filter or column list than it had, since nobody knows yet whether it keeps that, or has
// become unlogged.
func (r *Introspector) StillPublished(ctx context.Context, cfg Config, before SlotState, remembered string, stored schemas.LSN) (string, error) {
	var now SlotState
	if err := r.inspectPublication(ctx, cfg, &now); err != nil {
		return "", err
	}
	now.unpublished = slices.DeleteFunc(now.unpublished, func(table schemas.TableName) bool {
		return !slices.Contains(before.published, table)
	})
	read := schemas.Checkpoint{Source: schemas.Source{PublicationOID: before.publication}, Flush: stored, Published: remembered}
	if _, err := cfg.checkPublication(read, now); err != nil {
		return "", err
	}
	if altered, err := now.members.since(remembered); err != nil || altered.narrowed {
		return "", err
	}
	return now.members.text(), nil
}

// tellBlockersAfter is how long creating a slot may take before the sessions that it
// waits for are logged.
const tellBlockersAfter = 3 * time.Second

// blockersSQL lists the backends that a backend waits for. A role without rights sees no
// more of other sessions. A prepared transaction has no backend, and PID 0.
const blockersSQL = `
	SELECT string_agg(name, ', ') FROM (
		SELECT format('pid %s (%s, transaction since %s)', pid, coalesce(nullif(application_name, ''), usename, 'no name'),
			coalesce(xact_start::timestamptz(0)::text, 'unknown')) AS name
		FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1))
		UNION ALL
		SELECT format('prepared transaction %L (since %s)', gid, prepared::timestamptz(0))
		FROM pg_prepared_xacts WHERE 0 = ANY (pg_blocking_pids($1))
	) AS blocker`

// createSlotSQL is the command that creates the slot and exports its snapshot.
func createSlotSQL(cfg Config, conn *pgconn.PgConn) string {
	if pgsession.Major(conn) >= 17 {
		// Standbys that synchronise slots keep a copy, so that the slot survives a
		// failover.
		return fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)", cfg.slotIdent())
	}
	return fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT", cfg.slotIdent())
}

// createSlot creates a slot with a command that exports its snapshot, which is valid until
// conn sends another command. tell gets to know of the transactions that it waits for.
func createSlot(ctx context.Context, cfg Config, conn *pgconn.PgConn, source *Introspector, sql string, tell func(blockers string)) (point schemas.LSN, snapshot string, err error) {
	for try := 1; ; try++ {
		point, snapshot, err = tryCreateSlot(ctx, cfg, conn, source, sql, tell)
		// While it waits, more transactions may run than a snapshot can list ("initial slot
		// snapshot too large"). The server has dropped the slot then.
		if sqlState(err) != codeSerialization || try == createTries {
			return point, snapshot, err
		}
		select {
		case <-ctx.Done():
			return 0, "", context.Cause(ctx)
		case <-time.After(time.Duration(try) * createPause):
		}
	}
}

// createTries is how often the server is asked for a slot whose snapshot it finds too
// large, and createPause how long after the first time; it grows.
const (
	createTries = 10
	createPause = 200 * time.Millisecond
)

func tryCreateSlot(ctx context.Context, cfg Config, conn *pgconn.PgConn, source *Introspector, sql string, tell func(blockers string)) (schemas.LSN, string, error) {
	type outcome struct {
		result pglogrepl.CreateReplicationSlotResult
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		result, err := pglogrepl.ParseCreateReplicationSlot(conn.Exec(ctx, sql))
		done <- outcome{result, err}
	}()
	tick := time.NewTicker(tellBlockersAfter)
	defer tick.Stop()
	for {
		select {
		case o := <-done:
			if o.err != nil {
				return 0, "", slotFault(cfg, o.err)
			}
			point, err := schemas.ParseLSN(o.result.ConsistentPoint)
			return point, o.result.SnapshotName, err
		case <-tick.C:
			var blockers *string
			if err := source.conn.QueryRow(ctx, blockersSQL, conn.PID()).Scan(&blockers); err == nil && blockers != nil {
				tell(*blockers)
			}
		}
	}
}

// logBlockers logs the transactions that creating the slot waits for.
func logBlockers(cfg Config, log *zap.Logger) func(blockers string) {
	return func(blockers string) {
		log.Info("creating the slot waits for running transactions", zap.String("slot", cfg.Slot), zap.String("blockers", blockers))
	}
}

func slotFault(cfg Config, err error) error {
	switch sqlState(err) {
	case codeInsufficientRights:
		return &Fault{Problem: "the source's role may not create replication slots", Fix: "as a superuser: ALTER ROLE … REPLICATION", Err: err}
	case codeConfigurationLimit:
		return &Fault{Problem: "the source has no free replication slot",
			Fix: "drop an unused one (pg_replication_slots), or raise max_replication_slots and restart", Err: err}
	}
	return fmt.Errorf("create slot %s: %w", cfg.Slot, err)
}

const advanceSlotSQL = `SELECT pg_catalog.pg_replication_slot_advance($1, $2::pg_catalog.text::pg_catalog.pg_lsn)`

// AdvanceSlot advances a slot without reading its changes.
func (r *Introspector) AdvanceSlot(ctx context.Context, slot string, to schemas.LSN) error {
	if _, err := r.conn.Exec(ctx, advanceSlotSQL, slot, to.String()); err != nil {
		return fmt.Errorf("advance slot %s to %s: %w", slot, to, err)
	}
	return nil
}
