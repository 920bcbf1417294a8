package catalog

import (
	"slices"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// TableDescription is what the source's system catalog says about a table and the
// stream does not. The outbox keeps it, since the system catalog may have changed
// before walhook reads a backlog.
type TableDescription struct {
	OID             uint32
	From            schemas.LSN // the end of the WAL when walhook first saw the table in this form
	Namespace, Name string
	Identity        schemas.ReplicaIdentity
	Ancestors       []Ancestor // the tables that it is a partition of, or inherits from, nearest first
	// Inherits says that it inherits and is not a partition. InheritedKey names the
	// columns of its parent's primary key, since a child does not inherit the key.
	Inherits     bool
	InheritedKey []string
	Columns      []DescribedColumn
	Types        []pgjson.TypeRow // of the columns, without built-in types
	// Since are the transactions that last wrote the system catalog's rows about the
	// table's ancestors and its primary key.
	Since []uint32
	// Moved names the columns that were redefined since walhook first saw the table:
	// renamed, added again, of another type, or with new values by USING. Old rows may
	// hold values under such a name that walhook never sent under it.
	Moved []string
	// Added says that walhook first saw the table as a new partition of a known table,
	// and never under FULL.
	Added bool
}

// Ancestor is a table above a partition or a child.
type Ancestor struct {
	OID uint32
	schemas.TableName
}

// DescribedColumn is a column as the catalog has it.
type DescribedColumn struct {
	Name     string
	Written  uint32 // the transaction that last wrote its row of pg_attribute; 0 when it is not known
	Type     uint32
	Primary  bool // part of the primary key
	Identity bool // part of the replica identity's index
	Unsent   bool // generated, and not published
	NotNull  bool
	Equality schemas.Equality // how its values compare
	// Missing is the column's value in rows that are older than the column
	// (pg_attribute.attmissingval); nil for none.
	Missing *string
}

// Table is the table's qualified name.
func (d *TableDescription) Table() schemas.TableName {
	return schemas.TableName{Namespace: d.Namespace, Name: d.Name}
}

// Fits reports whether the description has the relation's columns, with the same
// types and in the same order.
func (d *TableDescription) Fits(r *schemas.Relation) bool {
	at := 0
	for _, column := range r.Columns {
		for at < len(d.Columns) && (d.Columns[at].Name != column.Name || d.Columns[at].Type != column.Type) {
			at++
		}
		if at == len(d.Columns) {
			return false
		}
		at++
	}
	return d.Table() == r.Table()
}

// Same reports whether two descriptions are equal, apart from when the table took
// this form.
func (d *TableDescription) Same(other *TableDescription) bool {
	return d.OID == other.OID && d.Table() == other.Table() && d.Identity == other.Identity &&
		slices.Equal(d.Ancestors, other.Ancestors) && d.Inherits == other.Inherits && slices.Equal(d.InheritedKey, other.InheritedKey) &&
		slices.EqualFunc(d.Columns, other.Columns, sameColumn) && slices.EqualFunc(d.Types, other.Types, pgjson.TypeRow.SameAs)
}

// MovedSince names the columns of an older description that were redefined or
// dropped before d.
func (d *TableDescription) MovedSince(older *TableDescription) (names []string) {
	for _, was := range older.Columns {
		at := slices.IndexFunc(d.Columns, func(c DescribedColumn) bool { return c.Name == was.Name })
		if at < 0 || d.Columns[at].Type != was.Type || was.Written != 0 && d.Columns[at].Written != was.Written {
			names = append(names, was.Name)
		}
	}
	return names
}

func sameColumn(a, b DescribedColumn) bool {
	missing := a.Missing == b.Missing || a.Missing != nil && b.Missing != nil && *a.Missing == *b.Missing
	a.Missing, b.Missing = nil, nil
	return missing && a == b
}

// Root returns the name under which the catalog knows the table's rows: its own, or
// that of the nearest ancestor that the catalog names. partition is true for an
// ancestor.
func (c *Catalog) Root(d *TableDescription) (name schemas.TableName, partition bool) {
	if c.Names(d.Table()) {
		return d.Table(), false
	}
	for _, ancestor := range d.Ancestors {
		if c.Names(ancestor.TableName) {
			return ancestor.TableName, true
		}
	}
	if n := len(d.Ancestors); n > 0 {
		return d.Ancestors[n-1].TableName, true
	}
	return d.Table(), false
}

// IsChildOf reports whether the table inherits from another one, whose key
// identifies its rows.
func (d *TableDescription) IsChildOf(table schemas.TableName) bool {
	return d.Inherits && len(d.InheritedKey) > 0 && d.Table() != table
}

// HasPrimaryKey reports whether the table has a primary key.
func (d *TableDescription) HasPrimaryKey() bool {
	return slices.ContainsFunc(d.Columns, func(c DescribedColumn) bool { return c.Primary })
}

// PrimaryKeyOf finds the described primary key among a relation's columns: by name,
// or by place if only names differ. cut says that the relation lacks a part of it;
// key is then empty. A child whose rows count as another table's has that table's
// key.
func (d *TableDescription) PrimaryKeyOf(r *schemas.Relation) (key []int, cut bool) {
	if d.IsChildOf(r.Table()) {
		return d.find(r, func(c DescribedColumn) bool { return slices.Contains(d.InheritedKey, c.Name) })
	}
	return d.find(r, func(c DescribedColumn) bool { return c.Primary })
}

// IdentityCutOf reports whether a relation lacks columns of the replica identity's
// index.
func (d *TableDescription) IdentityCutOf(r *schemas.Relation) bool {
	_, cut := d.find(r, func(c DescribedColumn) bool { return c.Identity })
	return cut
}

func (d *TableDescription) find(r *schemas.Relation, wanted func(DescribedColumn) bool) (found []int, cut bool) {
	var sent []DescribedColumn
	for _, column := range d.Columns {
		if !column.Unsent {
			sent = append(sent, column)
		}
	}
	places := slices.EqualFunc(sent, r.Columns, func(a DescribedColumn, b schemas.Column) bool { return a.Type == b.Type })
	for _, column := range d.Columns {
		if !wanted(column) {
			continue
		}
		at := r.Column(column.Name)
		if at < 0 && places {
			at = slices.IndexFunc(sent, func(c DescribedColumn) bool { return c.Name == column.Name })
		}
		if at < 0 {
			return nil, true
		}
		found = append(found, at)
	}
	slices.Sort(found)
	return found, false
}

// Compare sets the Equality of a relation's columns.
func (d *TableDescription) Compare(r *schemas.Relation) {
	for i := range r.Columns {
		at := slices.IndexFunc(d.Columns, func(c DescribedColumn) bool { return c.Name == r.Columns[i].Name })
		if at >= 0 {
			r.Columns[i].Equality = d.Columns[at].Equality
		}
	}
}

// Refer sets how those columns of a relation compare that refer to accounts and to
// other records. find returns a table's description, or nil. Without a description
// the column compares by its own type.
func (c *Catalog) Refer(r *schemas.Relation, find func(schemas.TableName) *TableDescription) {
	r.AccountIDs = schemas.EqualAsText
	known := false
	if d := find(c.Account.Table); d != nil {
		r.AccountIDs, known = d.equality(c.Account.ID)
	}
	schema := c.SchemaOf(r.Table())
	if schema == nil {
		return
	}
	r.OwnerIDs = r.AccountIDs
	if parent := c.Schema(schema.Owner.Schema); parent != nil {
		known = false
		if d := find(parent.Table); d != nil {
			r.OwnerIDs, known = d.keyEquality(parent)
		}
	}
	if at := r.Column(schema.Owner.Column); !known && at >= 0 {
		r.OwnerIDs = r.Columns[at].Equality
	}
}

func (d *TableDescription) equality(column string) (e schemas.Equality, known bool) {
	for _, c := range d.Columns {
		if c.Name == column {
			return c.Equality, true
		}
	}
	return schemas.EqualAsText, false
}

// keyEquality is that of the one column of a schema's key.
func (d *TableDescription) keyEquality(schema *Schema) (e schemas.Equality, known bool) {
	if len(schema.Key) > 0 {
		return d.equality(schema.Key[0])
	}
	for _, c := range d.Columns {
		if c.Primary {
			return c.Equality, true
		}
	}
	return schemas.EqualAsText, false
}
