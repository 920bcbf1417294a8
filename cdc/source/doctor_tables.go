package source

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

// listedSQL reports whether the publication exists and is not FOR ALL TABLES.
const listedSQL = `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND NOT puballtables)`

// lookAtTables compares the catalog with the source's tables, and checks whether setup can
// publish them.
func (e *examination) lookAtTables(ctx context.Context) {
	var err error
	if e.tables, err = lookAtTables(ctx, e.s, e.cfg, e.as); err == nil {
		err = e.s.QueryRow(ctx, listedSQL, e.cfg.Publication).Scan(&e.listed)
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkTables)
		return
	}
	known := 0
	for _, t := range e.tables {
		faults := t.faults(e.cfg)
		switch {
		case !t.exists:
			e.missing(ctx, t, len(faults) > 0)
			continue
		case len(faults) > 0:
			for _, fault := range faults {
				e.fail(fault.check, fault)
			}
		case !t.logged:
			e.unlogged(t)
		}
		known++
		e.lookAtShape(ctx, t)
	}
	e.r.OK(checkTables, "%s of the catalog", doctor.Count(known, "table"))
	e.r.OK(checkUnlogged, "every table's changes reach the WAL")
	e.r.OK(checkSelect, "role %s may read them", e.server.role)
	e.r.OK(checkRowSecurity, "no row-level security applies")
	e.r.OK(checkColumns, "every owner column exists")
	e.r.OK(checkKeys, "every schema has a key")
	e.r.OK(checkFields, "every field has a column")
	e.lookAtRights(ctx)
}

// unlogged reports a table whose changes never reach the WAL.
func (e *examination) unlogged(t tableState) {
	fix := doctor.Steps{{Kind: doctor.SQL, On: onSource, Needs: "ownership of the table", Text: fmt.Sprintf("ALTER TABLE %s SET LOGGED", t.name),
		Note: "this writes the whole table to the WAL, under an exclusive lock"}}
	if e.listed && !t.published {
		fix = append(fix,
			doctor.Step{Kind: doctor.SQL, On: onSource, Needs: "ownership of the table", Text: fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL", t.name)},
			doctor.Step{Kind: doctor.SQL, On: onSource, Needs: "ownership of the publication and of the table",
				Text: fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", schemas.QuoteIdent(e.cfg.Publication), t.name)})
		fix = append(fix, acceptGap("if its changes were sent before it became unlogged: walhook then stops with a gap, and this sends what was left out")...)
	}
	e.r.Warn(checkUnlogged, fix, "table %s is unlogged: its changes are never sent", t.name)
}

// alikeSQL lists the tables outside the catalog that have all the columns: one of them may
// be the missing table under a new name.
const alikeSQL = usableSQL + `
		AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($1)) = cardinality($1)
	LIMIT 10`

// usableSQL lists the tables that a catalog may name.
const usableSQL = `
	SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'walhook')`

// missing reports a table that does not exist, and tables that may be it under a new
// name.
func (e *examination) missing(ctx context.Context, t tableState, account bool) {
	alike, err := e.tableNames(ctx, alikeSQL, columnsOf(e.cfg.Catalog, t.name))
	var near schemas.TableName
	if err == nil && len(alike) != 1 {
		var usable []schemas.TableName
		usable, err = e.tableNames(ctx, usableSQL)
		near = schemas.NearestTable(t.name, usable)
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkTables)
		return
	}
	text := fmt.Sprintf("table %s of the catalog does not exist", t.name)
	var fix doctor.Steps
	switch schema := e.cfg.Catalog.SchemaOf(t.name); {
	case len(alike) == 1:
		fix = e.otherTable(t.name, alike[0])
		text += fmt.Sprintf("; did you mean %s, which has its columns?", alike[0])
	case near != schemas.TableName{}:
		fix = e.otherTable(t.name, near)
		text += fmt.Sprintf("; did you mean %s?", near)
	case account:
		fix = doctor.Steps{{Kind: doctor.Catalog, Text: fmt.Sprintf("account: {table: %s, id: %s, url: %s}", t.name, e.cfg.Catalog.Account.ID, e.cfg.Catalog.Account.URL),
			Note: "with your names for the account table; or correct --source"}, setupAgain()}
	case t.name == e.cfg.Catalog.Results:
		fix = doctor.Steps{{Kind: doctor.Catalog, Text: "results: {}", Note: "in a file for --catalog: this leaves it out"}, setupAgain()}
	case t.name == e.cfg.Catalog.Events:
		fix = doctor.Steps{{Kind: doctor.Catalog, Text: "events: {}", Note: "in a file for --catalog: this leaves it out"}, setupAgain()}
	default:
		fix = doctor.Steps{{Kind: doctor.Catalog, Text: "schemas: {" + schema.Name + ": null}",
			Note: "remove the schema from the catalog file, or correct its table there"}, setupAgain()}
	}
	if account {
		e.r.Fail(checkTables, fix, "%s: walhook cannot assign changes to accounts", text)
		return
	}
	e.r.Warn(checkTables, fix, "%s: nothing of it is sent", text)
}

// tableNames returns the tables that a query lists and the catalog does not name.
func (e *examination) tableNames(ctx context.Context, sql string, args ...any) ([]schemas.TableName, error) {
	rows, err := e.s.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[schemas.TableName])
	return slices.DeleteFunc(list, e.cfg.Catalog.Names), err
}

// otherTable returns the entries of the catalog file that name another table. walhook
// never proposes to rename one.
func (e *examination) otherTable(from, to schemas.TableName) (fix doctor.Steps) {
	const note = "if that is the table, in a file for --catalog; or correct --source"
	cat := e.cfg.Catalog
	if cat.Account.Table == from {
		fix = append(fix, doctor.Step{Kind: doctor.Catalog, Text: "account: {table: " + quoteYAML(to.String()) + "}", Note: note})
	}
	for part, table := range map[string]schemas.TableName{"results": cat.Results, "events": cat.Events} {
		if table == from {
			fix = append(fix, doctor.Step{Kind: doctor.Catalog, Text: part + ": {table: " + quoteYAML(to.String()) + "}", Note: note})
		}
	}
	if schema := cat.SchemaOf(from); schema != nil {
		named, relation := *schema, &schemas.Relation{Namespace: to.Namespace, Name: to.Name}
		named.Table = to
		for _, column := range columnsOf(cat, from) {
			relation.Columns = append(relation.Columns, schemas.Column{Name: column})
		}
		fix = append(fix, doctor.Step{Kind: doctor.Catalog, Text: entry(&catalog.Plan{Schema: &named, Relation: relation}), Note: note})
	}
	return append(fix, setupAgain())
}

// columnsOf returns the columns of a table that the catalog uses.
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

// lookAtShape compares the columns of one table with the catalog's.
func (e *examination) lookAtShape(ctx context.Context, t tableState) {
	if t.description == nil { // dropped meanwhile
		return
	}
	relation := relationOf(t.description)
	plan := e.cfg.Catalog.Bind(relation)
	if plan == nil {
		return
	}
	e.unsent = nil
	if len(relation.Columns) < len(t.description.Columns) {
		var err error
		if e.unsent, err = unsentColumns(ctx, e.s, t.oid, relation); err != nil {
			e.s.Unseen(e.r, err, checkColumns)
			return
		}
	}
	named := e.accountColumns(plan)
	named = append(named, e.resultColumns(plan)...)
	if plan.Schema != nil {
		named = append(named, e.ownerColumn(plan)...)
		named = append(named, e.keys(t, plan)...)
		named = append(named, e.fields(plan, named)...)
	}
	e.ruleColumns(plan, named)
}

// keys reports a schema whose records have no key.
func (e *examination) keys(t tableState, plan *catalog.Plan) (missing []string) {
	if n := len(plan.KeyColumns()); n > 0 && n >= len(plan.Schema.Key) {
		return nil
	}
	for _, column := range plan.Schema.Key {
		if plan.Relation.Column(column) < 0 {
			missing = append(missing, column)
		}
	}
	if len(missing) > 0 {
		e.r.Fail(checkKeys, e.renamed(plan.Relation, missing, func(column string) string { return entryWith(plan, missing[0], column) }, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
			Note: "with the key's columns, in a file for --catalog"}, setupAgain()}),
			"table %s has no column %s of the key of %s: %s", t.name, strings.Join(missing, ", "), plan.Schema.Name, undistinguished)
		return missing
	}
	if t.key != nil {
		e.r.Fail(checkKeys, t.key.steps, "%s", t.key.problem)
		return t.key.unsent
	}
	return nil
}

// fields reports fields that are absent from every event and were not reported yet.
func (e *examination) fields(plan *catalog.Plan, named []string) (missing []string) {
	for _, field := range plan.Schema.Fields {
		if plan.Relation.Column(field.Column) < 0 && !slices.Contains(named, field.Column) {
			missing = append(missing, field.Column)
		}
	}
	if len(missing) > 0 {
		var note strings.Builder
		note.WriteString("in a file for --catalog: this leaves the fields out; or map them, as field: column")
		for _, column := range missing {
			if near := nearColumn(plan.Relation, column); near != "" {
				fmt.Fprintf(&note, "; for %s, did you mean %s?", column, near)
			}
		}
		e.r.Warn(checkFields, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan), Note: note.String()}},
			"table %s has no column %s: absent from every %s", plan.Relation.Table(), strings.Join(missing, ", "), plan.Schema.Name)
	}
	return missing
}

// ruleColumns reports missing columns that only rules of the catalog use.
func (e *examination) ruleColumns(plan *catalog.Plan, named []string) {
	var missing []string
	for _, column := range plan.Missing {
		if !slices.Contains(named, column) && !slices.Contains(missing, column) {
			missing = append(missing, column)
		}
	}
	if len(missing) > 0 {
		e.r.Warn(checkFields, e.renamed(plan.Relation, missing, func(string) string { return "derive: …" }, doctor.Steps{{Kind: doctor.Catalog, Text: "derive: …",
			Note: "name the column as it is in the table, or remove the rules that use it"}, setupAgain()}),
			"table %s has no column %s, which rules under derive use", plan.Relation.Table(), strings.Join(missing, ", "))
	}
}

// accountColumns reports missing columns of the account table.
func (e *examination) accountColumns(plan *catalog.Plan) (missing []string) {
	a := e.cfg.Catalog.Account
	if plan.Account == nil {
		return nil
	}
	for _, column := range []struct{ name, key string }{{a.ID, "id"}, {a.URL, "url"}, {a.Parent, "parent"}, {a.Secret, "secret"},
		{a.Brand.Name, "brand.name"}, {a.Brand.Accent, "brand.accent"}, {a.Brand.Support, "brand.support"}} {
		if column.name == "" || plan.Relation.Column(column.name) >= 0 {
			continue
		}
		missing = append(missing, column.name)
		text := fmt.Sprintf("account table %s %s (account.%s of the catalog)", a.Table, e.lacks(column.name), column.key)
		entry := func(column string) string { return "account: {" + column + "}" }
		if part, found := strings.CutPrefix(column.key, "brand."); found {
			column.key = part
			entry = func(column string) string { return "account: {brand: {" + column + "}}" }
		}
		with := func(other string) string { return entry(column.key + ": " + quoteYAML(other)) }
		named := doctor.Steps{{Kind: doctor.Catalog, Text: entry(column.key + ": COLUMN"),
			Note: "with its name in the table, in a file for --catalog"}, setupAgain()}
		switch column.key {
		case "id":
			e.r.Fail(checkColumns, e.renamed(plan.Relation, []string{column.name}, with, named), "%s: walhook cannot assign changes to accounts", text)
		case "url":
			fix, evidence := urlColumn(a), text+": no account gets anything"
			if _, there := e.unsent[column.name]; there {
				fix = e.sendAgain(a.Table, column.name, with)
			} else {
				if nearColumn(plan.Relation, column.name) != "" {
					fix = e.renamed(plan.Relation, []string{column.name}, with, fix)
				}
				e.noURL = evidence
			}
			e.r.Fail(checkColumns, fix, "%s", evidence)
		default:
			named[0].Text, named[0].Note = entry(column.key+": null"), "this removes it from the catalog file; or name its column there"
			e.r.Warn(checkColumns, e.renamed(plan.Relation, []string{column.name}, with, named), "%s: walhook leaves it out", text)
		}
	}
	return missing
}

// resultColumns reports missing columns of the table of asynchronous results, whose names
// are fixed.
func (e *examination) resultColumns(plan *catalog.Plan) (missing []string) {
	if plan.Results == nil {
		return nil
	}
	for _, name := range []string{"user_id", "schema", "type", "status", "verbose"} {
		if plan.Relation.Column(name) < 0 {
			missing = append(missing, name)
			fix := addColumn(plan.Relation.Table(), name, "")
			if _, there := e.unsent[name]; there {
				fix = e.sendAgain(plan.Relation.Table(), name, func(string) string { return "results: …" })
			}
			e.r.Fail(checkColumns, fix,
				"table %s of results %s", plan.Relation.Table(), e.lacks(name))
		}
	}
	return missing
}

// ownerColumn reports a table without its owner column.
func (e *examination) ownerColumn(plan *catalog.Plan) []string {
	name := plan.Schema.Owner.Column
	if plan.Relation.Column(name) >= 0 {
		return nil
	}
	with := func(column string) string { return entryWith(plan, name, column) }
	e.r.Fail(checkColumns, e.renamed(plan.Relation, []string{name}, with, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
		Note: "with the owner column, in a file for --catalog"}, setupAgain()}),
		"table %s %s, which is the owner column: nothing of the table is sent", plan.Relation.Table(), e.lacks(name))
	return []string{name}
}

// renamed proposes a column for one that is missing: the one of nearly that name, or the
// only one that the catalog does not name. It is put into the file, since the table is the
// carrier's.
func (e *examination) renamed(relation *schemas.Relation, missing []string, with func(column string) string, otherwise doctor.Steps) doctor.Steps {
	for _, name := range missing {
		if _, there := e.unsent[name]; there {
			return e.sendAgain(relation.Table(), name, with)
		}
	}
	var unnamed []string
	for _, column := range relation.Columns {
		if !slices.Contains(columnsOf(e.cfg.Catalog, relation.Table()), column.Name) {
			unnamed = append(unnamed, column.Name)
		}
	}
	if len(missing) != 1 {
		return otherwise
	}
	if near := nearColumn(relation, missing[0]); near != "" {
		return doctor.Steps{{Kind: doctor.Catalog, Text: with(near), Note: "did you mean " + near + "? in a file for --catalog"}, setupAgain()}
	}
	if len(unnamed) != 1 {
		return otherwise
	}
	return doctor.Steps{{Kind: doctor.Catalog, Text: with(unnamed[0]), Note: "if " + unnamed[0] + " is the column now, in a file for --catalog"}, setupAgain()}
}

// nearColumn is the column of a table that a person may have meant; "" where none is near.
func nearColumn(relation *schemas.Relation, name string) string {
	names := make([]string, len(relation.Columns))
	for i := range relation.Columns {
		names[i] = relation.Columns[i].Name
	}
	return schemas.Nearest(name, names)
}

// urlColumn returns the step that adds the accounts' column of URLs.
func urlColumn(a catalog.AccountTable) doctor.Steps {
	fix := addColumn(a.Table, a.URL, "or name the column that holds it in the catalog file, as account.url")
	fix[0].Unless = fmt.Sprintf("EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = %s::pg_catalog.regclass AND attname = %s AND NOT attisdropped)",
		doctor.QuoteLiteral(a.Table.String()), doctor.QuoteLiteral(a.URL))
	return fix
}

func addColumn(table schemas.TableName, name, note string) doctor.Steps {
	return doctor.Steps{{Kind: doctor.SQL, On: onSource, Needs: "ownership of the table", Note: note,
		Text: fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s pg_catalog.text", table, schemas.QuoteIdent(name))}}
}

// setupAgain returns the step that puts a changed catalog file in force.
func setupAgain() doctor.Step {
	return doctor.Step{Kind: doctor.Command, Text: "walhook setup", Note: "puts the changed file in force, without a gap"}
}

// publishedAgain returns the step after which walhook knows what was not sent meanwhile.
func publishedAgain() doctor.Step { return acceptGap("after walhook was set up")[0] }

// unsentColumn is a column of a table whose values are not sent.
type unsentColumn struct {
	generated   bool
	virtual     bool     // generated and never stored
	publishable bool     // with a setting of the publication
	from        []string // the columns that it is computed from
	alike       bool     // they have its type
}

const (
	// computedFromSQL joins the dependencies of the column of row "g" on the columns that
	// it is computed from: before PostgreSQL 15 the column has them, since then its
	// expression.
	computedFromSQL = `LEFT JOIN pg_attrdef e ON e.adrelid = g.attrelid AND e.adnum = g.attnum AND g.attgenerated <> ''
	LEFT JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.attrelid AND d.refobjsubid > 0 AND d.refobjsubid <> g.attnum
		AND (d.classid = 'pg_class'::regclass AND d.objid = g.attrelid AND d.objsubid = g.attnum
			OR d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid)`

	// unsentColumnsSQL lists the columns of a table, and the columns that generated ones
	// are computed from.
	unsentColumnsSQL = `
	SELECT g.attname::text, g.attgenerated <> '', g.attgenerated = 'v',
		g.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000,
		coalesce(array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attnum IS NOT NULL), '{}'), coalesce(bool_and(a.atttypid = g.atttypid), false)
	FROM pg_attribute g
	` + computedFromSQL + `
	LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
	WHERE g.attrelid = $1 AND g.attnum > 0 AND NOT g.attisdropped
	GROUP BY g.attnum, g.attname, g.attgenerated`
)

// unsentColumns returns the columns of a table that its relation does not have.
func unsentColumns(ctx context.Context, q querier, table uint32, relation *schemas.Relation) (map[string]unsentColumn, error) {
	rows, err := q.Query(ctx, unsentColumnsSQL, table)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", relation.Table(), err)
	}
	unsent := map[string]unsentColumn{}
	var name string
	var c unsentColumn
	_, err = pgx.ForEachRow(rows, []any{&name, &c.generated, &c.virtual, &c.publishable, &c.from, &c.alike}, func() error {
		if relation.Column(name) < 0 {
			unsent[name] = unsentColumn{c.generated, c.virtual, c.publishable, append([]string(nil), c.from...), c.alike}
		}
		return nil
	})
	return unsent, err
}

// lacks says that a table does not have a column, or does not send it.
func (e *examination) lacks(name string) string {
	switch c, there := e.unsent[name]; {
	case !there:
		return fmt.Sprintf("has no column %q", name)
	case c.virtual:
		return fmt.Sprintf("does not send column %q, which is a virtual generated column: no server sends those", name)
	case c.publishable:
		return fmt.Sprintf("does not send column %q, which is generated and not published", name)
	case c.generated:
		return fmt.Sprintf("does not send column %q, which is generated: servers before PostgreSQL 18 do not", name)
	}
	return fmt.Sprintf("does not send column %q, which the publication's column list leaves out", name)
}

// sendAgain returns the steps that make the source send an existing column, without a
// change of the table. with returns the catalog's entry with another column.
func (e *examination) sendAgain(table schemas.TableName, name string, with func(column string) string) doctor.Steps {
	switch c := e.unsent[name]; {
	case !c.generated:
		return append(publishAgain(e.cfg.Publication, table, "or add it to the column list, if you need the list"), publishedAgain())
	case c.publishable:
		return append(doctor.Ask(onSource, "ownership of the publication", publishGeneratedSQL(e.cfg.Publication)), publishedAgain())
	case len(c.from) == 1 && c.alike:
		return doctor.Steps{{Kind: doctor.Catalog, Text: with(c.from[0]),
			Note: "in a file for --catalog: the column is computed from " + c.from[0] + ", which is sent, if both have the same value"}, setupAgain()}
	default:
		note := "in a file for --catalog, with a column that is stored and sent"
		if len(c.from) > 0 {
			note += " (it is computed from " + strings.Join(c.from, ", ") + ")"
		}
		return doctor.Steps{{Kind: doctor.Catalog, Text: with("COLUMN"), Note: note}, setupAgain()}
	}
}
