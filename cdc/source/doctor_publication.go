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

// lookAtPublication looks for changes that the stream lacks without an error.
func (e *examination) lookAtPublication(ctx context.Context) {
	all := []string{checkPublication, checkPublished, checkColumnLists, checkRowFilters, checkPartitions}
	switch {
	case e.unread != nil:
		e.r.Skip("the stored position cannot be read", checkPublication, checkPublished)
	case e.stored.Source == (schemas.Source{}):
		e.r.Skip("'walhook setup' does it; with --dry-run it prints the SQL", all...)
		return
	case e.stored.Source.Database != e.s.Database && !e.slot.Exists:
		e.r.Skip("not checked: the outbox follows another database", all...)
		return
	case e.r.Failed(checkSetup, checkOutboxPublished) != "":
		e.r.Skip("not checked: "+e.r.Failed(checkSetup, checkOutboxPublished), all...)
		return
	default:
		if failed, err := e.followed().checkPublication(e.stored.Checkpoint, e.slot); err != nil {
			e.fail(failed, err)
			if failed == checkPublication {
				e.r.Skip("not checked: "+checkPublication, all...)
				return
			}
		}
		e.r.OK(checkPublication, "%s, as it was set up (oid %d)", e.cfg.Publication, e.slot.publication)
		e.r.OK(checkPublished, "%s, every operation", doctor.Count(len(e.slot.published), "table"))
	}
	if e.slot.publication == 0 {
		e.r.Skip("there is no publication", all...)
		return
	}
	members, err := readMembers(ctx, e.s, e.cfg)
	if err != nil {
		e.s.Unseen(e.r, err, checkColumnLists, checkRowFilters, checkPartitions)
		return
	}
	for _, m := range members {
		e.columnList(m)
		e.rowFilter(m)
	}
	e.r.OK(checkColumnLists, "no column list leaves out a column of the catalog")
	e.r.OK(checkRowFilters, "no table has a row filter")
	e.partitions(members)
}

// member is a table that the publication lists.
type member struct {
	Namespace, Name         string
	RootNamespace, RootName string   // of a partition; otherwise its own name
	Columns                 []string // nil for all
	Filter                  string   // "" for none
	Identity                string
	Key                     []string // the primary key
}

func (m member) table() schemas.TableName {
	return schemas.TableName{Namespace: m.Namespace, Name: m.Name}
}
func (m member) root() schemas.TableName {
	return schemas.TableName{Namespace: m.RootNamespace, Name: m.RootName}
}

const (
	membersSQL = `
		SELECT n.nspname::text, c.relname::text, rn.nspname::text, root.relname::text, %s, c.relreplident::text,
			coalesce((SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
				WHERE i.indrelid = c.oid AND i.indisprimary), '{}')
		FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_class root ON root.oid = coalesce(pg_partition_root(c.oid), c.oid) JOIN pg_namespace rn ON rn.oid = root.relnamespace
		WHERE p.pubname = $1 ORDER BY 1, 2`

	// PostgreSQL has column lists and row filters since 15.
	listAndFilterSQL = `
		(SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)),
		coalesce(pg_get_expr(r.prqual, c.oid), '')`
	noListOrFilterSQL = `NULL::text[], ''::text`
)

// readMembers lists the catalog's tables and their partitions that the publication
// lists.
func readMembers(ctx context.Context, q querier, cfg Config) ([]member, error) {
	var version int
	if err := q.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return nil, err
	}
	extra := listAndFilterSQL
	if version < 150000 {
		extra = noListOrFilterSQL
	}
	rows, err := q.Query(ctx, fmt.Sprintf(membersSQL, extra), cfg.Publication)
	if err != nil {
		return nil, err
	}
	members, err := pgx.CollectRows(rows, pgx.RowToStructByPos[member])
	return slices.DeleteFunc(members, func(m member) bool { return !cfg.Catalog.Names(m.root()) }), err
}

// columnFault describes the columns that a column list withholds, and reports whether the
// table's own updates fail because of it; "" for none.
func (m member) columnFault(catalog *catalog.Catalog) (fault string, refused bool) {
	if m.Columns == nil {
		return "", false
	}
	lacks := func(name string) bool { return !slices.Contains(m.Columns, name) }
	if m.Identity == string(schemas.IdentityFull) || slices.ContainsFunc(m.Key, lacks) {
		return fmt.Sprintf("table %s is published with a column list that lacks columns of its replica identity: its own updates and deletes fail", m.table()), true
	}
	if missing := slices.DeleteFunc(columnsOf(catalog, m.root()), func(name string) bool { return !lacks(name) }); len(missing) > 0 {
		return fmt.Sprintf("table %s is published without %s: absent from every event", m.table(), strings.Join(missing, ", ")), false
	}
	return "", false
}

// filterFault describes the rows that a row filter withholds; "" for none.
func (m member) filterFault() string {
	if m.Filter == "" {
		return ""
	}
	return fmt.Sprintf("table %s is published only WHERE %s: other rows are never sent", m.table(), m.Filter)
}

// columnList reports a column list of the publication.
func (e *examination) columnList(m member) {
	again := func(note string) doctor.Steps { return e.publishAgain(m, note) }
	switch fault, refused := m.columnFault(e.cfg.Catalog); {
	case refused:
		e.cut = append(e.cut, m.table())
		e.r.Fail(checkColumnLists, again(""), "%s", fault)
	case fault != "":
		e.r.Warn(checkColumnLists, again("or add them to the column list, if you need the list"), "%s", fault)
	}
}

// publishAgain publishes the whole of a table, which makes a gap.
func (e *examination) publishAgain(m member, note string) doctor.Steps {
	return append(publishAgain(e.cfg.Publication, m.table(), note), acceptGap("it stops with a gap, since it cannot see that nothing was changed in between; this sends what was left out")...)
}

// rowFilter reports a row filter of the publication.
func (e *examination) rowFilter(m member) {
	if fault := m.filterFault(); fault != "" {
		e.r.Warn(checkRowFilters, e.publishAgain(m, "unless you need the filter: a row that starts to match it is sent as an insert"), "%s", fault)
	}
}

// partitions reports partitions that are published one by one, since the next one would
// not be published.
func (e *examination) partitions(members []member) {
	n := 0
	for _, t := range e.tables {
		if !t.exists || !t.partitioned {
			continue
		}
		n++
		whole := slices.ContainsFunc(members, func(m member) bool { return m.table() == t.name })
		single := slices.ContainsFunc(members, func(m member) bool { return m.root() == t.name && m.table() != t.name })
		if single && !whole {
			e.r.Warn(checkPartitions, doctor.Ask(onSource, "ownership of the publication and of the table",
				fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", schemas.QuoteIdent(e.cfg.Publication), t.name)),
				"the partitions of %s are published one by one: a new partition would not be published", t.name)
		}
	}
	e.r.OK(checkPartitions, "%s %s partitioned", doctor.Count(n, "table"), doctor.Are(n))
}

// costSQL returns how many rows of the tables were changed or deleted since the statistics
// began, and the average size of a row.
const costSQL = `
	SELECT n.nspname::text, c.relname::text, coalesce(s.n_tup_upd + s.n_tup_del, 0)::bigint,
		(CASE WHEN c.reltuples > 0 THEN c.relpages * current_setting('block_size')::float8 / c.reltuples ELSE 0 END)::float8
	FROM unnest($1::text[], $2::text[]) AS named (namespace, name)
	JOIN pg_namespace n ON n.nspname = named.namespace JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = named.name
	LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid`

// cost is the cost of FULL for a table: its old rows in the WAL.
type cost struct {
	Namespace, Name string
	Changes         int64
	Width           float64
}

func (c cost) bytes() float64 { return float64(c.Changes) * c.Width }

// looksAtIdentity says whether [examination.lookAtIdentity] reports anything: before setup
// the check of rights names the statements.
func (e *examination) looksAtIdentity() bool {
	return e.stored.Source != (schemas.Source{}) || e.unread != nil
}

// lookAtIdentity reports what each table's replica identity keeps of old rows, and what
// FULL costs.
func (e *examination) lookAtIdentity(ctx context.Context) {
	if !e.looksAtIdentity() {
		e.r.Skip("'walhook setup' does it; with --dry-run it prints the SQL", checkIdentity)
		return
	}
	costs, err := e.costs(ctx)
	if err != nil {
		e.s.Unseen(e.r, err, checkIdentity)
		return
	}
	var full cost
	tables := 0
	for _, t := range e.tables {
		if !t.exists || !t.logged {
			continue
		}
		for _, l := range t.identities {
			name := schemas.TableName{Namespace: l.Namespace, Name: l.Name}
			c := costs[name]
			if l.Full {
				tables++
				full.Changes += c.Changes
				full.Width += c.bytes()
			}
			e.identity(t, l, name, c)
		}
	}
	e.r.OK(checkIdentity, "%s under FULL; %s %d updates and deletes since the last statistics reset wrote about %s of old rows",
		doctor.Count(tables, "table"), doctor.Choose(tables, "its", "their"), full.Changes, bytesText(full.Width))
}

func (e *examination) identity(t tableState, l identityTable, name schemas.TableName, c cost) {
	if l.Listed && slices.Contains(e.cut, name) {
		return
	}
	if fault, wrong := l.fault(e.cfg.Publication); wrong && fault.refused && l.Full && t.published {
		fix := doctor.Steps{{Kind: doctor.SQL, On: onSource, Text: fault.sql, Needs: "ownership of what it changes"}}
		why := l.refusesFull()
		if why == "" {
			why = "it has a generated column that is not published"
		}
		e.r.Fail(checkIdentity, fix, "table %s is under FULL, and %s: the server refuses its own updates and deletes", name, why)
		return
	}
	statement, ok := l.identity()
	published := t.published
	if l.Child {
		published = l.Published
		e.child(t, l, ok, statement)
	}
	switch fix := (doctor.Steps{{Kind: doctor.SQL, On: onSource, Text: statement.SQL, Needs: statement.Needs}}); {
	case !ok:
		e.r.Fail(checkIdentity, doctor.Ask(onSource, "ownership of the table", fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (id)", name)),
			"table %s has no published primary key, and %s: if published, its own updates would fail", name, l.refusesFull())
	case statement.SQL == "":
	case l.Nameless && published:
		e.r.Fail(checkIdentity, fix, "the replica identity of table %s lacks columns of its records' key: its deletes reach nobody", name)
	case !statement.Optional && published:
		e.r.Fail(checkIdentity, fix, "table %s has no replica identity: its own updates and deletes fail", name)
	case published:
		e.r.Warn(checkIdentity, fix, "old rows of table %s carry only the key: deletes carry only the key, and large values that an update leaves unchanged are absent; "+
			"FULL would have written about %s for its %d updates and deletes since the last statistics reset", name, bytesText(c.bytes()), c.Changes)
	}
}

// child reports an unpublished table that inherits from a published one: it was created
// after setup.
func (e *examination) child(t tableState, l identityTable, able bool, identity Statement) {
	if l.Published || !able || !t.published {
		return
	}
	var fix doctor.Steps
	if identity.SQL != "" {
		fix = append(fix, doctor.Step{Kind: doctor.SQL, On: onSource, Text: identity.SQL, Needs: "ownership of the table"})
	}
	fix = append(fix, doctor.Step{Kind: doctor.SQL, On: onSource, Needs: "ownership of the publication and of the table",
		Text: fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE ONLY %s", schemas.QuoteIdent(e.cfg.Publication), l.name())})
	e.r.Fail(checkPublished, fix, "table %s inherits from %s and is not published: its rows are never sent", l.name(), t.name)
}

func (e *examination) costs(ctx context.Context) (map[schemas.TableName]cost, error) {
	var namespaces, names []string
	for _, t := range e.tables {
		for _, l := range t.identities {
			namespaces, names = append(namespaces, l.Namespace), append(names, l.Name)
		}
	}
	rows, err := e.s.Query(ctx, costSQL, namespaces, names)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[cost])
	costs := make(map[schemas.TableName]cost, len(list))
	for _, c := range list {
		costs[schemas.TableName{Namespace: c.Namespace, Name: c.Name}] = c
	}
	return costs, err
}

// bytesText formats a number of bytes.
func bytesText(n float64) string {
	for _, unit := range []string{"bytes", "kB", "MB", "GB"} {
		if n < 1024 {
			return fmt.Sprintf("%.0f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TB", n)
}
