package cdc

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

// costSQL says how often rows of the tables were changed or deleted since the
// statistics began, and how many bytes one has about.
const costSQL = `
	SELECT n.nspname::text, c.relname::text, coalesce(s.n_tup_upd + s.n_tup_del, 0)::bigint,
		(CASE WHEN c.reltuples > 0 THEN c.relpages * current_setting('block_size')::float8 / c.reltuples ELSE 0 END)::float8
	FROM unnest($1::text[], $2::text[]) AS named (namespace, name)
	JOIN pg_namespace n ON n.nspname = named.namespace JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = named.name
	LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid`

// cost is what FULL costs a table: its old rows in the WAL.
type cost struct {
	Namespace, Name string
	Changes         int64
	Width           float64
}

func (c cost) bytes() float64 { return float64(c.Changes) * c.Width }

// lookAtIdentity says what each table's replica identity keeps of old rows, and
// what FULL costs here.
func (e *examination) lookAtIdentity(ctx context.Context) {
	if e.stored.Source == (schemas.Source{}) && e.unread == nil {
		e.r.Skip("'walhook setup' sees to it; with --dry-run it prints what", checkIdentity)
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
		for _, l := range t.loggers {
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
	e.r.OK(checkIdentity, "%s under FULL; %s %d updates and deletes since the statistics began wrote about %s of old rows",
		doctor.Count(tables, "table"), doctor.Choose(tables, "its", "their"), full.Changes, bytesText(full.Width))
}

func (e *examination) identity(t tableState, l logger, name schemas.TableName, c cost) {
	if l.Listed && slices.Contains(e.cut, name) {
		return
	}
	if fault, wrong := l.fault(e.cfg.Publication); wrong && fault.refused && l.Full && t.published {
		mend := doctor.Steps{{Kind: doctor.SQL, On: source, Text: fault.sql, Needs: "ownership of what it changes"}}
		why := l.refusesFull()
		if why == "" {
			why = "it has a generated column that is not published"
		}
		e.r.Fail(checkIdentity, mend, "table %s is under FULL, and %s: the server refuses its own updates and deletes", name, why)
		return
	}
	statement, ok := l.identity()
	published := t.published
	if l.Child {
		published = l.Published
		e.child(t, l, ok, statement)
	}
	switch mend := (doctor.Steps{{Kind: doctor.SQL, On: source, Text: statement.SQL, Needs: statement.Needs}}); {
	case !ok:
		e.r.Fail(checkIdentity, doctor.Ask(source, "ownership of the table", fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (id)", name)),
			"table %s has no primary key that is published, and %s: published, its own updates would fail", name, l.refusesFull())
	case statement.SQL == "":
	case l.Nameless && published:
		e.r.Fail(checkIdentity, mend, "the replica identity of table %s lacks columns of the key that names its records: its deletes reach nobody", name)
	case !statement.Optional && published:
		e.r.Fail(checkIdentity, mend, "table %s has no replica identity: its own updates and deletes fail", name)
	case published:
		e.r.Warn(checkIdentity, mend, "table %s keeps only its key of old rows: deletes carry no more, and large values that an update did not touch are absent; "+
			"FULL would have written about %s for its %d updates and deletes since the statistics began", name, bytesText(c.bytes()), c.Changes)
	}
}

// child tells of a table whose rows are another's by inheritance and that is
// not published: one that was made since setup.
func (e *examination) child(t tableState, l logger, able bool, identity Statement) {
	if l.Published || !able || !t.published {
		return
	}
	var mend doctor.Steps
	if identity.SQL != "" {
		mend = append(mend, doctor.Step{Kind: doctor.SQL, On: source, Text: identity.SQL, Needs: "ownership of the table"})
	}
	mend = append(mend, doctor.Step{Kind: doctor.SQL, On: source, Needs: "ownership of the publication and of the table",
		Text: fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE ONLY %s", schemas.QuoteIdent(e.cfg.Publication), l.name())})
	e.r.Fail(checkPublished, mend, "table %s inherits from %s and is not published: its rows are never sent", l.name(), t.name)
}

func (e *examination) costs(ctx context.Context) (map[schemas.TableName]cost, error) {
	var namespaces, names []string
	for _, t := range e.tables {
		for _, l := range t.loggers {
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

// bytesText writes an amount for people.
func bytesText(n float64) string {
	for _, unit := range []string{"bytes", "kB", "MB", "GB"} {
		if n < 1024 {
			return fmt.Sprintf("%.0f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TB", n)
}
