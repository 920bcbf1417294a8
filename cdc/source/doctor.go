package source

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// onSource is how findings and their steps name the source.
const onSource = "source"

// The ids of the checks of a source, which never change.
const (
	checkReachable       = "source.reachable"
	checkVersion         = "source.version"
	checkWALLevel        = "source.wal_level"
	checkSlots           = "source.slots"
	checkSenders         = "source.senders"
	checkRole            = "source.role"
	checkRights          = "source.rights"
	checkTables          = "source.tables"
	checkUnlogged        = "source.unlogged"
	checkSelect          = "source.select"
	checkRowSecurity     = "source.row_security"
	checkColumns         = "source.columns"
	checkKeys            = "source.keys"
	checkFields          = "source.fields"
	checkSetup           = "source.setup"
	checkSystem          = "source.system"
	checkSlot            = "source.slot"
	checkPosition        = "source.position"
	checkCatalog         = "source.catalog"
	checkPublication     = "source.publication"
	checkPublished       = "source.published"
	checkOutboxPublished = "source.outbox_published"
	checkColumnLists     = "source.column_lists"
	checkRowFilters      = "source.row_filters"
	checkPartitions      = "source.partitions"
	checkIdentity        = "source.replica_identity"
	checkReaderThere     = "source.reader"
	checkRetained        = "source.retained"
	checkWALLimit        = "source.wal_limit"
	checkIdleLimit       = "source.slot_idle_limit"
	checkSynchronous     = "source.synchronous_standby"
	checkOtherSlots      = "source.other_slots"
	checkFailover        = "source.failover"
	checkSenderTimeout   = "source.wal_sender_timeout"
	checkTextSettings    = "source.text_settings"
)

// Checks returns the ids of the checks of [Examine], in its order.
func Checks() []string {
	ids := []string{checkReachable}
	ids = append(ids, doctor.ServerChecks(onSource)...)
	ids = append(ids, checkWALLevel, checkSlots, checkSenders, checkRole, checkRights,
		checkTables, checkUnlogged, checkSelect, checkRowSecurity, checkColumns, checkKeys, checkFields,
		checkSetup, checkSystem, checkSlot, checkPosition, checkCatalog,
		checkPublication, checkPublished, checkOutboxPublished, checkColumnLists, checkRowFilters, checkPartitions, checkIdentity,
		checkReaderThere, checkRetained, checkWALLimit, checkIdleLimit, checkSynchronous, checkOtherSlots, checkFailover, checkSenderTimeout, checkTextSettings)
	return append(ids, doctor.TransactionChecks(onSource)...)
}

// prerequisites returns the checks whose failure makes setup fail.
func prerequisites() []string {
	return []string{checkReachable, checkVersion, checkWALLevel, checkSlots, checkSenders, checkRole, checkRights,
		checkTables, checkSelect, checkRowSecurity, checkColumns, checkOutboxPublished}
}

// examination is the state of one [Examine].
type examination struct {
	cfg  Config
	o    doctor.Options
	s    *doctor.Session
	r    *doctor.Report
	read func(context.Context) (Stored, error)
	as   string // the role that is examined; "" is the session's

	server  server
	senders int     // WAL senders in use
	now     *System // nil if it could not be read
	tables  []tableState
	unsent  map[string]unsentColumn // of the current table
	noURL   string                  // the evidence that the account table has no column of URLs; "" if it has
	listed  bool                    // the publication exists and is not FOR ALL TABLES
	cut     []schemas.TableName     // whose updates fail because of a column list, as was reported
	slot    SlotState
	slots   []slotInfo
	stored  Stored
	unread  error // why stored is unknown
}

// Stored is what the outbox stores of a source.
type Stored struct {
	schemas.Checkpoint
	// Catalog is the one in force, and Pending one that waits to be; nil for none.
	Catalog, Pending *catalog.Catalog
}

// Examine looks for problems that prevent walhook from reading a source, now or soon: it
// returns a finding for each of [Checks]. It compares tables and rights with the catalog of
// cfg, and what may be missing with the one in force. stored reads the outbox. Examine
// writes nothing and waits for locks only briefly. For a moment it uses one WAL sender,
// to identify the system.
func Examine(ctx context.Context, cfg Config, stored func(context.Context) (Stored, error), o doctor.Options) []doctor.Finding {
	e := &examination{cfg: cfg.WithDefaults(), o: o.WithDefaults(), r: doctor.NewReport(Checks()...), read: stored}
	if e.open(ctx) {
		defer e.s.Close(ctx)
		e.look(ctx)
	}
	return e.r.Findings()
}

// look runs the checks, first those that others depend on.
func (e *examination) look(ctx context.Context) {
	e.stored, e.unread = e.read(ctx) // for its catalog
	e.s.Server(ctx, e.r, e.o)
	e.lookAtServer(ctx)
	e.lookAtReplication(ctx)
	e.lookAtTables(ctx)
	e.lookAtSlots(ctx)
	e.lookAtPosition(ctx)
	e.lookAtPublication(ctx)
	e.lookAtIdentity(ctx)
	e.lookAtSettings(ctx)
	e.s.Transactions(ctx, e.r, e.o, true, "walhook cannot create a slot before it ends")
}

// open connects as walhook does, but with the role's own settings, which it checks too.
func (e *examination) open(ctx context.Context) bool {
	conn, err := e.cfg.parse()
	if err == nil {
		conn.ConnectTimeout = e.timeout(conn.ConnectTimeout)
		if e.s, err = doctor.Open(ctx, conn, onSource); err == nil {
			e.r.OK(checkReachable, "database %s at %s, as role %s", e.s.Database, e.s.PgConn().Conn().RemoteAddr(), e.s.Role)
			return true
		}
		err = connectFault(err)
	}
	var steps doctor.Steps
	if conn != nil {
		steps = doctor.ConnectSteps(ctx, conn, onSource, err)
	}
	e.r.Fail(checkReachable, steps, "%v", err)
	e.r.SkipRest("not checked: the source is not reachable")
	return false
}

// fail reports a fault or a gap under its check.
func (e *examination) fail(check string, err error) {
	if fault, ok := errors.AsType[*Fault](err); ok {
		evidence := fault.Problem
		if fault.Err != nil && !errors.Is(fault, errNotSetUp) {
			evidence += fmt.Sprintf(" (%v)", fault.Err)
		}
		var steps doctor.Steps
		if checked, ok := errors.AsType[*checkedFault](err); ok {
			steps = checked.steps
		}
		e.r.Fail(check, steps, "%s", evidence)
		return
	}
	if gap, ok := errors.AsType[*GapError](err); ok {
		e.r.Fail(check, acceptGap("first find out why; the command sends what endpoints missed"),
			"%s: changes from %s on may be missing", gap.Reason, gap.From)
		return
	}
	e.s.Unseen(e.r, err, check)
}

// acceptGap returns the steps that start over after a gap.
func acceptGap(note string) doctor.Steps {
	return doctor.Steps{{Kind: doctor.Command, Text: "walhook setup --accept-gap", Note: note}}
}

// codeTooManyConnections is also the error of a server without a free WAL sender.
const codeTooManyConnections = "53300"

// usageSQL counts the slots and WAL senders in use.
const usageSQL = `SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication)`

// slack is how many more slots or WAL senders to suggest.
const slack = 4

// timeout is how long connecting may take: as the URL says, or as configured.
func (e *examination) timeout(configured time.Duration) time.Duration {
	return min(configured, connectTimeout/2)
}

// lookAtServer compares the server's limits with what is in use.
func (e *examination) lookAtServer(ctx context.Context) {
	var err error
	var slots int
	if e.server, err = readServer(ctx, e.s); err == nil {
		err = e.s.QueryRow(ctx, usageSQL).Scan(&slots, &e.senders)
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkWALLevel, checkSlots, checkSenders)
		return
	}
	for _, fault := range e.server.faults() {
		if fault.check != checkVersion { // another check reports the version
			e.fail(fault.check, fault)
		}
	}
	if e.server.dropsDefaults() {
		e.r.Warn(checkVersion, doctor.Steps{{Kind: doctor.Shell, Text: "install PostgreSQL 15.6, 16.2 or a newer minor version of the same major"}}, "PostgreSQL %d.%d: %s",
			e.server.version/10000, e.server.version%10000, droppedDefaults)
	}
	e.r.OK(checkWALLevel, "%s", e.server.walLevel)
	e.r.OK(checkSenders, "%d of %d WAL senders in use", e.senders, e.server.senders)
	if slots < e.server.slots || e.server.slots == 0 {
		e.r.OK(checkSlots, "%d of %d replication slots in use", slots, e.server.slots)
		return
	}
	var ours bool
	if err := e.s.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", e.cfg.Slot).Scan(&ours); err != nil {
		e.s.Unseen(e.r, err, checkSlots)
		return
	}
	if ours {
		e.r.OK(checkSlots, "%s in use, slot %s among them", allSlots(slots), e.cfg.Slot)
		return
	}
	fix := doctor.Configure(onSource, "max_replication_slots", strconv.Itoa(slots+slack), true)
	fix[0].Note = "or drop an unused slot: SELECT slot_name, active FROM pg_catalog.pg_replication_slots"
	e.r.Fail(checkSlots, fix, "%s in use: none is left for %s", allSlots(slots), e.cfg.Slot)
}

func allSlots(n int) string {
	return doctor.Choose(n, "the only replication slot is", fmt.Sprintf("all %d replication slots are", n))
}

// lookAtReplication opens a session of the replication protocol, as setup and run do, and
// identifies the system.
func (e *examination) lookAtReplication(ctx context.Context) {
	if e.r.Failed(checkVersion, checkWALLevel, checkSenders) != "" {
		e.r.Skip("not checked: wal_level is not logical", checkRole)
		return
	}
	conn, err := e.cfg.connectReplication(ctx)
	known, refused := errors.AsType[*checkedFault](err)
	switch fault := e.server.roleFault(err); {
	case err == nil:
	case refused && known.check == checkRole:
		e.fail(checkRole, known)
		return
	case sqlState(err) == codeTooManyConnections:
		e.lackSenders()
		return
	case fault != err:
		e.fail(checkRole, fault)
		return
	default:
		e.s.Unseen(e.r, err, checkRole)
		return
	}
	defer CloseConn(ctx, conn)
	e.r.OK(checkRole, "role %s has REPLICATION", e.server.role)
	now, err := Identify(ctx, conn)
	if err != nil {
		e.s.Unseen(e.r, err, checkSystem)
		return
	}
	e.now = &now
}

// lackSenders reports a server without a free WAL sender.
func (e *examination) lackSenders() {
	fix := doctor.Configure(onSource, "max_wal_senders", strconv.Itoa(e.server.senders+slack), true)
	fix[0].Note = "or end an unused one: SELECT pid, application_name FROM pg_catalog.pg_stat_replication"
	e.r.Fail(checkSenders, fix, "all %d WAL senders are in use, or the role has no connection left", e.server.senders)
	e.r.Skip("not checked: no WAL sender is free", checkRole)
}

// entry is a schema's entry for a catalog file, with the fields that the table has.
func entry(plan *catalog.Plan) string {
	s := plan.Schema
	var fields []string
	plain := true
	for _, f := range s.Fields {
		if plan.Relation.Column(f.Column) >= 0 {
			plain = plain && f.Name == f.Column
			fields = append(fields, quoteYAML(f.Name)+": "+quoteYAML(f.Column))
		}
	}
	list := "{" + strings.Join(fields, ", ") + "}"
	if plain {
		for i, text := range fields {
			fields[i], _, _ = strings.Cut(text, ": ")
		}
		list = "[" + strings.Join(fields, ", ") + "]"
	}
	owner := quoteYAML(s.Owner.Column)
	if s.Owner.Schema != "" {
		owner = fmt.Sprintf("{column: %s, schema: %s}", owner, quoteYAML(s.Owner.Schema))
	}
	key := ""
	if len(s.Key) > 0 {
		quoted := slices.Clone(s.Key)
		for i := range quoted {
			quoted[i] = quoteYAML(quoted[i])
		}
		key = "key: [" + strings.Join(quoted, ", ") + "], "
	}
	return fmt.Sprintf("schemas: {%s: {table: %s, %sowner: %s, fields: %s}}", quoteYAML(s.Name), quoteYAML(s.Table.String()), key, owner, list)
}

// entryWith is a schema's entry with another column in the place of one.
func entryWith(plan *catalog.Plan, from, to string) string {
	other, schema := *plan, *plan.Schema
	other.Schema = &schema
	put := func(column *string) {
		if *column == from {
			*column = to
		}
	}
	put(&schema.Owner.Column)
	schema.Key, schema.Fields = slices.Clone(schema.Key), slices.Clone(schema.Fields)
	for i := range schema.Key {
		put(&schema.Key[i])
	}
	for i := range schema.Fields {
		put(&schema.Fields[i].Column)
	}
	return entry(&other)
}

// quoteYAML quotes a name for YAML.
func quoteYAML(name string) string {
	if schemas.QuoteIdent(name) == name && !slices.Contains([]string{"y", "n", "yes", "no", "on", "off"}, name) {
		return name
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.") == "" && strings.Contains(name, ".") {
		return name // a table's qualified name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// applicationName is the application_name of the reader's sessions.
const applicationName = "walhook"

const (
	synchronousNamesSQL = `SELECT pg_catalog.current_setting('synchronous_standby_names')`

	// The physical standbys, which alone can be synchronous.
	standbyNamesSQL = `
		SELECT DISTINCT application_name FROM pg_catalog.pg_stat_replication r
		WHERE application_name NOT IN ('', $1)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
		ORDER BY 1`
)

var standbyName = regexp.MustCompile(`"(?:[^"]|"")*"|[^\s,()"]+`)

// takesForStandby reports whether a value of synchronous_standby_names makes walhook a
// synchronous standby (PostgreSQL manual, synchronous_standby_names: "*" is every name,
// and case does not count).
func takesForStandby(names string) bool {
	for _, name := range standbyName.FindAllString(names, -1) {
		if strings.HasPrefix(name, `"`) {
			name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
		}
		if name == "*" || strings.EqualFold(name, applicationName) {
			return true
		}
	}
	return false
}

// synchronousFault describes the problem with synchronous_standby_names; "" for none.
func synchronousFault(names string) string {
	if !takesForStandby(names) {
		return ""
	}
	return fmt.Sprintf("synchronous_standby_names is %q, which includes walhook: if no standby answers, "+
		"the source's commits wait for walhook, and may be on no standby", names)
}

// TakenForStandby describes the problem with the source's synchronous_standby_names; ""
// for none.
func (r *Introspector) TakenForStandby(ctx context.Context) (fault string, err error) {
	var names string
	if err = r.conn.QueryRow(ctx, synchronousNamesSQL).Scan(&names); err != nil {
		return "", fmt.Errorf("read synchronous_standby_names: %w", err)
	}
	return synchronousFault(names), nil
}

// synchronousStandby checks whether walhook is named as a synchronous standby.
func (e *examination) synchronousStandby(ctx context.Context) {
	names := e.s.Value("synchronous_standby_names")
	fault := synchronousFault(names)
	if fault == "" {
		e.r.OK(checkSynchronous, "no commit of the source waits for walhook")
		return
	}
	rows, err := e.s.Query(ctx, standbyNamesSQL, applicationName)
	var standbys []string
	if err == nil {
		standbys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkSynchronous)
		return
	}
	value, note := "", "no standby is connected: name your own, as in 'FIRST 1 (standby1)'"
	if len(standbys) > 0 {
		for i, name := range standbys {
			standbys[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		}
		value, note = "FIRST 1 ("+strings.Join(standbys, ", ")+")", "these are the connected standbys"
	}
	fix := doctor.Configure(onSource, "synchronous_standby_names", value, false)
	fix[0].Note = note
	e.r.Fail(checkSynchronous, fix, "%s", fault)
}
