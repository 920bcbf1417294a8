package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// table is a table of the catalog as the source has it.
type table struct {
	name        schemas.TableName
	loggers     []logger // the table itself, its partitions, and the tables that inherit from it
	partitioned bool
	hasChildren bool // tables inherit from it, be they the catalog's own or left out
	published   bool
}

// logger is a table whose changes are logged with a replica identity of its own.
type logger struct {
	OID             uint32
	Identity        string // as setIdentity notes it
	Namespace, Name string
	Full            bool
	Updatable       bool // published, its updates and deletes go on to work
	// Generated says that it has generated columns on a server (18 and newer)
	// which refuses its updates under FULL however it is published.
	Generated bool
	// Listed says that a publication, be it another's, sends it with a list of
	// columns: the server refuses its updates under FULL, whatever the list holds.
	Listed bool
	// Unpublished says that the publication, as it is now, does not send them.
	Unpublished bool
	Keyed       bool // it has a primary key, and lists of columns hold it, so that DEFAULT will do
	// Child says that it inherits from the table: its rows are the table's too,
	// and it is published by itself. Published says whether it is.
	Child, Published bool
	// Nameless says that its old rows lack what names a record.
	Nameless bool `db:"-"`
}

func (l logger) name() schemas.TableName {
	return schemas.TableName{Namespace: l.Namespace, Name: l.Name}
}

// tableState is a table of the catalog, which the source may not have.
type tableState struct {
	table
	exists   bool
	oid      uint32
	logged   bool      // its changes reach the WAL
	readable bool      // the role may read it
	whole    bool      // and is shown every row
	vague    string    // a column that names accounts or records whose texts do not tell which values are the same; "" for none
	role     string    // whose rights these are
	key      *keyFault // why its records have no key; nil where they have one
}

const (
	// A partitioned table may be in the publication though it is published
	// as its partitions.
	tableSQL = `
		SELECT c.oid, c.relkind = 'p', c.relpersistence = 'p',
			has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), NOT row_security_active(c.oid), current_user::text,
			EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $3 AND t.schemaname = n.nspname AND t.tablename = c.relname)
			OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
				WHERE p.pubname = $3 AND r.prrelid = c.oid),
			c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

	// PostgreSQL 18: the replica identity of a published table must not hold a
	// generated column that some publication does not send, as none sends a
	// virtual one. Ours, named by $2, is made to send stored ones, where the
	// role may.
	refusesFullSQL = `(current_setting('server_version_num')::int >= 180000 AND EXISTS (
		SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '' AND (
			a.attgenerated = 'v'
			OR NOT EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $2 AND pg_has_role(p.pubowner, 'USAGE')) AND ` + unsentSQL + `
			OR EXISTS (SELECT FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname AND (p.pubupdate OR p.pubdelete)
				WHERE t.pubname <> $2 AND t.schemaname = n.nspname AND t.tablename = c.relname AND NOT to_jsonb(t) -> 'attnames' ? a.attname::text))))`

	// A generated column that our publication, if there is one, does not send.
	unsentSQL = `(a.attgenerated = 'v' OR EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $2 AND coalesce(to_jsonb(p) ->> 'pubgencols', 'n') <> 's')
		AND NOT EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $2
			AND t.schemaname = n.nspname AND t.tablename = c.relname AND to_jsonb(t) -> 'attnames' ? a.attname::text))`

	// The publications that send updates of a table with a list of columns: since
	// PostgreSQL 15, and of a partition by its root's.
	listsSQL = `pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid AND (p.pubupdate OR p.pubdelete) AND to_jsonb(r) ->> 'prattrs' IS NOT NULL
			AND (r.prrelid = c.oid OR p.pubviaroot AND r.prrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))`

	// A column of the primary key that such a list leaves out.
	keyOutsideListsSQL = `EXISTS (SELECT FROM ` + listsSQL + `
			JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
			WHERE NOT EXISTS (SELECT FROM pg_attribute sent WHERE sent.attrelid = r.prrelid AND sent.attname = a.attname
				AND to_jsonb(r) -> 'prattrs' @> to_jsonb(sent.attnum)))`

	// Partitions and children log their own changes, and what a table has is not
	// theirs. A child that the catalog names is a table by itself.
	loggersSQL = `
		WITH RECURSIVE tree (oid) AS (
			SELECT $1::oid
			UNION
			SELECT c.oid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid JOIN pg_class c ON c.oid = i.inhrelid
			JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT EXISTS (
				SELECT FROM unnest($3::text[], $4::text[]) AS named (namespace, name) WHERE named.namespace = n.nspname AND named.name = c.relname)
		)
		SELECT c.oid, ` + identityTextSQL + `, n.nspname::text, c.relname::text, c.relreplident = 'f',
			c.relkind = 'p' OR c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
				AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END),
			` + refusesFullSQL + `,
			EXISTS (SELECT FROM ` + listsSQL + `),
			current_setting('server_version_num')::int >= 180000 AND EXISTS (SELECT FROM pg_attribute a
				WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '' AND ` + unsentSQL + `),
			(c.relkind = 'p' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisprimary AND i.indimmediate))
			AND NOT ` + keyOutsideListsSQL + `,
			c.oid <> $1 AND NOT c.relispartition,
			EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $2 AND t.schemaname = n.nspname AND t.tablename = c.relname)
		FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
		ORDER BY c.oid = $1, n.nspname, c.relname`
)

// lookAtTables looks at every table of the catalog.
func lookAtTables(ctx context.Context, q querier, cfg Config) ([]tableState, error) {
	var tables []tableState
	namespaces, names := tableNames(cfg.Catalog)
	for _, name := range cfg.Catalog.Tables() {
		t := tableState{table: table{name: name}, exists: true}
		err := q.QueryRow(ctx, tableSQL, name.Namespace, name.Name, cfg.Publication).
			Scan(&t.oid, &t.partitioned, &t.logged, &t.readable, &t.whole, &t.role, &t.published, &t.hasChildren)
		if errors.Is(err, pgx.ErrNoRows) {
			tables = append(tables, tableState{table: table{name: name}})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at table %s: %w", name, err)
		}
		rows, err := q.Query(ctx, loggersSQL, t.oid, cfg.Publication, namespaces, names)
		if err == nil {
			t.loggers, err = pgx.CollectRows(rows, pgx.RowToStructByPos[logger])
		}
		if err != nil {
			return nil, fmt.Errorf("look at the replica identity of %s: %w", name, err)
		}
		if err := t.findNameless(ctx, q, cfg); err != nil {
			return nil, err
		}
		if err := t.findColumns(ctx, q, cfg); err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// findNameless finds whose old rows lack what names a record: then a delete
// names nobody, and a change of key cannot be seen.
func (t *tableState) findNameless(ctx context.Context, q querier, cfg Config) error {
	if cfg.Catalog.SchemaOf(t.name) == nil {
		return nil
	}
	for i := range t.loggers {
		l := &t.loggers[i]
		if t.partitioned || l.Full || !l.Updatable {
			continue
		}
		list, err := describe(ctx, q, cfg.Publication, l.OID)
		if err != nil {
			return fmt.Errorf("look at the key of %s: %w", l.name(), err)
		}
		if len(list) == 1 {
			relation := relationOf(list[0])
			relation.Namespace, relation.Name = t.name.Namespace, t.name.Name
			relation.PrimaryKey, relation.KeyCut = list[0].PrimaryKeyOf(relation)
			l.Nameless = !cfg.Catalog.Bind(relation).OldRowHasKey()
		}
	}
	return nil
}

// findColumns looks at the columns that name accounts and records.
func (t *tableState) findColumns(ctx context.Context, q querier, cfg Config) error {
	list, err := describe(ctx, q, cfg.Publication, t.oid)
	if err != nil || len(list) == 0 {
		return err
	}
	relation := relationOf(list[0])
	plan := cfg.Catalog.Bind(relation)
	t.findVague(cfg, relation, plan)
	return t.findKey(ctx, q, cfg, plan)
}

// findVague finds a column that names accounts or records whose texts do not
// tell which values the source takes for the same.
func (t *tableState) findVague(cfg Config, relation *schemas.Relation, plan *catalog.Plan) {
	var names []string
	if t.name == cfg.Catalog.Account.Table {
		names = append(names, cfg.Catalog.Account.ID)
	}
	if plan != nil && plan.Schema != nil {
		names = append(append(names, plan.Schema.Owner.Column), plan.KeyColumns()...)
	}
	for _, name := range names {
		if at := relation.Column(name); at >= 0 && relation.Columns[at].Equality == schemas.EqualUnknown {
			t.vague = name
		}
	}
}

// fault is why walhook cannot do with the table as it is; nil when it can, be
// it by leaving it out.
func (t tableState) fault(cfg Config) *Fault {
	role := schemas.QuoteIdent(t.role)
	switch {
	case !t.exists && t.name == cfg.Catalog.Account.Table:
		return &Fault{check: checkTables, Problem: fmt.Sprintf("the account table %s does not exist in the source", t.name),
			Mend: "correct --source, or name the table in a catalog file with --catalog"}
	case !t.exists, !t.logged:
		return nil
	case !t.readable:
		return &Fault{check: checkSelect, Problem: fmt.Sprintf("the source's role may not read table %s", t.name),
			Mend: fmt.Sprintf("as its owner: GRANT SELECT ON %s TO %s (and USAGE on its schema)", t.name, role),
			steps: doctor.Steps{
				{Kind: doctor.SQL, On: source, Needs: "ownership of the schema",
					Text: fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", schemas.QuoteIdent(t.name.Namespace), role)},
				{Kind: doctor.SQL, On: source, Needs: "ownership of the table",
					Text: fmt.Sprintf("GRANT SELECT ON %s TO %s", t.name, role)},
			}}
	case t.vague != "":
		sql := fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s TYPE pg_catalog.text COLLATE pg_catalog.\"C\"", t.name, schemas.QuoteIdent(t.vague))
		return &Fault{check: checkKeys, Problem: fmt.Sprintf("column %s of table %s names accounts or records, and by its type or collation different texts are the same value: "+
			"whose a row is cannot be told", t.vague, t.name),
			Mend: "let the catalog name another column, or as the table's owner: " + sql, steps: doctor.Ask(source, "ownership of the table", sql)}
	case !t.whole:
		sql := fmt.Sprintf("ALTER ROLE %s BYPASSRLS", role)
		return &Fault{check: checkRowSecurity, Problem: fmt.Sprintf("row-level security shows the source's role a part of table %s", t.name),
			Mend: "as a superuser: " + sql, steps: doctor.Ask(source, doctor.Superuser, sql)}
	}
	return nil
}

// refusesFull says why the server refuses the table's updates under FULL; "" where
// it does not.
func (l logger) refusesFull() string {
	switch {
	case l.Listed:
		return "a publication sends it with a list of columns"
	case l.Generated:
		return "it has generated columns that cannot be published"
	}
	return ""
}

// publishable says that its updates fail for want of generated columns that the
// publication could send.
func (l logger) publishable() bool { return l.Full && l.Unpublished && l.refusesFull() == "" }

// identity is what mends a table's replica identity, if anything. It is false
// when nothing does.
func (l logger) identity() (statement Statement, ok bool) {
	name := schemas.TableName{Namespace: l.Namespace, Name: l.Name}
	switch {
	case l.refusesFull() != "" && (l.Full || !l.Updatable):
		return Statement{
			SQL: fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT", name), Undo: identitySQL(name.String(), l.Identity),
			table: l.OID, identity: schemas.IdentityDefault,
			Needs: "ownership of the table (" + l.refusesFull() + ": published, its own updates fail under FULL)",
		}, l.Keyed
	case l.refusesFull() != "", l.Full:
		return Statement{}, true
	}
	statement = Statement{
		SQL: fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL", name), Undo: identitySQL(name.String(), l.Identity),
		table: l.OID, identity: schemas.IdentityFull,
		Needs: "ownership of the table", Optional: l.Updatable && !l.Nameless,
	}
	if l.Nameless {
		statement.Needs += " (its replica identity lacks columns of the key that names its records: deletes would reach nobody)"
	}
	if !l.Updatable {
		statement.Needs += " (it has no replica identity: once published, its own updates and deletes would fail)"
	}
	return statement, true
}
