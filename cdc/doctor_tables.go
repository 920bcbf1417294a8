package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// listedSQL says whether the publication is there and holds tables by name.
const listedSQL = `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND NOT puballtables)`

// lookAtTables compares the catalog with the tables that there are, and asks
// whether setup could publish them.
func (e *examination) lookAtTables(ctx context.Context) {
	var err error
	if e.tables, err = lookAtTables(ctx, e.s, e.cfg); err == nil {
		err = e.s.QueryRow(ctx, listedSQL, e.cfg.Publication).Scan(&e.listed)
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkTables)
		return
	}
	known := 0
	for _, t := range e.tables {
		fault := t.fault(e.cfg)
		switch {
		case !t.exists:
			e.missing(ctx, t, fault != nil)
			continue
		case fault != nil:
			e.fail(fault.check, fault)
		case !t.logged:
			e.unlogged(t)
		}
		known++
		e.lookAtShape(ctx, t)
	}
	e.r.OK(checkTables, "%s of the catalog", doctor.Count(known, "table"))
	e.r.OK(checkUnlogged, "every table's changes reach the WAL")
	e.r.OK(checkSelect, "role %s may read them", e.server.role)
	e.r.OK(checkRowSecurity, "every row of them")
	e.r.OK(checkColumns, "the columns that say whose a row is are there")
	e.r.OK(checkKeys, "every schema has its key")
	e.r.OK(checkFields, "every field has its column")
	e.lookAtRights(ctx)
}

// unlogged tells of a table whose changes never reach the WAL.
func (e *examination) unlogged(t tableState) {
	mend := doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "ownership of the table", Text: fmt.Sprintf("ALTER TABLE %s SET LOGGED", t.name),
		Note: "it writes the whole table to the WAL, under a lock that keeps everybody out"}}
	if e.listed && !t.published {
		mend = append(mend,
			doctor.Step{Kind: doctor.SQL, On: source, Needs: "ownership of the table", Text: fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL", t.name)},
			doctor.Step{Kind: doctor.SQL, On: source, Needs: "ownership of the publication and of the table",
				Text: fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", schemas.QuoteIdent(e.cfg.Publication), t.name)})
	}
	e.r.Warn(checkUnlogged, mend, "table %s is not logged: nothing of it is ever sent", t.name)
}

// alikeSQL names the tables that the catalog does not name and that have every
// one of the columns: one of them may be the missing table under a new name.
const alikeSQL = `
	SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'walhook')
		AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($1)) = cardinality($1)
	LIMIT 10`

// missing tells of a table that does not exist, and which it may be now.
func (e *examination) missing(ctx context.Context, t tableState, account bool) {
	rows, err := e.s.Query(ctx, alikeSQL, columnsOf(e.cfg.Catalog, t.name))
	var alike []schemas.TableName
	if err == nil {
		alike, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.TableName])
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkTables)
		return
	}
	alike = slices.DeleteFunc(alike, e.cfg.Catalog.Names)
	text := fmt.Sprintf("table %s of the catalog does not exist", t.name)
	var mend doctor.Steps
	switch schema := e.cfg.Catalog.SchemaOf(t.name); {
	case len(alike) == 1:
		mend = renamedTable(alike[0], t.name)
		text += fmt.Sprintf("; %s has its columns", alike[0])
	case account:
		mend = doctor.Steps{{Kind: doctor.Catalog, Text: fmt.Sprintf("account: {table: %s, id: %s, url: %s}", t.name, e.cfg.Catalog.Account.ID, e.cfg.Catalog.Account.URL),
			Note: "with your names of the table of accounts; or correct --source"}}
	case t.name == e.cfg.Catalog.Results:
		mend = append(doctor.Steps{{Kind: doctor.Catalog, Text: "results: {}", Note: "in a file for --catalog: it is left out"}}, acceptGap("once walhook was set up")...)
	case t.name == e.cfg.Catalog.Events:
		mend = append(doctor.Steps{{Kind: doctor.Catalog, Text: "events: {}", Note: "in a file for --catalog: it is left out"}}, acceptGap("once walhook was set up")...)
	default:
		mend = append(doctor.Steps{{Kind: doctor.Catalog, Text: "schemas: {" + schema.Name + ": null}",
			Note: "take the schema out of the catalog file, or give it the table's name"}}, acceptGap("once walhook was set up")...)
	}
	if account {
		e.r.Fail(checkTables, mend, "%s: nobody's changes are known to be theirs", text)
		return
	}
	e.r.Warn(checkTables, mend, "%s: nothing of it is sent", text)
}

// renamedTable takes a table back to the name that the catalog has.
func renamedTable(from, to schemas.TableName) (mend doctor.Steps) {
	const note = "or give it its new name in the catalog file"
	if from.Name != to.Name {
		mend = append(mend, doctor.Step{Kind: doctor.SQL, On: source, Needs: "ownership of the table", Note: note,
			Text: fmt.Sprintf("ALTER TABLE %s RENAME TO %s", from, schemas.QuoteIdent(to.Name))})
	}
	if from.Namespace != to.Namespace {
		from.Name = to.Name
		mend = append(mend, doctor.Step{Kind: doctor.SQL, On: source, Needs: "ownership of the table, CREATE on the schema", Note: note,
			Text: fmt.Sprintf("ALTER TABLE %s SET SCHEMA %s", from, schemas.QuoteIdent(to.Namespace))})
	}
	return mend
}

// columnsOf names the columns that the catalog asks of a table.
func columnsOf(catalog *catalog.Catalog, name schemas.TableName) []string {
	columns := []string{}
	add := func(names ...string) {
		for _, name := range names {
			if name != "" && !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
		}
	}
	if a := catalog.Account; a.Table == name {
		add(a.ID, a.URL, a.Parent, a.Secret)
	}
	if s := catalog.SchemaOf(name); s != nil {
		add(s.Owner.Column)
		add(s.Key...)
		for _, field := range s.Fields {
			add(field.Column)
		}
	}
	if catalog.Results == name {
		add("id", "user_id", "schema", "type", "status", "verbose")
	}
	if catalog.Events == name {
		add("id", "account_id", "hook", "payload", "internal", "created_at")
	}
	return columns
}

const (
	mayCreateSQL = `
		SELECT has_database_privilege(current_database(), 'CREATE'),
			coalesce((SELECT pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = $1), true)`

	ownedSQL = `SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1`
)

// lookAtRights asks whether setup may run what the source still needs. Where
// nothing is needed, no right is.
func (e *examination) lookAtRights(ctx context.Context) {
	plan := &Plan{}
	for _, t := range e.tables {
		if t.exists && t.logged {
			plan.tables = append(plan.tables, t.table)
		}
	}
	plan.planIdentity()
	if err := plan.planPublication(ctx, e.s.Conn, e.cfg); err != nil {
		e.s.Unseen(e.r, err, checkRights)
		return
	}
	var needed doctor.Steps
	for _, statement := range plan.Statements {
		if !statement.Optional {
			needed = append(needed, doctor.Step{Kind: doctor.SQL, On: source, Text: statement.SQL, Needs: statement.Needs})
		}
	}
	if len(needed) == 0 {
		e.r.OK(checkRights, "publication and tables need no change")
		return
	}
	lacks, err := e.lackingRights(ctx)
	switch {
	case err != nil:
		e.s.Unseen(e.r, err, checkRights)
	case len(lacks) > 0:
		e.r.Fail(checkRights, needed, "the source needs %d statements, which role %s may not run: it lacks %s",
			len(needed), e.server.role, strings.Join(lacks, ", "))
	default:
		e.r.OK(checkRights, "role %s may run the %s that setup needs", e.server.role, doctor.Choose(len(needed), "statement", fmt.Sprintf("%d statements", len(needed))))
	}
}

func (e *examination) lackingRights(ctx context.Context) (lacks []string, err error) {
	var create, publication bool
	if err := e.s.QueryRow(ctx, mayCreateSQL, e.cfg.Publication).Scan(&create, &publication); err != nil {
		return nil, err
	}
	if !create {
		lacks = append(lacks, "CREATE on database "+schemas.QuoteIdent(e.s.Database))
	}
	if !publication {
		lacks = append(lacks, "ownership of publication "+schemas.QuoteIdent(e.cfg.Publication))
	}
	for _, t := range e.tables {
		updatable := !slices.ContainsFunc(t.loggers, func(l logger) bool { return !l.Updatable })
		if !t.exists || !t.logged || t.published && updatable {
			continue
		}
		var owned bool
		if err := e.s.QueryRow(ctx, ownedSQL, t.oid).Scan(&owned); err != nil {
			return nil, err
		}
		if !owned {
			lacks = append(lacks, "ownership of "+t.name.String())
		}
	}
	return lacks, nil
}
