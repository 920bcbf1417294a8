package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

// unsentColumn is a column that a table has and whose values do not come.
type unsentColumn struct {
	generated   bool
	virtual     bool     // and never stored
	publishable bool     // by a setting of the publication
	from        []string // columns that it is computed from
	alike       bool     // which are of its type
}

const (
	// computedFromSQL joins the dependencies of a column of the row "g" on those
	// that it is computed from: before PostgreSQL 15 they are the column's own,
	// since then its expression's.
	computedFromSQL = `LEFT JOIN pg_attrdef e ON e.adrelid = g.attrelid AND e.adnum = g.attnum AND g.attgenerated <> ''
	LEFT JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.attrelid AND d.refobjsubid > 0 AND d.refobjsubid <> g.attnum
		AND (d.classid = 'pg_class'::regclass AND d.objid = g.attrelid AND d.objsubid = g.attnum
			OR d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid)`

	// unsentColumnsSQL lists the columns of a table with what generated ones are
	// computed from.
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

// unsentColumns are the columns of a table that do not come with its relation.
func unsentColumns(ctx context.Context, q querier, table uint32, relation *schemas.Relation) (map[string]unsentColumn, error) {
	rows, err := q.Query(ctx, unsentColumnsSQL, table)
	if err != nil {
		return nil, fmt.Errorf("look at the columns of %s: %w", relation.Table(), err)
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

// lacks says what a table does not have, or does not send.
func (e *examination) lacks(name string) string {
	switch c, there := e.unsent[name]; {
	case !there:
		return fmt.Sprintf("has no column %q", name)
	case c.virtual:
		return fmt.Sprintf("does not send column %q, which is generated and virtual: no server sends those", name)
	case c.publishable:
		return fmt.Sprintf("does not send column %q, which is generated and not published", name)
	case c.generated:
		return fmt.Sprintf("does not send column %q, which is generated: servers before PostgreSQL 18 do not", name)
	}
	return fmt.Sprintf("does not send column %q, which the publication's list of columns leaves out", name)
}

// sendAgain is what makes a column come that the table has: never a change of
// the table. with gives the catalog's entry with another column in its place.
func (e *examination) sendAgain(table schemas.TableName, name string, with func(column string) string) doctor.Steps {
	switch c := e.unsent[name]; {
	case !c.generated:
		return append(publishAgain(e.cfg.Publication, table, "or add it to the list, where it is there for a reason"), setupAgain())
	case c.publishable:
		return append(doctor.Ask(source, "ownership of the publication", publishGeneratedSQL(e.cfg.Publication)), setupAgain())
	case len(c.from) == 1 && c.alike:
		return doctor.Steps{{Kind: doctor.Catalog, Text: with(c.from[0]),
			Note: "in a file for --catalog: the column is computed from " + c.from[0] + ", which is sent, if both say the same"}, setupAgain()}
	default:
		note := "in a file for --catalog, with a column that is stored and sent"
		if len(c.from) > 0 {
			note += " (it is computed from " + strings.Join(c.from, ", ") + ")"
		}
		return doctor.Steps{{Kind: doctor.Catalog, Text: with("COLUMN"), Note: note}, setupAgain()}
	}
}
