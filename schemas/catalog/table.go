package catalog

import (
	"slices"

	"walhook/schemas"
)

// Table is a table of a database as its system catalog describes it: what a catalog
// file is compared with, and drafted from.
type Table struct {
	Name schemas.TableName
	// Kind is table, or what has no rows in the WAL: view, materialized view,
	// foreign table.
	Kind    string
	Comment string
	Columns []TableColumn // in their order
	// Key is the primary key, in its order; none where there is none.
	Key []string
	// Unique are the columns of further unique indexes that hold no nulls, the
	// shortest first.
	Unique  [][]string
	Foreign []ForeignKey // in order of name
	// Partitioned says that its rows are in partitions, which are not listed.
	Partitioned bool
	// PartitionOf is the table that it is a partition of, or inherits from; the
	// zero name where it is none.
	PartitionOf schemas.TableName
	// Logged: its changes are in the WAL. Readable: the role may read it.
	Logged, Readable bool
	// Extension says that an extension made it.
	Extension bool
	// Rows is the number of rows that the server's statistics estimate; 0 if they have
	// none.
	Rows int64
	// InsertOnly: the same statistics counted inserts, and neither updates nor deletes.
	InsertOnly bool
}

// TableColumn is a column of a table.
type TableColumn struct {
	Name, Type, Comment string
	NotNull             bool
	// Unsent says that it is generated, and the server sends no such columns.
	Unsent bool
	// Equality says how its values compare.
	Equality schemas.Equality
}

// ForeignKey are columns that refer to another table's.
type ForeignKey struct {
	Name    string
	Columns []string
	Table   schemas.TableName
	Refers  []string
}

// Column finds a column by name; nil when there is none.
func (t *Table) Column(name string) *TableColumn {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

func (t *Table) columnNames() []string {
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		names[i] = t.Columns[i].Name
	}
	return names
}

// foreignKeyOf is the foreign key of one column alone; nil when there is none.
func (t *Table) foreignKeyOf(column string) *ForeignKey {
	for i := range t.Foreign {
		if len(t.Foreign[i].Columns) == 1 && t.Foreign[i].Columns[0] == column {
			return &t.Foreign[i]
		}
	}
	return nil
}

// isUnique says whether no two rows have the same values in the columns.
func (t *Table) isUnique(columns []string) bool {
	within := func(key []string) bool {
		return len(key) > 0 && !slices.ContainsFunc(key, func(c string) bool { return !slices.Contains(columns, c) })
	}
	return within(t.Key) || slices.ContainsFunc(t.Unique, within)
}
