package cdc

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
)

// SnapshotStore keeps the first snapshot. It loads nothing by itself: the
// functions that it is given write through the sink.
type SnapshotStore interface {
	Store
	// BeginSnapshot notes durably that the source's slot is about to be made.
	BeginSnapshot(ctx context.Context, source schemas.Source) error
	// SnapshotBegun says whether that was noted for slot and not finished.
	SnapshotBegun(ctx context.Context, slot string) (bool, error)
	// LoadSnapshot stores all that fill writes and the point, at one stroke.
	LoadSnapshot(ctx context.Context, point schemas.LSN, fill func(SnapshotSink) error) error
}

// SnapshotSink takes the rows of the first snapshot.
type SnapshotSink interface {
	Account(ctx context.Context, account schemas.Account) error
	Owner(ctx context.Context, edge schemas.OwnerEdge) error
}

// Snapshot makes the slot and stores, with its consistent point as the first
// position, the accounts and owners as they are at that point. It does nothing
// when a position is stored already, unless acceptGap: then it starts over.
//
// Making a slot waits for every transaction that is running in the cluster;
// those that hold it up are named in the log.
func Snapshot(ctx context.Context, cfg Config, store SnapshotStore, acceptGap bool, log *zap.Logger) error {
	cfg = cfg.withDefaults()
	source, err := newCatalogReader(ctx, cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	conn, err := cfg.connectReplication(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return fmt.Errorf("identify the source: %w", err)
	}
	slot, err := source.inspect(ctx, cfg)
	if err != nil {
		return err
	}
	if slot.exists && slot.active {
		return &Fault{Problem: fmt.Sprintf("slot %s is in use", cfg.Slot), Mend: "stop the walhook that reads it, or choose another name with --slot"}
	}
	checkpoint, err := store.TakeOver(ctx)
	if err != nil {
		return err
	}
	if !acceptGap && checkpoint.Source != (schemas.Source{}) {
		return cfg.check(checkpoint, system, slot)
	}
	if err := clearSlot(ctx, cfg, conn, store, slot, acceptGap); err != nil {
		return err
	}
	err = store.BeginSnapshot(ctx, schemas.Source{
		SystemID: system.SystemID, Timeline: system.Timeline, Database: system.DBName,
		Slot: cfg.Slot, Publication: cfg.Publication, Catalog: cfg.Catalog.Fingerprint(),
	})
	if err != nil {
		return err
	}
	point, name, err := createSlot(ctx, cfg, conn, source, log)
	if err != nil {
		return err
	}
	began := time.Now()
	load := snapshotLoad{cfg: cfg, log: log, progress: began}
	err = store.LoadSnapshot(ctx, point, func(sink SnapshotSink) error {
		load.sink = sink
		return load.read(ctx, name)
	})
	if err != nil {
		return err
	}
	log.Info("first snapshot stored", zap.Stringer("lsn", point), zap.Int("accounts", load.accounts),
		zap.Int("owners", load.owners), zap.Duration("duration", time.Since(began)))
	return nil
}

// clearSlot drops a slot that is ours to drop: left by an interrupted
// snapshot, or given up with a gap.
func clearSlot(ctx context.Context, cfg Config, conn *pgconn.PgConn, store SnapshotStore, slot slotState, acceptGap bool) error {
	if !slot.exists {
		return nil
	}
	ours, err := store.SnapshotBegun(ctx, cfg.Slot)
	if err != nil {
		return err
	}
	if !ours && !acceptGap {
		return cfg.slotWithoutPosition()
	}
	if err := pglogrepl.DropReplicationSlot(ctx, conn, cfg.Slot, pglogrepl.DropReplicationSlotOptions{}); err != nil {
		return fmt.Errorf("drop slot %s: %w", cfg.Slot, err)
	}
	return nil
}

// tellBlockersAfter is how long making a slot may take before those who hold
// it up are named.
const tellBlockersAfter = 3 * time.Second

const blockersSQL = `
	SELECT string_agg(format('pid %s (%s, transaction since %s)', pid, coalesce(nullif(application_name, ''), usename), xact_start::timestamptz(0)), ', ')
	FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1))`

// createSlot makes the slot and exports its snapshot, which lives as long as
// conn sends no other command.
func createSlot(ctx context.Context, cfg Config, conn *pgconn.PgConn, source *catalogReader, log *zap.Logger) (schemas.LSN, string, error) {
	sql := fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT", cfg.Slot)
	if serverMajor(conn) >= 17 {
		// The slot is kept on a standby that synchronises slots, so that it
		// survives a failover.
		sql = fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER)", cfg.Slot)
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

// serverMajor is the server's major version; 0 when it did not say.
func serverMajor(conn *pgconn.PgConn) int {
	digits, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	major, _ := strconv.Atoi(digits)
	return major
}

func slotFault(cfg Config, err error) error {
	switch sqlState(err) {
	case codeInsufficientRights:
		return &Fault{"the source's role may not make replication slots", "as a superuser: ALTER ROLE … REPLICATION", err}
	case codeConfigurationLimit:
		return &Fault{"the source has no free replication slot", "drop one that nobody uses (pg_replication_slots), or raise max_replication_slots and restart", err}
	}
	return fmt.Errorf("make slot %s: %w", cfg.Slot, err)
}

// snapshotLoad reads the accounts and the owners under an exported snapshot.
type snapshotLoad struct {
	cfg      Config
	log      *zap.Logger
	sink     SnapshotSink
	progress time.Time // when it was last told
	accounts int
	owners   int
	plans    map[string]*schemas.Plan // by schema; none for a missing table
}

func (l *snapshotLoad) read(ctx context.Context, snapshot string) error {
	source, err := newCatalogReader(ctx, l.cfg)
	if err != nil {
		return err
	}
	defer source.close(ctx)
	return pgx.BeginTxFunc(ctx, source.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET TRANSACTION SNAPSHOT "+quoteLiteral(snapshot)); err != nil {
			return fmt.Errorf("use the slot's snapshot: %w", err)
		}
		if err := l.readAccounts(ctx, tx); err != nil {
			return err
		}
		return l.readAllOwners(ctx, tx)
	})
}

func (l *snapshotLoad) readAccounts(ctx context.Context, tx pgx.Tx) error {
	a := l.cfg.Catalog.Account
	secret := "NULL"
	if a.Secret != "" {
		secret = schemas.QuoteIdent(a.Secret)
	}
	sql := fmt.Sprintf("SELECT %s, %s, %s FROM %s", schemas.QuoteIdent(a.ID), schemas.QuoteIdent(a.URL), secret, a.Table)
	return l.eachRow(ctx, tx, sql, func(values [][]byte) error {
		l.accounts++
		return l.sink.Account(ctx, schemas.Account{ID: string(values[0]), URL: string(values[1]), Secret: string(values[2])})
	})
}

// readAllOwners reads whose each record is, where that has to be remembered.
func (l *snapshotLoad) readAllOwners(ctx context.Context, tx pgx.Tx) error {
	l.plans = map[string]*schemas.Plan{}
	for _, schema := range l.cfg.Catalog.Schemas {
		relation, err := readRelation(ctx, tx, schema.Table)
		if err != nil {
			return err
		}
		if relation != nil {
			l.plans[schema.Name] = l.cfg.Catalog.Bind(relation)
		}
	}
	for _, schema := range l.cfg.Catalog.Schemas {
		if plan := l.plans[schema.Name]; plan != nil && l.cfg.Catalog.Tracked(plan) {
			if err := l.readOwners(ctx, tx, schema, plan); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *snapshotLoad) readOwners(ctx context.Context, tx pgx.Tx, schema *schemas.Schema, plan *schemas.Plan) error {
	sql, ok := l.ownerQuery(schema, plan)
	if !ok {
		l.log.Warn("owners of a table cannot be read: it, or a table that its owner leads through, lacks the key or the owner column",
			zap.Stringer("table", schema.Table))
		return nil
	}
	return l.eachRow(ctx, tx, sql, func(values [][]byte) error {
		l.owners++
		key := schemas.KeyOf(values[1:])
		return l.sink.Owner(ctx, schemas.OwnerEdge{Schema: schema.Name, Key: key, Account: string(values[0])})
	})
}

// ownerQuery reads a schema's accounts and keys, through as many parents as
// there are between. A record whose parent is missing has no known owner and
// is left out.
func (l *snapshotLoad) ownerQuery(schema *schemas.Schema, plan *schemas.Plan) (string, bool) {
	keys := plan.KeyColumns()
	if len(keys) == 0 || plan.Relation.Column(schema.Owner.Column) < 0 {
		return "", false
	}
	from, last := schema.Table.String()+" AS t0", 0
	for ; schema.Owner.Schema != ""; last++ {
		parent := l.plans[schema.Owner.Schema]
		if parent == nil || len(parent.KeyColumns()) != 1 || parent.Relation.Column(parent.Schema.Owner.Column) < 0 {
			return "", false
		}
		from += fmt.Sprintf(" JOIN %s AS t%d ON t%d.%s = t%d.%s", parent.Schema.Table, last+1,
			last+1, schemas.QuoteIdent(parent.KeyColumns()[0]), last, schemas.QuoteIdent(schema.Owner.Column))
		schema = parent.Schema
	}
	columns := fmt.Sprintf("t%d.%s", last, schemas.QuoteIdent(schema.Owner.Column))
	for _, key := range keys {
		columns += ", t0." + schemas.QuoteIdent(key)
	}
	return "SELECT " + columns + " FROM " + from, true
}

const progressEvery = 5 * time.Second

// eachRow runs sql by the simple protocol, whose values are the same text that
// the stream carries. The slices are valid during the call only.
func (l *snapshotLoad) eachRow(ctx context.Context, tx pgx.Tx, sql string, f func([][]byte) error) error {
	rows, err := tx.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("read the first snapshot: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.RawValues()); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(l.progress) > progressEvery {
			l.progress = now
			l.log.Info("first snapshot goes on", zap.Int("accounts", l.accounts), zap.Int("owners", l.owners))
		}
	}
	if err := rows.Err(); err != nil {
		if sqlState(err) == codeInsufficientRights {
			return &Fault{"the source's role may not read a table of the catalog", "GRANT SELECT on the catalog's tables to it", err}
		}
		return fmt.Errorf("read the first snapshot: %w", err)
	}
	return nil
}
