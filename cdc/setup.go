package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
)

// minServerVersion is the oldest server whose pgoutput carries logical
// messages.
const minServerVersion = 140000

// Plan is what a source still needs, as a DBA would type it. The slot is not
// in it: walhook makes it itself, together with its snapshot.
type Plan struct {
	// Statements to run, in order. Publication comes before slot: on
	// PostgreSQL 15 a slot made before its publication stays broken.
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
	identity    schemas.ReplicaIdentity
	partitioned bool
	published   bool
	persistence byte // p, u (unlogged) or t
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
	if err := checkServer(ctx, conn); err != nil {
		return nil, err
	}
	p := &Plan{}
	if err := p.readTables(ctx, conn, cfg); err != nil {
		return nil, err
	}
	if err := p.planPublication(ctx, conn, cfg); err != nil {
		return nil, err
	}
	p.planIdentity()
	return p, nil
}

const serverSQL = `
	SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
		(SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), current_user::text,
		current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`

func checkServer(ctx context.Context, conn *pgx.Conn) error {
	var version, slots, senders int
	var walLevel, role string
	var replication bool
	if err := conn.QueryRow(ctx, serverSQL).Scan(&version, &walLevel, &replication, &role, &slots, &senders); err != nil {
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
	case !replication:
		return &Fault{Problem: fmt.Sprintf("role %s may not replicate", role),
			Mend: fmt.Sprintf("run \"ALTER ROLE %s REPLICATION\" as a superuser", schemas.QuoteIdent(role))}
	}
	return nil
}

const tableSQL = `
	SELECT c.relreplident::text, c.relkind = 'p', c.relpersistence::text, has_table_privilege(c.oid, 'SELECT'),
		EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $3 AND t.schemaname = n.nspname AND t.tablename = c.relname)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

func (p *Plan) readTables(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	for _, name := range cfg.Catalog.Tables() {
		var identity, persistence string
		var readable bool
		t := table{name: name}
		err := conn.QueryRow(ctx, tableSQL, name.Namespace, name.Name, cfg.Publication).
			Scan(&identity, &t.partitioned, &persistence, &readable, &t.published)
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
		t.identity, t.persistence = schemas.ReplicaIdentity(identity[0]), persistence[0]
		if t.persistence != 'p' {
			p.warn("table %s is not logged, its changes never reach the WAL: it is left out", name)
			continue
		}
		if !readable {
			return &Fault{Problem: fmt.Sprintf("the source's role may not read table %s", name),
				Mend: fmt.Sprintf("as its owner: GRANT SELECT ON %s TO the role (and USAGE on its schema)", name)}
		}
		p.tables = append(p.tables, t)
	}
	return nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

const publicationStateSQL = `
	SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot
	FROM pg_publication WHERE pubname = $1`

func (p *Plan) planPublication(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	publication := schemas.QuoteIdent(cfg.Publication)
	viaRoot := slices.ContainsFunc(p.tables, func(t table) bool { return t.partitioned })
	var allTables, everything, viaRootNow bool
	err := conn.QueryRow(ctx, publicationStateSQL, cfg.Publication).Scan(&allTables, &everything, &viaRootNow)
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
	if viaRoot && !viaRootNow {
		p.add(fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", publication), "ownership of the publication")
	}
	missing := slices.DeleteFunc(slices.Clone(p.tables), func(t table) bool { return t.published })
	if len(missing) > 0 && !allTables {
		p.add(fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", publication, tableList(missing)),
			"ownership of the publication and of the tables")
	}
	return nil
}

// planIdentity asks for the whole old row in the log: without it a DELETE
// carries its key only, and an unchanged TOAST value is absent.
func (p *Plan) planIdentity() {
	for _, t := range p.tables {
		if t.identity == schemas.IdentityFull {
			continue
		}
		p.Statements = append(p.Statements, Statement{
			SQL:   fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL", t.name),
			Needs: "ownership of the table", Optional: true,
		})
	}
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

// Apply runs the plan's statements. One that is refused for lack of a right
// is a warning where walhook can do without it, otherwise a [*Fault].
func (p *Plan) Apply(ctx context.Context, cfg Config, log *zap.Logger) error {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	for _, warning := range p.Warnings {
		log.Warn(warning)
	}
	for _, statement := range p.Statements {
		_, err := conn.Exec(ctx, statement.SQL)
		if err == nil {
			log.Info("source prepared", zap.String("sql", statement.SQL))
			continue
		}
		pgErr, refused := errors.AsType[*pgconn.PgError](err)
		if refused && pgErr.Code == codeInsufficientRights && statement.Optional {
			log.Warn("not allowed, going on without: deletes will carry only the key, and values that an update did not touch may be absent",
				zap.String("sql", statement.SQL), zap.String("needs", statement.Needs))
			continue
		}
		return &Fault{Problem: fmt.Sprintf("cannot run %q on the source", statement.SQL),
			Mend: fmt.Sprintf("it needs %s; let a DBA run what 'walhook setup --dry-run' prints, then run setup again", statement.Needs),
			Err:  err}
	}
	return nil
}
