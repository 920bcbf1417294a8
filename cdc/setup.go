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

	tables []table // of the catalog, those that exist
}

// Statement is one line of a Plan and the right that it needs.
type Statement struct {
	SQL   string
	Needs string
	// Optional: without it walhook works, only less is known of old rows.
	Optional bool
}

// table is a table of the catalog as the source has it.
type table struct {
	name        schemas.TableName
	loggers     []logger // the table itself, or a partitioned one and its partitions
	partitioned bool
	published   bool
}

// logger is a table whose changes are logged with a replica identity of its own.
type logger struct {
	Namespace, Name string
	Full            bool
	Updatable       bool // published, its updates and deletes go on to work
	// Generated says that it has generated columns on a server (18 and newer)
	// which then refuses its updates under FULL once it is published.
	Generated bool
	Keyed     bool // it has a primary key, so that DEFAULT will do
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
	if err := p.readTables(ctx, conn, cfg); err != nil {
		return nil, err
	}
	p.planIdentity()
	if err := p.planPublication(ctx, conn, cfg); err != nil {
		return nil, err
	}
	return p, nil
}

const (
	// A partitioned table may be in the publication though it is published
	// as its partitions.
	tableSQL = `
		SELECT c.oid, c.relkind = 'p', c.relpersistence::text, has_table_privilege(c.oid, 'SELECT'),
			EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $3 AND t.schemaname = n.nspname AND t.tablename = c.relname)
			OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
				WHERE p.pubname = $3 AND r.prrelid = c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

	// PostgreSQL 18: the replica identity must not hold a generated column
	// that is not published.
	refusesFullSQL = `(current_setting('server_version_num')::int >= 180000 AND EXISTS (
		SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attgenerated <> ''))`

	// Partitions log their own changes, and what a table has is not theirs.
	loggersSQL = `
		SELECT n.nspname::text, c.relname::text, c.relreplident = 'f',
			c.relkind = 'p' OR c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
				AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END),
			` + refusesFullSQL + `,
			c.relkind = 'p' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisprimary AND i.indimmediate)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1))
		ORDER BY c.oid = $1, n.nspname, c.relname`
)

func (p *Plan) readTables(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	for _, name := range cfg.Catalog.Tables() {
		var oid uint32
		var persistence string
		var readable bool
		t := table{name: name}
		err := conn.QueryRow(ctx, tableSQL, name.Namespace, name.Name, cfg.Publication).
			Scan(&oid, &t.partitioned, &persistence, &readable, &t.published)
		if errors.Is(err, pgx.ErrNoRows) {
			if name == cfg.Catalog.Account.Table {
				return &Fault{Problem: fmt.Sprintf("the account table %s does not exist in the source", name),
					Mend: "correct --source, or name the table in a catalog file with --catalog"}
			}
			p.warn("table %s of the catalog does not exist, it is left out", name)
			continue
		}
		if err != nil {
			return fmt.Errorf("look at table %s: %w", name, err)
		}
		if persistence != "p" {
			p.warn("table %s is not logged, its changes never reach the WAL: it is left out", name)
			continue
		}
		if !readable {
			return &Fault{Problem: fmt.Sprintf("the source's role may not read table %s", name),
				Mend: fmt.Sprintf("as its owner: GRANT SELECT ON %s TO the role (and USAGE on its schema)", name)}
		}
		rows, err := conn.Query(ctx, loggersSQL, oid)
		if err == nil {
			t.loggers, err = pgx.CollectRows(rows, pgx.RowToStructByPos[logger])
		}
		if err != nil {
			return fmt.Errorf("look at the replica identity of %s: %w", name, err)
		}
		p.tables = append(p.tables, t)
	}
	return nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

const publicationStateSQL = `
	SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate
	FROM pg_publication WHERE pubname = $1`

func (p *Plan) planPublication(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	publication := schemas.QuoteIdent(cfg.Publication)
	viaRoot := slices.ContainsFunc(p.tables, func(t table) bool { return t.partitioned })
	var allTables, everything bool
	err := conn.QueryRow(ctx, publicationStateSQL, cfg.Publication).Scan(&allTables, &everything)
	if errors.Is(err, pgx.ErrNoRows) {
		sql := fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s", publication, tableList(p.tables))
		if viaRoot {
			sql += " WITH (publish_via_partition_root = true)"
		}
		p.add(sql, "CREATE on the database and ownership of the tables")
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at publication %s: %w", cfg.Publication, err)
	}
	if !everything {
		p.add(fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate')", publication),
			"ownership of the publication")
	}
	missing := slices.DeleteFunc(slices.Clone(p.tables), func(t table) bool { return t.published })
	if len(missing) > 0 && !allTables {
		p.add(fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", publication, tableList(missing)),
			"ownership of the publication and of the tables")
	}
	return nil
}

// planIdentity asks for the whole old row in the log: without it a DELETE
// carries its key only, and an unchanged TOAST value is absent. walhook can do
// without, unless the table has no replica identity at all. A table that can
// have none that lets it be updated once it is published is left out.
func (p *Plan) planIdentity() {
	p.tables = slices.DeleteFunc(p.tables, func(t table) bool {
		var statements []Statement
		for _, l := range t.loggers {
			statement, ok := l.identity()
			if !ok {
				p.warn("table %s has generated columns and no primary key: the server would refuse its updates, it is left out", t.name)
				return true
			}
			if l.Generated {
				p.warn("table %s has generated columns, with which this server refuses REPLICA IDENTITY FULL: "+
					"its deletes carry only the key", schemas.TableName{Namespace: l.Namespace, Name: l.Name})
			}
			if statement.SQL != "" {
				statements = append(statements, statement)
			}
		}
		p.Statements = append(p.Statements, statements...)
		return false
	})
}

// identity is what mends a table's replica identity, if anything. It is false
// when nothing does.
func (l logger) identity() (statement Statement, ok bool) {
	name := schemas.TableName{Namespace: l.Namespace, Name: l.Name}
	switch {
	case l.Generated && (l.Full || !l.Updatable):
		return Statement{
			SQL:   fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT", name),
			Needs: "ownership of the table (it has generated columns: once published, its own updates would fail)",
		}, l.Keyed
	case l.Generated, l.Full:
		return Statement{}, true
	}
	statement = Statement{
		SQL:   fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL", name),
		Needs: "ownership of the table", Optional: l.Updatable,
	}
	if !l.Updatable {
		statement.Needs += " (it has no replica identity: once published, its own updates and deletes would fail)"
	}
	return statement, true
}

func (p *Plan) add(sql, needs string) {
	p.Statements = append(p.Statements, Statement{SQL: sql, Needs: needs})
}

func tableList(tables []table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.name.String()
	}
	return strings.Join(names, ", ")
}
