package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// slotInfo is any slot of the server.
type slotInfo struct {
	Name      string
	Database  string
	Active    bool
	PID       int
	Retained  int64 // bytes of WAL that the server retains for it
	WALStatus string
	Failover  string // true, false, or "" before PostgreSQL 17
}

const slotsSQL = `
	SELECT slot_name::text, coalesce(database, '')::text, active, coalesce(active_pid, 0),
		coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, coalesce(wal_status, ''), coalesce(to_jsonb(s) ->> 'failover', '')
	FROM pg_replication_slots s ORDER BY slot_name`

// lookAtSlots reads slots and publication before lookAtPosition reads the stored
// position: a running reader stores a position before it confirms it to the slot.
func (e *examination) lookAtSlots(ctx context.Context) {
	reader := &Introspector{conn: e.s.Conn}
	rows, err := e.s.Query(ctx, slotsSQL)
	if err == nil {
		e.slots, err = pgx.CollectRows(rows, pgx.RowToStructByPos[slotInfo])
	}
	if err == nil {
		err = reader.inspectPublication(ctx, e.followed(), &e.slot)
		if fault, ok := errors.AsType[*checkedFault](err); ok {
			fault.steps, err = e.outboxPublished(ctx)
			e.fail(checkOutboxPublished, fault)
		}
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkSlot, checkPublication)
		return
	}
	e.r.OK(checkOutboxPublished, "the outbox's own tables are not published")
	err = reader.inspectSlot(ctx, e.cfg, &e.slot)
	if fault, ok := errors.AsType[*checkedFault](err); ok {
		fault.steps = e.slotTaken(ctx)
		e.fail(checkSlot, fault)
	} else if err != nil {
		e.s.Unseen(e.r, err, checkSlot)
	}
}

// slotTaken returns the steps for another program's slot with the configured name. Before
// setup walhook can use another name; afterwards the outbox follows this one.
func (e *examination) slotTaken(ctx context.Context) doctor.Steps {
	stored, err := e.read(ctx)
	if info := e.info(); info.Database != e.s.Database && info.Database != "" && info.Database == stored.Source.Database {
		return doctor.Steps{{Kind: doctor.Address, On: onSource, Text: "dbname=" + info.Database, Note: "the outbox follows that database"}}
	}
	if err != nil || stored.Source.Slot != e.cfg.Slot {
		return doctor.Steps{{Kind: doctor.Setting, Text: "--slot=" + e.cfg.Slot + "_2"}, {Kind: doctor.Command, Text: "walhook setup"}}
	}
	return append(doctor.Steps{{Kind: doctor.SQL, On: onSource, Text: "SELECT pg_catalog.pg_drop_replication_slot(" + doctor.QuoteLiteral(e.cfg.Slot) + ")",
		Note: "first find out who uses it: walhook's own slot is gone"}}, acceptGap("the command sends what endpoints missed")...)
}

// info is walhook's slot; nil for none.
func (e *examination) info() *slotInfo {
	i := slices.IndexFunc(e.slots, func(s slotInfo) bool { return s.Name == e.cfg.Slot })
	if i < 0 {
		return nil
	}
	return &e.slots[i]
}

// positionChecks returns the checks of checkPosition, each of which depends on the ones
// before it.
func positionChecks() []string {
	return []string{checkSetup, checkSystem, checkSlot, checkPosition, checkCatalog}
}

// lookAtPosition compares the stored position with the source, as run does before it
// reads.
func (e *examination) lookAtPosition(ctx context.Context) {
	e.stored, e.unread = e.read(ctx) // after the slot, which it must not be behind
	var end string
	err := e.s.QueryRow(ctx, walEndSQL).Scan(&end)
	if err == nil {
		e.slot.WALEnd, err = schemas.ParseLSN(end)
	}
	if err != nil {
		e.s.Unseen(e.r, err, positionChecks()...)
		return
	}
	switch before := e.r.Failed(prerequisites()...); {
	case e.unread != nil:
		e.r.Skip(fmt.Sprintf("the stored position cannot be read: %v", e.unread), positionChecks()...)
		return
	case e.stored.Source == (schemas.Source{}) && before != "":
		e.r.Skip("'walhook setup' would fail: "+before, positionChecks()...)
		return
	case e.r.Bad(checkSlot):
		e.r.Skip("not checked: "+checkSlot, positionChecks()...)
		return
	case e.now == nil && e.stored.Source != (schemas.Source{}):
		e.r.Skip("the source did not identify itself", positionChecks()...)
		return
	}
	var now System
	if e.now != nil {
		now = *e.now
		now.Verify(ctx, e.followed(), e.stored.Checkpoint, e.slot)
	}
	failed, err := e.followed().checkPosition(e.stored.Checkpoint, now, e.slot)
	if err != nil {
		e.fail(failed, err)
		at := slices.Index(positionChecks(), failed)
		e.r.Skip("not checked: "+failed, positionChecks()[at+1:]...)
		if e.stored.Source == (schemas.Source{}) {
			e.r.Skip("not checked: "+failed, positionChecks()...)
		}
	}
	e.positionIsGood(now)
}

// positionIsGood reports the checks that found no problem.
func (e *examination) positionIsGood(now System) {
	if e.stored.Source == (schemas.Source{}) {
		return
	}
	if was := e.stored.Source.Database; was != e.s.Database && e.slot.Exists {
		e.r.OK(checkSetup, "the outbox follows slot %s, publication %s, database %s, formerly %s", e.stored.Source.Slot, e.stored.Source.Publication, e.s.Database, was)
	}
	e.r.OK(checkSetup, "the outbox follows slot %s, publication %s, database %s", e.stored.Source.Slot, e.stored.Source.Publication, e.stored.Source.Database)
	if e.r.Failed(checkSetup) != "" {
		return
	}
	e.r.OK(checkSystem, "system %s, timeline %d, end of WAL %s", now.id, now.Timeline, e.slot.WALEnd)
	if e.r.Failed(checkSystem, checkSlot) != "" {
		return
	}
	if info := e.info(); info != nil {
		by := "no process reads it"
		if info.Active {
			by = fmt.Sprintf("pid %d reads it", info.PID)
		}
		e.r.OK(checkSlot, "%s: %s, wal_status %s", info.Name, by, info.WALStatus)
	}
	e.r.OK(checkPosition, "stored up to %s, the slot is at %s", e.stored.Flush, e.slot.Confirmed)
	if e.r.Failed(checkPosition) == "" {
		e.compareCatalogs()
	}
}

// followed is the configuration by which walhook reads the source, whatever file doctor
// was given.
func (e *examination) followed() Config {
	cfg := e.cfg
	if e.stored.Catalog != nil {
		cfg.Catalog = e.stored.Catalog
	}
	return cfg
}

// compareCatalogs says what is different in the file and in the catalog in force.
func (e *examination) compareCatalogs() {
	file := e.cfg.Catalog
	switch inForce := e.stored.Catalog; {
	case inForce == nil:
		e.r.OK(checkCatalog, "as it was set up (%s)", e.stored.Source.Catalog)
	case inForce.Same(file):
		e.r.OK(checkCatalog, "the file is the catalog in force")
	case e.stored.Pending != nil && e.stored.Pending.Same(file):
		e.r.OK(checkCatalog, "the file was asked for and waits to be in force")
	default:
		e.r.Warn(checkCatalog, doctor.Steps{{Kind: doctor.Command, Text: "walhook setup",
			Note: "puts the file in force without a gap, also while 'walhook run' publishes; or give walhook the former file, which 'walhook schemas --format yaml' prints"}},
			"the file of --catalog is not the catalog in force, by which walhook works; in the file: %s", catalog.Summary(inForce.ChangesTo(file), doctor.ListMost))
	}
}

const (
	publicationKindSQL = `SELECT puballtables FROM pg_publication WHERE pubname = $1`

	ownListedSQL = `
		SELECT c.oid::regclass::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = $1 AND n.nspname = 'walhook' ORDER BY 1`
)

// outboxPublished returns the steps that take the outbox's own tables out of the
// publication: by name, by schema, or, for FOR ALL TABLES, by a new publication.
func (e *examination) outboxPublished(ctx context.Context) (doctor.Steps, error) {
	publication := schemas.QuoteIdent(e.cfg.Publication)
	const owner = "ownership of the publication"
	var all bool
	if err := e.s.QueryRow(ctx, publicationKindSQL, e.cfg.Publication).Scan(&all); err != nil {
		return nil, err
	}
	if all {
		drop := doctor.Ask(onSource, owner, "DROP PUBLICATION "+publication)
		drop[0].Note = "or keep it, and use another database for --outbox"
		if stored, err := e.read(ctx); err == nil && stored.Source == (schemas.Source{}) {
			return append(drop, doctor.Step{Kind: doctor.Command, Text: "walhook setup"}), nil // setup has not stored a position yet
		}
		return append(drop, acceptGap("it publishes only the catalog's tables")...), nil
	}
	rows, err := e.s.Query(ctx, ownListedSQL, e.cfg.Publication)
	var names []string
	if err == nil {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return doctor.Ask(onSource, owner, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLES IN SCHEMA walhook", publication)), nil
	}
	return doctor.Ask(onSource, owner, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s", publication, strings.Join(names, ", "))), nil
}

const (
	// The shares of max_slot_wal_keep_size above which a slot warns and fails.
	shareWarned, shareFailed = 0.5, 0.8

	// keepSize is suggested if there is no limit.
	keepSize = "50GB"

	// An idle timeout that a weekend does not exceed.
	idleLimitWarned = 72 * time.Hour

	// The shortest wal_sender_timeout that a slow network does not exceed: the reader
	// reports every second.
	senderTimeoutWarned = 10 * time.Second
	senderTimeout       = "60s"
)

// lookAtSettings checks the WAL that slots retain, and the settings of the server and the
// role.
func (e *examination) lookAtSettings(ctx context.Context) {
	limit := e.s.Number("max_slot_wal_keep_size") // in MB; -1 for none
	e.walLimit(limit)
	e.idleLimit(e.s.Number("idle_replication_slot_timeout"))
	e.synchronousStandby(ctx)
	e.slotReader(ctx)
	e.retained(limit << 20)
	e.otherSlots(limit << 20)
	e.failover()
	e.senderTimeout()
	if err := e.textSettings(ctx); err != nil {
		e.s.Unseen(e.r, err, checkTextSettings)
	}
}

func (e *examination) walLimit(limit int64) {
	if limit >= 0 {
		e.r.OK(checkWALLimit, "max_slot_wal_keep_size is %s", bytesText(float64(limit)*(1<<20)))
		return
	}
	fix := doctor.Configure(onSource, "max_slot_wal_keep_size", keepSize, false)
	fix[0].Note = "as much as the disk can spare: beyond it the server invalidates the slot, which is a gap"
	e.r.Warn(checkWALLimit, fix, "max_slot_wal_keep_size is -1: a slot that nobody reads fills the disk")
}

// idleLimit checks after how many seconds PostgreSQL 18 invalidates a slot without a
// reader; -1 for a server without that setting.
func (e *examination) idleLimit(seconds int64) {
	if seconds <= 0 {
		e.r.OK(checkIdleLimit, "the server never invalidates an idle slot")
		return
	}
	limit := time.Duration(seconds) * time.Second
	fix := doctor.Configure(onSource, "idle_replication_slot_timeout", "0", false)
	if limit < idleLimitWarned {
		e.r.Fail(checkIdleLimit, fix, "idle_replication_slot_timeout is %s: walhook loses its slot if it is down for that long, which is a gap", limit)
		return
	}
	e.r.Warn(checkIdleLimit, fix, "idle_replication_slot_timeout is %s: walhook loses its slot if it is down for that long, which is a gap", limit)
}

// slotReader reports another program that reads walhook's slot, and a source that
// withholds changes.
func (e *examination) slotReader(ctx context.Context) {
	info := e.info()
	if info == nil || !info.Active || e.r.Bad(checkSlot) {
		return
	}
	report, err := (&Introspector{conn: e.s.Conn}).Report(ctx, e.cfg.Slot)
	if err != nil {
		e.s.Unseen(e.r, err, checkReaderThere)
		return
	}
	if report.Reader.Foreign() {
		e.r.Fail(checkReaderThere, doctor.Steps{{Kind: doctor.SQL, On: onSource, Needs: "pg_signal_backend, or the reader's own role",
			Text: fmt.Sprintf("SELECT pg_catalog.pg_terminate_backend(%d)", report.Reader.PID), Note: "after ending that program"}},
			"a program other than walhook reads slot %s (%s): what it confirms is a gap", info.Name, report.Reader)
	}
	if why := report.Held(); why != "" {
		fix := doctor.Configure(onSource, "synchronized_standby_slots", "", false)
		fix[0].Note = "if those standbys will not return; otherwise start them"
		e.r.Fail(checkReaderThere, fix, "the source sends nothing to the reader of slot %s: %s", info.Name, why)
	}
}

// retained reports how close walhook's slot is to being invalidated, and whether it has a
// reader.
func (e *examination) retained(limit int64) {
	info := e.info()
	if info == nil || e.r.Bad(checkSlot) {
		e.r.Skip("there is no slot", checkRetained, checkReaderThere)
		return
	}
	if unread := int64(e.slot.WALEnd) - int64(e.slot.Confirmed); !info.Active && unread > e.s.Number("max_wal_size")<<20 {
		e.r.Warn(checkReaderThere, doctor.Steps{{Kind: doctor.Command, Text: "walhook run",
			Note: "or 'walhook teardown', if walhook is out of use"}},
			"no process reads slot %s, and %s of WAL wait: more than max_wal_size", info.Name, bytesText(float64(unread)))
	} else if info.Active {
		e.r.OK(checkReaderThere, "pid %d reads, %s of WAL wait", info.PID, bytesText(float64(max(unread, 0))))
	} else {
		e.r.OK(checkReaderThere, "no process reads, and %s of WAL wait", bytesText(float64(max(unread, 0))))
	}
	what := fmt.Sprintf("the server retains %s of WAL for slot %s", bytesText(float64(info.Retained)), info.Name)
	fix := doctor.Configure(onSource, "max_slot_wal_keep_size", fmt.Sprintf("%dMB", 4*info.Retained>>20+1), false)
	fix[0].Note = "if the disk has room; this buys time to find out why the reader is behind"
	switch share := float64(info.Retained) / float64(limit); {
	case limit >= 0 && (share >= shareFailed || info.WALStatus == "unreserved"):
		e.r.Fail(checkRetained, fix, "%s, %.0f %% of max_slot_wal_keep_size: beyond it the server invalidates the slot, which is a gap", what, 100*share)
	case limit >= 0 && share >= shareWarned:
		e.r.Warn(checkRetained, fix, "%s, %.0f %% of max_slot_wal_keep_size: beyond it the server invalidates the slot, which is a gap", what, 100*share)
	case limit < 0 && info.Active && info.WALStatus != "reserved":
		e.r.Warn(checkRetained, doctor.Run("walhook status"), "%s, more than max_wal_size, and without a limit", what)
	case limit >= 0:
		e.r.OK(checkRetained, "%s, %.0f %% of the limit", what, 100*share)
	default:
		e.r.OK(checkRetained, "%s", what)
	}
}

// otherSlots reports other slots without a reader that retain much WAL, since they fill
// the same disk.
func (e *examination) otherSlots(limit int64) {
	others := 0
	for _, info := range e.slots {
		if info.Name == e.cfg.Slot {
			continue
		}
		others++
		much := limit >= 0 && float64(info.Retained) >= shareWarned*float64(limit) ||
			limit < 0 && (info.WALStatus == "extended" || info.WALStatus == "unreserved")
		if !info.Active && much && info.WALStatus != "lost" {
			e.r.Warn(checkOtherSlots, doctor.Steps{{Kind: doctor.SQL, On: onSource, Needs: "REPLICATION",
				Text: "SELECT pg_catalog.pg_drop_replication_slot(" + doctor.QuoteLiteral(info.Name) + ")", Note: "if it is unused; first find out who created it"}},
				"no process reads slot %s, for which the server retains %s of WAL", info.Name, bytesText(float64(info.Retained)))
		}
	}
	e.r.OK(checkOtherSlots, "%s, none of them retains much", doctor.Count(others, "other"))
}

func (e *examination) failover() {
	switch info := e.info(); {
	case info == nil:
		e.r.Skip("there is no slot", checkFailover)
	case e.r.Bad(checkSlot, checkPosition):
		e.r.Skip("the slot is not walhook's", checkFailover)
	case info.Failover == "":
		e.r.OK(checkFailover, "standbys of this version keep no slot: a failover is a gap")
	case info.Failover == "true":
		e.r.OK(checkFailover, "a standby that synchronises slots keeps it")
	default:
		command := fmt.Sprintf(`ALTER_REPLICATION_SLOT %s ( FAILOVER true )`, e.cfg.slotIdent())
		e.r.Warn(checkFailover, doctor.Steps{{Kind: doctor.Shell, Text: fmt.Sprintf(`psql "dbname=%s replication=database" -c '%s'`, e.s.Database, command),
			Note: "on the source, while nobody reads the slot"}},
			"standbys do not keep slot %s: a failover is a gap", info.Name)
	}
}

func (e *examination) senderTimeout() {
	timeout := time.Duration(e.s.Number("wal_sender_timeout")) * time.Millisecond
	switch fix := e.s.Restore("wal_sender_timeout", senderTimeout); {
	case timeout == 0:
		e.r.Warn(checkSenderTimeout, fix, "wal_sender_timeout is 0: if the reader's machine fails, its slot stays in use and no standby takes over")
	case timeout < senderTimeoutWarned:
		e.r.Warn(checkSenderTimeout, fix, "wal_sender_timeout is %s: a short network interruption ends the connection", timeout)
	default:
		e.r.OK(checkSenderTimeout, "%s", timeout)
	}
}

// textKept reports whether a setting changes how values are printed, and the value that
// walhook sets.
func textKept(name string) (value string, kept bool) {
	for _, one := range pinned() {
		if strings.EqualFold(one.Name, name) {
			return one.Value, slices.Contains([]string{"client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "extra_float_digits", "bytea_output"}, one.Name)
		}
	}
	return "", false
}

const ownSettingsSQL = `
	SELECT split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1), setrole <> 0, setdatabase <> 0
	FROM pg_db_role_setting, unnest(setconfig) AS entry
	WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
		AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))`

// textSettings reports settings of the role or the database that walhook must override
// so that values are printed the same.
func (e *examination) textSettings(ctx context.Context) error {
	rows, err := e.s.Query(ctx, ownSettingsSQL)
	if err != nil {
		return err
	}
	role, database := schemas.QuoteIdent(e.s.Role), schemas.QuoteIdent(e.s.Database)
	var name, value string
	var ofRole, ofDatabase bool
	_, err = pgx.ForEachRow(rows, []any{&name, &value, &ofRole, &ofDatabase}, func() error {
		ours, kept := textKept(name)
		if !kept || value == ours {
			return nil
		}
		sql, of := fmt.Sprintf("ALTER ROLE ALL RESET %s", name), "every role"
		switch {
		case ofRole && ofDatabase:
			sql, of = fmt.Sprintf("ALTER ROLE %s IN DATABASE %s RESET %s", role, database, name), "the role in this database"
		case ofRole:
			sql, of = fmt.Sprintf("ALTER ROLE %s RESET %s", role, name), "the role"
		case ofDatabase:
			sql, of = fmt.Sprintf("ALTER DATABASE %s RESET %s", database, name), "the database"
		}
		e.r.Warn(checkTextSettings, doctor.Ask(onSource, "", sql), "%s is %q for %s; walhook sets its own, but other tools see other values", name, value, of)
		return nil
	})
	e.r.OK(checkTextSettings, "neither role nor database changes how values are printed")
	return err
}
