package source

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// table is a table of the catalog that the source has.
type table struct {
	name        schemas.TableName
	identities  []identityTable // the table itself, its partitions, and the tables that inherit from it
	partitioned bool
	hasChildren bool // tables inherit from it, whether the catalog names them or not
	published   bool
}

// identityTable is a table whose changes are logged with its own replica identity.
type identityTable struct {
	OID             uint32
	Identity        string // in the form of setIdentity's note
	Namespace, Name string
	Full            bool
	Updatable       bool // its updates and deletes work while it is published
	// Generated says that it has generated columns for which the server (18 and
	// newer) refuses its updates under FULL, whatever the publication's setting.
	Generated bool
	// Listed says that some publication has a column list for it: the server refuses
	// its updates under FULL, whatever the list holds.
	Listed bool
	// Unpublished says that the publication, as it is now, does not send its generated
	// columns.
	Unpublished bool
	Keyed       bool // it has a primary key, and all column lists hold it: DEFAULT works
	// Child says that it inherits from the table: its rows are the table's too, but
	// it is published separately. Published says whether it is.
	Child     bool
	Published bool `db:"-"`
	// Nameless says that its old rows lack columns of the record's key.
	Nameless bool `db:"-"`
}

func (l identityTable) name() schemas.TableName {
	return schemas.TableName{Namespace: l.Namespace, Name: l.Name}
}

// tableState is the state of a table of the catalog, which may not exist.
type tableState struct {
	table
	exists   bool
	oid      uint32
	logged   bool      // its changes reach the WAL
	readable bool      // the role may read it
	whole    bool      // the role sees every row
	vague    string    // a key or owner column of which equal values may have different texts; "" for none
	role     string    // the role of these rights
	key      *keyFault // why its records have no key; nil if they have one
	// description is the table as it is now; nil if it was dropped meanwhile.
	description *catalog.TableDescription
}

const (
	// A partitioned table may be in the publication even if its partitions are
	// published under their own names.
	tableSQL = `
		SELECT c.oid, c.relkind = 'p', c.relpersistence = 'p', ` + readableSQL + `, ` + wholeSQL + `, coalesce(nullif($4, ''), current_user)::text,
			EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
				WHERE p.pubname = $3 AND r.prrelid = c.oid),
			c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

	// Whether the role $4, or the session's where that is empty, may read the table. A
	// role that does not exist yet may nothing.
	readableSQL = `CASE $4 WHEN '' THEN has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
				ELSE coalesce((SELECT has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_table_privilege(r.oid, c.oid, 'SELECT')
					FROM pg_roles r WHERE r.rolname = $4), false) END`

	// Whether it sees every row: what row_security_active computes, which knows the
	// session's role alone.
	wholeSQL = `CASE $4 WHEN '' THEN NOT row_security_active(c.oid)
				ELSE NOT c.relrowsecurity OR coalesce((SELECT r.rolsuper OR r.rolbypassrls OR pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity
					FROM pg_roles r WHERE r.rolname = $4), false) END`

	// PostgreSQL 18: the replica identity of a published table must not hold a generated
	// column that some publication does not send. No publication sends a virtual one.
	// Setup makes walhook's, $2, send stored ones, if the role may.
	refusesFullSQL = `(current_setting('server_version_num')::int >= 180000 AND EXISTS (
		SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '' AND (
			a.attgenerated = 'v'
			OR NOT EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $2 AND pg_has_role(p.pubowner, 'USAGE')) AND ` + unsentSQL + `
			OR EXISTS (SELECT FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname AND (p.pubupdate OR p.pubdelete)
				WHERE t.pubname <> $2 AND t.schemaname = n.nspname AND t.tablename = c.relname AND NOT to_jsonb(t) -> 'attnames' ? a.attname::text))))`

	// A generated column that walhook's publication, if there is one, does not send.
	unsentSQL = `(a.attgenerated = 'v' OR EXISTS (SELECT FROM pg_publication p WHERE p.pubname = $2 AND coalesce(to_jsonb(p) ->> 'pubgencols', 'n') <> 's')
		AND NOT EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = $2
			AND t.schemaname = n.nspname AND t.tablename = c.relname AND to_jsonb(t) -> 'attnames' ? a.attname::text))`

	// The publications with a column list for a table, since PostgreSQL 15; a partition
	// has its root's.
	listsSQL = `pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid AND (p.pubupdate OR p.pubdelete) AND to_jsonb(r) ->> 'prattrs' IS NOT NULL
			AND (r.prrelid = c.oid OR p.pubviaroot AND r.prrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))`

	// A column of the primary key that is not in such a list.
	keyOutsideListsSQL = `EXISTS (SELECT FROM ` + listsSQL + `
			JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
			WHERE NOT EXISTS (SELECT FROM pg_attribute sent WHERE sent.attrelid = r.prrelid AND sent.attname = a.attname
				AND to_jsonb(r) -> 'prattrs' @> to_jsonb(sent.attnum)))`

	// Partitions and children log their own changes, with their own replica identity. A
	// child that the catalog names is a table of its own.
	identityTablesSQL = `
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
			c.oid <> $1 AND NOT c.relispartition
		FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
		ORDER BY c.oid = $1, n.nspname, c.relname`

	// The tables whose changes a publication sends, partitions under their own name or
	// their root's. The view makes the whole list each time that it is asked for one table.
	publicationTablesSQL = `SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1`
)

// lookAtTables reads the state of every table of the catalog, for a role; "" is the
// session's.
func lookAtTables(ctx context.Context, q querier, cfg Config, role string) ([]tableState, error) {
	var tables []tableState
	namespaces, names := tableNames(cfg.Catalog)
	rows, err := q.Query(ctx, publicationTablesSQL, cfg.Publication)
	var list []schemas.TableName
	if err == nil {
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.TableName])
	}
	if err != nil {
		return nil, fmt.Errorf("read what publication %s publishes: %w", cfg.Publication, err)
	}
	published := map[schemas.TableName]bool{}
	for _, name := range list {
		published[name] = true
	}
	for _, name := range cfg.Catalog.Tables() {
		t := tableState{table: table{name: name}, exists: true}
		err := q.QueryRow(ctx, tableSQL, name.Namespace, name.Name, cfg.Publication, role).
			Scan(&t.oid, &t.partitioned, &t.logged, &t.readable, &t.whole, &t.role, &t.published, &t.hasChildren)
		if errors.Is(err, pgx.ErrNoRows) {
			tables = append(tables, tableState{table: table{name: name}})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", name, err)
		}
		rows, err := q.Query(ctx, identityTablesSQL, t.oid, cfg.Publication, namespaces, names)
		if err == nil {
			t.identities, err = pgx.CollectRows(rows, pgx.RowToStructByPos[identityTable])
		}
		if err != nil {
			return nil, fmt.Errorf("read the replica identity of %s: %w", name, err)
		}
		t.published = t.published || published[name]
		for i := range t.identities {
			t.identities[i].Published = published[t.identities[i].name()]
		}
		tables = append(tables, t)
	}
	described, err := describeStates(ctx, q, cfg, tables)
	if err != nil {
		return nil, err
	}
	for i := range tables {
		t := &tables[i]
		t.description = described[t.oid]
		t.findNameless(cfg, described)
		if err := t.findColumns(ctx, q, cfg); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

// describedAtOnce is how many tables one query describes. It must end within the timeout
// of a statement.
const describedAtOnce = 250

// describeStates describes all tables of the states, by OID: a source may have thousands,
// and a query for each of them would take minutes on a busy server.
func describeStates(ctx context.Context, q querier, cfg Config, tables []tableState) (map[uint32]*catalog.TableDescription, error) {
	var oids []uint32
	for _, t := range tables {
		if !t.exists {
			continue
		}
		oids = append(oids, t.oid)
		for _, l := range t.identities {
			oids = append(oids, l.OID)
		}
	}
	slices.Sort(oids)
	described := map[uint32]*catalog.TableDescription{}
	for some := range slices.Chunk(slices.Compact(oids), describedAtOnce) {
		list, err := describe(ctx, q, cfg.Publication, some...)
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			described[d.OID] = d
		}
	}
	return described, nil
}

// findNameless finds tables whose old rows lack the record's key: their deletes name no
// record, and a change of key is not visible.
func (t *tableState) findNameless(cfg Config, described map[uint32]*catalog.TableDescription) {
	if cfg.Catalog.SchemaOf(t.name) == nil {
		return
	}
	for i := range t.identities {
		l := &t.identities[i]
		if t.partitioned || l.Full || !l.Updatable {
			continue
		}
		if d := described[l.OID]; d != nil {
			relation := relationOf(d)
			relation.Namespace, relation.Name = t.name.Namespace, t.name.Name
			relation.PrimaryKey, relation.KeyCut = d.PrimaryKeyOf(relation)
			l.Nameless = !cfg.Catalog.Bind(relation).OldRowHasKey()
		}
	}
}

// findColumns checks the columns that identify accounts and records.
func (t *tableState) findColumns(ctx context.Context, q querier, cfg Config) error {
	if t.description == nil {
		return nil
	}
	relation := relationOf(t.description)
	plan := cfg.Catalog.Bind(relation)
	t.findVague(cfg, relation, plan)
	return t.findKey(ctx, q, cfg, plan)
}

// findVague finds a column of accounts' or records' ids of which values that the source
// considers equal may have different texts.
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

// fault is the first of the table's faults; nil for none.
func (t tableState) fault(cfg Config) *checkedFault {
	if faults := t.faults(cfg); len(faults) > 0 {
		return faults[0]
	}
	return nil
}

// faults says why walhook cannot work with the table as it is. There is none if it can,
// or leaves the table out.
func (t tableState) faults(cfg Config) (faults []*checkedFault) {
	role := schemas.QuoteIdent(t.role)
	if !t.exists && t.name == cfg.Catalog.Account.Table {
		faults = append(faults, &checkedFault{
			check: checkTables,
			Fault: Fault{
				Problem: fmt.Sprintf("the account table %s does not exist in the source", t.name),
				Fix:     "correct --source, or name the table in a catalog file with --catalog",
			},
		})
	}
	if !t.exists || !t.logged {
		return faults
	}
	if !t.readable {
		faults = append(faults, &checkedFault{
			check: checkSelect,
			Fault: Fault{
				Problem: fmt.Sprintf("the source's role may not read table %s", t.name),
				Fix:     fmt.Sprintf("as its owner: GRANT SELECT ON %s TO %s (and USAGE on its schema)", t.name, role),
			},
			steps: doctor.Steps{
				{Kind: doctor.SQL, On: onSource, Needs: "ownership of the schema",
					Text: fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", schemas.QuoteIdent(t.name.Namespace), role)},
				{Kind: doctor.SQL, On: onSource, Needs: "ownership of the table",
					Text: fmt.Sprintf("GRANT SELECT ON %s TO %s", t.name, role)},
			},
		})
	}
	if t.vague != "" {
		sql := fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s TYPE pg_catalog.text COLLATE pg_catalog.\"C\"", t.name, schemas.QuoteIdent(t.vague))
		faults = append(faults, &checkedFault{
			check: checkKeys,
			Fault: Fault{
				Problem: fmt.Sprintf("column %s of table %s is an account id or a key, and by its type or collation different texts are the same value: "+
					"walhook cannot know the owner of a row", t.vague, t.name),
				Fix: "name another column in the catalog, or as the table's owner: " + sql,
			},
			steps: doctor.Ask(onSource, "ownership of the table", sql),
		})
	}
	if !t.whole {
		sql := fmt.Sprintf("ALTER ROLE %s BYPASSRLS", role)
		faults = append(faults, &checkedFault{
			check: checkRowSecurity,
			Fault: Fault{
				Problem: fmt.Sprintf("row-level security hides a part of table %s from the source's role", t.name),
				Fix:     "as a superuser: " + sql,
			},
			steps: doctor.Ask(onSource, doctor.Superuser, sql),
		})
	}
	return faults
}

// refusesFull says why the server refuses the table's updates under FULL; "" if it does
// not.
func (l identityTable) refusesFull() string {
	switch {
	case l.Listed:
		return "a publication sends it with a column list"
	case l.Generated:
		return "it has generated columns that cannot be published"
	}
	return ""
}

// publishable says that its updates fail because the publication does not send its
// generated columns, which it could.
func (l identityTable) publishable() bool { return l.Full && l.Unpublished && l.refusesFull() == "" }

// identity is the statement that fixes a table's replica identity, empty for none needed.
// It is false if no statement fixes it.
func (l identityTable) identity() (statement Statement, ok bool) {
	name := schemas.TableName{Namespace: l.Namespace, Name: l.Name}
	switch {
	case l.refusesFull() != "" && (l.Full || !l.Updatable):
		return Statement{
			SQL: fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT", name), Undo: identitySQL(name.String(), l.Identity),
			table: l.OID, identity: schemas.IdentityDefault,
			Needs: "ownership of the table (" + l.refusesFull() + ": under FULL its own updates fail once published)",
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
		statement.Needs += " (its replica identity lacks columns of its records' key: deletes would reach nobody)"
	}
	if !l.Updatable {
		statement.Needs += " (it has no replica identity: once published, its own updates and deletes would fail)"
	}
	return statement, true
}
