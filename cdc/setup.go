package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// Plan is what a source still needs, as a DBA would type it. The slot is not
// in it: walhook makes it itself, together with its snapshot.
type Plan struct {
	// Statements to run, in order. Replica identity comes before publication:
	// a published table without one refuses its own updates and deletes.
	// Publication comes before slot: on PostgreSQL 15 a slot made before its
	// publication stays broken.
	Statements []Statement
	// Warnings are what walhook can work with but somebody should know.
	Warnings []string
	// Suggestions are statements that walhook works without, and never runs.
	Suggestions []Suggestion

	tables  []table // of the catalog, those that exist
	keyless []*keyFault

	everything       bool   // the publication is FOR ALL TABLES
	system, database string // of the source, where it is
}

// PublishesEverything says that the publication is one of all tables.
func (p *Plan) PublishesEverything() bool { return p.everything }

// PublishesOutbox says why an outbox in that database cannot be used with the
// publication: one of all tables would publish what each event writes. It is nil
// where it can.
func (p *Plan) PublishesOutbox(cfg Config, system, database string) error {
	if !p.everything || p.system != system || p.database != database {
		return nil
	}
	publication := schemas.QuoteIdent(cfg.withDefaults().Publication)
	return &Fault{
		check:   checkOutboxPublished,
		Problem: fmt.Sprintf("publication %s is FOR ALL TABLES, and the outbox is in the same database: every event would make another", publication),
		Mend: fmt.Sprintf("give --outbox a database of its own, or run \"DROP PUBLICATION %s\" as its owner, after which setup makes one of the catalog's tables alone, "+
			"or choose another name with --publication", publication),
	}
}

// Statement is one line of a Plan and the right that it needs.
type Statement struct {
	SQL   string
	Needs string
	// Optional: without it walhook works, only less is known of old rows.
	Optional bool
	// Undo is what teardown runs where nobody changed it since; "" for nothing
	// of its own, as what is done to a publication goes with it.
	Undo string

	table    uint32 // OID of the table that gets another replica identity; 0 for none
	identity schemas.ReplicaIdentity

	publication string // that it makes
}

// Suggestion is a statement that a DBA may want, and why.
type Suggestion struct {
	SQL, Why string
}

// PlanSetup compares the source with what walhook needs. A [*Fault] says what
// a superuser has to mend first.
func PlanSetup(ctx context.Context, cfg Config) (*Plan, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer closeConn(ctx, conn)
	if err := checkServer(ctx, conn, cfg); err != nil {
		return nil, err
	}
	p := &Plan{}
	if dropsDefaults(conn.PgConn().ParameterStatus("server_version")) {
		p.warn("%s; install the newest minor version", droppedDefaults)
	}
	names, err := (&catalogReader{conn: conn}).synchronousNames(ctx)
	if err != nil {
		return nil, err
	}
	if fault := synchronousFault(names); fault != "" {
		p.warn("%s; 'walhook doctor' prints the statement that fixes it", fault)
	}
	if err := p.readTables(ctx, conn, cfg); err != nil {
		return nil, err
	}
	p.planIdentity()
	if err := p.planPublication(ctx, conn, cfg); err != nil {
		return nil, err
	}
	for _, fault := range p.keyless {
		if fix := fault.fix(); !slices.ContainsFunc(p.Statements, func(s Statement) bool { return s.SQL == fix }) {
			p.warn("%s; to change that: %s", fault.problem, fix)
		}
	}
	return p, p.suggestEmitters(ctx, conn)
}

// publicEmittersSQL lists the functions that emit logical messages and that
// everybody may call, as the server's version declares them.
const publicEmittersSQL = `
	SELECT pg_catalog.format('pg_catalog.pg_logical_emit_message(%s)', pg_catalog.oidvectortypes(p.proargtypes))
	FROM pg_catalog.pg_proc p
	WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
		AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
			WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
	ORDER BY p.oid`

// suggestEmitters suggests to keep others from emitting what walhook signs.
func (p *Plan) suggestEmitters(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, publicEmittersSQL)
	if err != nil {
		return fmt.Errorf("look at who may emit logical messages: %w", err)
	}
	functions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look at who may emit logical messages: %w", err)
	}
	for _, function := range functions {
		p.Suggestions = append(p.Suggestions, Suggestion{
			SQL: "REVOKE EXECUTE ON FUNCTION " + function + " FROM PUBLIC",
			Why: "keeps other roles from emitting messages, which every role that can connect may do now; GRANT it to the roles that emit",
		})
	}
	return nil
}

// readTables finds the catalog's tables and leaves out those that cannot be
// published.
func (p *Plan) readTables(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	tables, err := lookAtTables(ctx, conn, cfg)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if fault := t.fault(cfg); fault != nil {
			return fault
		}
		switch {
		case !t.exists:
			p.warn("table %s of the catalog does not exist, it is left out", t.name)
		case !t.logged:
			p.warn("table %s is not logged, its changes never reach the WAL: it is left out", t.name)
		default:
			p.tables = append(p.tables, t.table)
			if t.key != nil {
				p.keyless = append(p.keyless, t.key)
			}
		}
	}
	return nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

const publicationStateSQL = `
	SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate,
		coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's' OR NOT pg_has_role(pubowner, 'USAGE')
	FROM pg_publication p WHERE pubname = $1`

// publishesGeneratedSQL says whether a publication may send stored generated
// columns.
const publishesGeneratedSQL = `SELECT current_setting('server_version_num')::int >= 180000`

func (p *Plan) planPublication(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	publication := schemas.QuoteIdent(cfg.Publication)
	viaRoot := slices.ContainsFunc(p.tables, func(t table) bool { return t.partitioned })
	var allTables, everything, generated, mayGenerated bool
	err := conn.QueryRow(ctx, publicationStateSQL, cfg.Publication).Scan(&allTables, &everything, &generated)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := conn.QueryRow(ctx, publishesGeneratedSQL).Scan(&mayGenerated); err != nil {
			return fmt.Errorf("look at the server's version: %w", err)
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
		p.Statements[len(p.Statements)-1].Undo = "DROP PUBLICATION " + publication
		p.Statements[len(p.Statements)-1].publication = cfg.Publication
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
	}
	if allTables {
		p.everything = true
		if err := conn.QueryRow(ctx, sourceIDSQL).Scan(&p.system, &p.database, nil); err != nil {
			return fmt.Errorf("ask which source this is: %w", err)
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
	if missing := missingList(p.tables); missing != "" && !allTables {
		p.add(fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", publication, missing),
			"ownership of the publication and of the tables")
	}
	return nil
}

// planIdentity asks for the whole old row in the log: without it a DELETE
// carries its key only, and an unchanged TOAST value is absent. walhook can do
// without, unless the table has no replica identity at all. A table that can
// have none that lets it be updated once it is published is left out.
func (p *Plan) planIdentity() {
	var left []uint32
	p.tables = slices.DeleteFunc(p.tables, func(t table) bool {
		var statements []Statement
		for _, l := range slices.Clone(t.loggers) {
			statement, ok := l.identity()
			if !ok && l.Child {
				p.warn("table %s has no primary key that is published, and %s: the server would refuse its updates, its rows are left out of %s", l.name(), l.refusesFull(), t.name)
				left = append(left, l.OID)
				continue
			}
			if !ok {
				p.warn("table %s has no primary key that is published, and %s: the server would refuse its updates, it is left out", t.name, l.refusesFull())
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
		p.tables[i].loggers = slices.DeleteFunc(p.tables[i].loggers, func(l logger) bool { return slices.Contains(left, l.OID) })
	}
}

func (p *Plan) add(sql, needs string) {
	p.Statements = append(p.Statements, Statement{SQL: sql, Needs: needs})
}

// tableList names tables as a publication takes them. A table with children
// stands for itself alone, and they are named: those that have no identity must
// not be published with it.
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

// missingList names what is not in the publication.
func missingList(tables []table) string {
	var names []string
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
	return strings.Join(names, ", ")
}

func (t table) children() []logger {
	return slices.DeleteFunc(slices.Clone(t.loggers), func(l logger) bool { return !l.Child })
}

func (t table) inPublication() string {
	if len(t.children()) > 0 || t.hasChildren {
		return "ONLY " + t.name.String()
	}
	return t.name.String()
}
