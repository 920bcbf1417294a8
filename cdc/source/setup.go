package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/doctor"
	"walhook/schemas"
)

// Plan holds the statements that a source still needs, as a DBA would type them. It does
// not create the slot: walhook does that, together with its snapshot.
type Plan struct {
	// Statements to run, in order. Replica identity comes before publication: a
	// published table without one refuses its own updates and deletes. Publication
	// comes before slot: on PostgreSQL 15 a slot that is older than its publication
	// does not work.
	Statements []Statement
	// Warnings are problems that walhook can work with.
	Warnings []string
	// Suggestions are statements that walhook does not need, and never runs.
	Suggestions []Suggestion

	tables  []table // of the catalog, those that exist
	keyless []*keyFault

	everything       bool   // the publication is FOR ALL TABLES
	system, database string // of the source, where it is
}

// PublishesEverything says that the publication is FOR ALL TABLES.
func (p *Plan) PublishesEverything() bool { return p.everything }

// PublishesOutbox returns an error if the publication would publish an outbox in that
// database: FOR ALL TABLES publishes the rows of every event.
func (p *Plan) PublishesOutbox(cfg Config, system, database string) error {
	if !p.everything || p.system != system || p.database != database {
		return nil
	}
	publication := schemas.QuoteIdent(cfg.WithDefaults().Publication)
	return &checkedFault{
		check: checkOutboxPublished,
		Fault: Fault{
			Problem: fmt.Sprintf("publication %s is FOR ALL TABLES, and the outbox is in the same database: every event would make another event", publication),
			Fix: fmt.Sprintf("use another database for --outbox, or run \"DROP PUBLICATION %s\" as its owner, after which setup creates one of the catalog's tables alone, "+
				"or choose another name with --publication", publication),
		},
	}
}

// Statement is one line of a Plan and the right that it needs.
type Statement struct {
	SQL   string
	Needs string
	// Optional: walhook works without it, but knows less of old rows.
	Optional bool
	// Undo is the statement that teardown runs if nobody changed the state since; ""
	// for none: changes of a publication go with it.
	Undo string

	table    uint32 // OID of a table whose replica identity it changes; 0 for none
	identity schemas.ReplicaIdentity

	publication string // that it makes
	unless      string // a condition under which it was run before; "" for one that may run twice
}

// step is the statement as doctor prints it.
func (s Statement) step() doctor.Step {
	return doctor.Step{Kind: doctor.SQL, On: onSource, Text: s.SQL, Needs: s.Needs, Unless: s.unless}
}

// Suggestion is a statement that a DBA may want, with the reason.
type Suggestion struct {
	SQL, Why string
}

// PlanSetup compares the source with what walhook needs. A [*Fault] says what a superuser
// must fix first.
func PlanSetup(ctx context.Context, cfg Config) (*Plan, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer CloseConn(ctx, conn)
	if err := checkServer(ctx, conn, cfg); err != nil {
		return nil, err
	}
	p := &Plan{}
	if dropsDefaults(conn.PgConn().ParameterStatus("server_version")) {
		p.warn("%s; install the newest minor version", droppedDefaults)
	}
	fault, err := (&Introspector{conn: conn}).TakenForStandby(ctx)
	if err != nil {
		return nil, err
	}
	if fault != "" {
		p.warn("%s; 'walhook doctor' prints the statement that fixes it", fault)
	}
	if err := p.readTables(ctx, conn, cfg); err != nil {
		return nil, err
	}
	return p, p.statements(ctx, conn, cfg)
}

// statements plans what the tables of the plan still need.
func (p *Plan) statements(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	p.planIdentity()
	if err := p.planPublication(ctx, conn, cfg); err != nil {
		return err
	}
	for _, fault := range p.keyless {
		if fix := fault.fix(); !slices.ContainsFunc(p.Statements, func(s Statement) bool { return s.SQL == fix }) {
			p.warn("%s; to change that: %s", fault.problem, fix)
		}
	}
	return p.suggestEmitters(ctx, conn)
}

// publicEmittersSQL lists the functions that emit logical messages and that every role
// may call, with the signatures of this server version.
const publicEmittersSQL = `
	SELECT pg_catalog.format('pg_catalog.pg_logical_emit_message(%s)', pg_catalog.oidvectortypes(p.proargtypes))
	FROM pg_catalog.pg_proc p
	WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
		AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
			WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
	ORDER BY p.oid`

// suggestEmitters suggests to revoke the right to emit messages, which walhook signs.
func (p *Plan) suggestEmitters(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, publicEmittersSQL)
	if err != nil {
		return fmt.Errorf("check who may emit logical messages: %w", err)
	}
	functions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("check who may emit logical messages: %w", err)
	}
	for _, function := range functions {
		p.Suggestions = append(p.Suggestions, Suggestion{
			SQL: "REVOKE EXECUTE ON FUNCTION " + function + " FROM PUBLIC",
			Why: "this keeps other roles from emitting messages, which every role that can connect may do now; GRANT it to the roles that emit",
		})
	}
	return nil
}

// readTables reads the catalog's tables, without those that cannot be published.
func (p *Plan) readTables(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	tables, err := lookAtTables(ctx, conn, cfg, "")
	if err != nil {
		return err
	}
	for _, t := range tables {
		if fault := t.fault(cfg); fault != nil {
			return fault
		}
	}
	p.take(tables)
	return nil
}

// take makes the plan about the tables that can be published.
func (p *Plan) take(tables []tableState) {
	for _, t := range tables {
		switch {
		case !t.exists:
			p.warn("table %s of the catalog does not exist: left out", t.name)
		case !t.logged:
			p.warn("table %s is unlogged, its changes never reach the WAL: left out", t.name)
		default:
			p.tables = append(p.tables, t.table)
			if t.key != nil {
				p.keyless = append(p.keyless, t.key)
			}
		}
	}
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

const publicationStateSQL = `
	SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate,
		coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's' OR NOT pg_has_role(pubowner, 'USAGE')
	FROM pg_publication p WHERE pubname = $1`

// publishesGeneratedSQL reports whether this server's publications can send stored
// generated columns.
const publishesGeneratedSQL = `SELECT current_setting('server_version_num')::int >= 180000`

func (p *Plan) planPublication(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	publication := schemas.QuoteIdent(cfg.Publication)
	viaRoot := slices.ContainsFunc(p.tables, func(t table) bool { return t.partitioned })
	var allTables, everything, generated, mayGenerated bool
	err := conn.QueryRow(ctx, publicationStateSQL, cfg.Publication).Scan(&allTables, &everything, &generated)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := conn.QueryRow(ctx, publishesGeneratedSQL).Scan(&mayGenerated); err != nil {
			return fmt.Errorf("read the server's version: %w", err)
		}
		var options []string
		if viaRoot {
			options = append(options, "publish_via_partition_root = true")
		}
		if mayGenerated {
			options = append(options, "publish_generated_columns = stored")
		}
		sql := fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s", publication, tableList(p.tables))
		if len(options) > 0 {
			sql += " WITH (" + strings.Join(options, ", ") + ")"
		}
		p.add(sql, "CREATE on the database and ownership of the tables")
		last := &p.Statements[len(p.Statements)-1]
		last.Undo, last.publication = "DROP PUBLICATION "+publication, cfg.Publication
		last.unless = fmt.Sprintf("EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = %s)", doctor.QuoteLiteral(cfg.Publication))
		return nil
	}
	if err != nil {
		return fmt.Errorf("read publication %s: %w", cfg.Publication, err)
	}
	if allTables {
		p.everything = true
		if err := conn.QueryRow(ctx, sourceIDSQL).Scan(&p.system, &p.database, nil); err != nil {
			return fmt.Errorf("identify the source: %w", err)
		}
	}
	if !everything {
		p.add(fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate')", publication),
			"ownership of the publication")
	}
	if !generated {
		// First: until then the server refuses the updates of a published table
		// under FULL that has a generated column.
		p.Statements = slices.Insert(p.Statements, 0, Statement{SQL: publishGeneratedSQL(cfg.Publication), Needs: "ownership of the publication"})
	}
	if missing := missingTables(p.tables); len(missing) > 0 && !allTables {
		p.add(fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", publication, strings.Join(missing, ", ")),
			"ownership of the publication and of the tables")
		first := strings.TrimPrefix(missing[0], "ONLY ") // the statement adds all of them or none
		p.Statements[len(p.Statements)-1].unless = fmt.Sprintf("EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid "+
			"WHERE p.pubname = %s AND r.prrelid = %s::pg_catalog.regclass)", doctor.QuoteLiteral(cfg.Publication), doctor.QuoteLiteral(first))
	}
	return nil
}

// planIdentity plans REPLICA IDENTITY FULL: without it a DELETE has only the key, and an
// unchanged TOAST value is absent. walhook can work without, unless the table has no
// replica identity at all. A table whose updates would fail under every identity, once
// it is published, is left out.
func (p *Plan) planIdentity() {
	var left []uint32
	p.tables = slices.DeleteFunc(p.tables, func(t table) bool {
		var statements []Statement
		for _, l := range slices.Clone(t.identities) {
			statement, ok := l.identity()
			if !ok && l.Child {
				p.warn("table %s has no published primary key, and %s: the server would refuse its updates, so its rows are left out of %s", l.name(), l.refusesFull(), t.name)
				left = append(left, l.OID)
				continue
			}
			if !ok {
				p.warn("table %s has no published primary key, and %s: the server would refuse its updates, so it is left out", t.name, l.refusesFull())
				return true
			}
			if why := l.refusesFull(); why != "" {
				p.warn("table %s cannot have REPLICA IDENTITY FULL, with which the server would refuse its updates (%s): its deletes carry only the key", l.name(), why)
			}
			if statement.SQL != "" {
				statements = append(statements, statement)
			}
		}
		p.Statements = append(p.Statements, statements...)
		return false
	})
	for i := range p.tables {
		p.tables[i].identities = slices.DeleteFunc(p.tables[i].identities, func(l identityTable) bool { return slices.Contains(left, l.OID) })
	}
}

func (p *Plan) add(sql, needs string) {
	p.Statements = append(p.Statements, Statement{SQL: sql, Needs: needs})
}

// tableList lists tables for a publication. It lists a table with children by ONLY, and
// the children too: children without an identity must not be published.
func tableList(tables []table) string {
	var names []string
	for _, t := range tables {
		names = append(names, t.inPublication())
		for _, l := range t.children() {
			names = append(names, "ONLY "+l.name().String())
		}
	}
	return strings.Join(names, ", ")
}

// missingTables lists the tables that are not in the publication.
func missingTables(tables []table) (names []string) {
	for _, t := range tables {
		if !t.published {
			names = append(names, t.inPublication())
		}
		for _, l := range t.children() {
			if !l.Published {
				names = append(names, "ONLY "+l.name().String())
			}
		}
	}
	return names
}

func (t table) children() []identityTable {
	return slices.DeleteFunc(slices.Clone(t.identities), func(l identityTable) bool { return !l.Child })
}

func (t table) inPublication() string {
	if len(t.children()) > 0 || t.hasChildren {
		return "ONLY " + t.name.String()
	}
	return t.name.String()
}

// minServerVersion is the first version whose pgoutput sends logical messages.
const minServerVersion = 140000

const serverSQL = `
	SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_user::text,
		current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`

// server holds the server's settings that logical replication needs.
type server struct {
	version        int
	walLevel, role string
	slots, senders int // their limits
}

func readServer(ctx context.Context, q querier) (s server, err error) {
	if err := q.QueryRow(ctx, serverSQL).Scan(&s.version, &s.walLevel, &s.role, &s.slots, &s.senders); err != nil {
		return s, fmt.Errorf("read the source's settings: %w", err)
	}
	return s, nil
}

// faults returns the problems that prevent replication from the server.
func (s server) faults() (faults []*checkedFault) {
	if s.version < minServerVersion {
		faults = append(faults, &checkedFault{check: checkVersion, Fault: Fault{Problem: fmt.Sprintf("the source is PostgreSQL %d", s.version/10000), Fix: "walhook needs 14 or newer"}})
	}
	if s.walLevel != "logical" {
		faults = append(faults, &checkedFault{
			check: checkWALLevel,
			Fault: Fault{
				Problem: fmt.Sprintf("wal_level is %s on the source, logical replication needs logical", s.walLevel),
				Fix:     "run \"ALTER SYSTEM SET wal_level = 'logical'\" as a superuser and restart the server",
			},
			steps: doctor.Configure(onSource, "wal_level", "logical", true),
		})
	}
	const none, fix = "the source allows no replication slots or no WAL senders", "raise max_replication_slots and max_wal_senders and restart the server"
	if s.slots == 0 {
		faults = append(faults, &checkedFault{check: checkSlots, Fault: Fault{Problem: none, Fix: fix},
			steps: doctor.Configure(onSource, "max_replication_slots", "10", true)})
	}
	if s.senders == 0 {
		faults = append(faults, &checkedFault{check: checkSenders, Fault: Fault{Problem: none, Fix: fix},
			steps: doctor.Configure(onSource, "max_wal_senders", "10", true)})
	}
	return faults
}

// dropsDefaults reports whether the server has the bug that [dropsDefaults] names.
func (s server) dropsDefaults() bool {
	return dropsDefaults(fmt.Sprintf("%d.%d", s.version/10000, s.version%10000))
}

// droppedDefaults describes that bug and its fix.
const droppedDefaults = "this minor version of PostgreSQL sends old rows without the values of columns that were added later with a default (fixed in 15.6 and 16.2): " +
	"walhook treats such a null as unknown"

// roleFault makes a [Fault] of the error of a replication session if the role lacks the
// right.
func (s server) roleFault(err error) error {
	if sqlState(err) != codeInsufficientRights {
		return err
	}
	if said, ok := errors.AsType[*Fault](err); ok && said.Err != nil {
		err = said.Err // it says the same without the role's name
	}
	steps := doctor.AllowReplication(onSource, s.role)
	return &checkedFault{check: checkRole, steps: steps,
		Fault: Fault{Problem: fmt.Sprintf("role %s lacks REPLICATION", s.role), Fix: fmt.Sprintf("run %q as a superuser", steps[0].Text), Err: err}}
}

func checkServer(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	s, err := readServer(ctx, conn)
	if err != nil {
		return err
	}
	if faults := s.faults(); len(faults) > 0 {
		return faults[0]
	}
	// Connecting is the test: hosted services grant the right in their own ways.
	replication, err := cfg.connectReplication(ctx)
	if err != nil {
		return s.roleFault(err)
	}
	CloseConn(ctx, replication)
	return nil
}

// lockTimeoutSQL bounds how long a statement waits for a table's lock: the carrier's later
// statements queue behind it.
const lockTimeoutSQL = "SET lock_timeout = '3s'"

// Apply runs the plan's statements, and notes in kept what teardown must undo. If the
// role lacks the right for a statement, that is a warning for an optional one, and
// otherwise a [*Fault].
func (p *Plan) Apply(ctx context.Context, cfg Config, kept Changes, log *zap.Logger) error {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer CloseConn(ctx, conn)
	if _, err := conn.Exec(ctx, lockTimeoutSQL); err != nil {
		return fmt.Errorf("set lock_timeout: %w", err)
	}
	for _, warning := range p.Warnings {
		log.Warn(warning)
	}
	for _, statement := range p.Statements {
		err := statement.run(ctx, conn, kept)
		if err == nil {
			log.Info("source prepared", zap.String("sql", statement.SQL))
			continue
		}
		pgErr, refused := errors.AsType[*pgconn.PgError](err)
		if refused && pgErr.Code == codeInsufficientRights && statement.Optional {
			log.Warn("not permitted, continuing without it: deletes will carry only the key, and large values that an update leaves unchanged may be absent",
				zap.String("sql", statement.SQL), zap.String("needs", statement.Needs))
			continue
		}
		if sqlState(err) == codeLockNotAvailable {
			return &Fault{Problem: fmt.Sprintf("cannot run %q on the source: a running transaction locks the table", statement.SQL),
				Fix: "run setup again when it has ended", Err: err}
		}
		return &Fault{Problem: fmt.Sprintf("cannot run %q on the source", statement.SQL),
			Fix: fmt.Sprintf("it needs %s; let a DBA run what 'walhook setup --dry-run' prints, then run setup again", statement.Needs),
			Err: err}
	}
	return nil
}

func (s Statement) run(ctx context.Context, conn execer, kept Changes) error {
	switch {
	case s.table != 0:
		return setIdentity(ctx, conn, kept, s.table, s.identity)
	case s.Undo != "":
		return changeSource(ctx, conn, kept, s.SQL, schemas.SourceChange{Kind: schemas.PublicationChange, Name: s.publication, After: s.SQL})
	}
	_, err := conn.Exec(ctx, s.SQL)
	return err
}
