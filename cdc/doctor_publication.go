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

// lookAtPublication looks for what is missing from the stream without a word.
func (e *examination) lookAtPublication(ctx context.Context) {
	all := []string{checkPublication, checkPublished, checkColumnLists, checkRowFilters, checkPartitions}
	switch {
	case e.unread != nil:
		e.r.Skip("what is stored cannot be read", checkPublication, checkPublished)
	case e.stored.Source == (schemas.Source{}):
		e.r.Skip("'walhook setup' sees to it; with --dry-run it prints what", all...)
		return
	case e.stored.Source.Database != e.s.Database && !e.slot.exists:
		e.r.Skip("not looked at: the outbox follows another database", all...)
		return
	case e.r.Failed(checkSetup, checkOutboxPublished) != "":
		e.r.Skip("not looked at: "+e.r.Failed(checkSetup, checkOutboxPublished), all...)
		return
	default:
		if failed, err := e.cfg.judgePublication(e.stored.Flush, e.stored.Source.PublicationOID, e.slot); err != nil {
			e.fail(failed, err)
			if failed == checkPublication {
				e.r.Skip("not looked at: "+checkPublication, all...)
				return
			}
		}
		e.r.OK(checkPublication, "%s, the one that was set up (%d)", e.cfg.Publication, e.slot.publication)
		e.r.OK(checkPublished, "%d tables, every operation", len(e.slot.published))
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
	e.r.OK(checkColumnLists, "none leaves out what the catalog names")
	e.r.OK(checkRowFilters, "no table has one")
	e.partitions(members)
}

// member is a table that the publication names.
type member struct {
	Namespace, Name         string
	RootNamespace, RootName string   // of a partition; otherwise its own
	Columns                 []string // nil when all are published
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

	// Column lists and row filters are there since PostgreSQL 15.
	listAndFilterSQL = `
		(SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)),
		coalesce(pg_get_expr(r.prqual, c.oid), '')`
	noListOrFilterSQL = `NULL::text[], ''::text`
)

// readMembers lists the tables of the catalog, and their partitions, that the
// publication names.
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

// columnFault says what a list of columns keeps back of a table's rows, and
// whether the table's own updates fail because of it; "" for nothing.
func (m member) columnFault(catalog *catalog.Catalog) (fault string, refused bool) {
	if m.Columns == nil {
		return "", false
	}
	lacks := func(name string) bool { return !slices.Contains(m.Columns, name) }
	if m.Identity == string(schemas.IdentityFull) || slices.ContainsFunc(m.Key, lacks) {
		return fmt.Sprintf("table %s is published with a list of columns that leaves out some of its replica identity: its own updates and deletes fail", m.table()), true
	}
	if missing := slices.DeleteFunc(columnsOf(catalog, m.root()), func(name string) bool { return !lacks(name) }); len(missing) > 0 {
		return fmt.Sprintf("table %s is published without %s: absent from every event", m.table(), strings.Join(missing, ", ")), false
	}
	return "", false
}

// filterFault says which rows are kept back; "" for none.
func (m member) filterFault() string {
	if m.Filter == "" {
		return ""
	}
	return fmt.Sprintf("table %s is published only WHERE %s: the other rows are never sent", m.table(), m.Filter)
}

// columnList tells of what the publication keeps back of a table's rows.
func (e *examination) columnList(m member) {
	again := func(note string) doctor.Steps { return publishAgain(e.cfg.Publication, m.table(), note) }
	switch fault, refused := m.columnFault(e.cfg.Catalog); {
	case refused:
		e.cut = append(e.cut, m.table())
		e.r.Fail(checkColumnLists, again(""), "%s", fault)
	case fault != "":
		e.r.Warn(checkColumnLists, again("or add them to the list, where it is there for a reason"), "%s", fault)
	}
}

// rowFilter tells of rows that are kept back.
func (e *examination) rowFilter(m member) {
	if fault := m.filterFault(); fault != "" {
		e.r.Warn(checkRowFilters, publishAgain(e.cfg.Publication, m.table(), "unless it is there for a reason: a row that comes to match it is sent as an insert"), "%s", fault)
	}
}

// partitions tells of partitions that are published one by one, so that the
// next one would not be.
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
			e.r.Warn(checkPartitions, doctor.Ask(source, "ownership of the publication and of the table",
				fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", schemas.QuoteIdent(e.cfg.Publication), t.name)),
				"the partitions of %s are published one by one: a new one would not be", t.name)
		}
	}
	e.r.OK(checkPartitions, "%s %s partitioned", doctor.Count(n, "table"), doctor.Are(n))
}
