package catalog

import (
	"fmt"
	"slices"
	"strings"

	"walhook/schemas"
)

// Compare compares the file with the tables of a database and adds the errors: names that
// the database does not have, and tables whose rows walhook could not identify or could
// not assign to an account. Each fix changes the file; none renames a table.
func (f *File) Compare(tables []*Table) {
	if len(f.places.nodes) == 0 {
		return // nothing of it could be read
	}
	c := comparison{file: f, catalog: f.catalog, places: f.places, tables: map[schemas.TableName]*Table{}}
	for _, t := range tables {
		c.tables[t.Name] = t
		c.names = append(c.names, t)
	}
	c.account()
	for _, s := range f.catalog.Schemas {
		c.schema(s)
	}
	c.items("results", f.catalog.Results, "user_id", "schema", "type", "status")
	c.items("events", f.catalog.Events, "account_id", "hook", "payload")
	for i, d := range f.catalog.derived {
		c.rule(fmt.Sprintf("derive[%d]", i), d)
	}
	f.faults = f.faults.sorted()
}

// comparison compares a file with a database.
type comparison struct {
	places
	file    *File
	catalog *Catalog
	tables  map[schemas.TableName]*Table
	names   []*Table
}

func (c *comparison) fault(path, problem, fix string) {
	c.file.faults = append(c.file.faults, c.at(path, problem, fix))
}

func (c *comparison) warn(path, problem, fix string) {
	warning := c.at(path, problem, fix)
	warning.Warning = true
	c.file.faults = append(c.file.faults, warning)
}

// table finds a table that the file names. If walhook cannot use it, table adds the
// error and returns nil.
func (c *comparison) table(path string, name schemas.TableName) *Table {
	if name == (schemas.TableName{}) {
		return nil
	}
	t := c.tables[name]
	switch {
	case t == nil:
		c.fault(path, fmt.Sprintf("table %s does not exist in the source", name), c.nearestTable(name))
		return nil
	case t.Kind != "table":
		c.fault(path, fmt.Sprintf("%s is a %s, whose rows are not in the WAL", name, t.Kind), "name the tables that it is made from")
		return nil
	case !t.Logged:
		c.warn(path, fmt.Sprintf("table %s is unlogged: its changes are not in the WAL, so none is sent", name), "")
	case !t.Readable:
		c.warn(path, fmt.Sprintf("the source's role may not read table %s", name), "'walhook doctor' prints the grants that walhook needs")
	}
	return t
}

// nearestTable names the table that a person may have meant: of that name in another
// schema of the database, or of nearly that name. It is one that can be used.
func (c *comparison) nearestTable(name schemas.TableName) string {
	var usable []schemas.TableName
	for _, t := range c.names {
		if t.Kind == "table" && !t.Extension {
			usable = append(usable, t.Name)
		}
	}
	switch near := schemas.NearestTable(name, usable); {
	case near != schemas.TableName{}:
		return "did you mean " + near.String() + "?"
	case !slices.ContainsFunc(c.names, func(t *Table) bool { return t.Name.Namespace == name.Namespace }):
		return fmt.Sprintf("the source has no schema %s with tables; its tables are in %s", schemas.QuoteIdent(name.Namespace), c.namespaces())
	}
	return "correct the name in the file, or remove what names it"
}

func (c *comparison) namespaces() string {
	var names []string
	for _, t := range c.names {
		if name := schemas.QuoteIdent(t.Name.Namespace); t.Kind == "table" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "no schema at all: is --source the right database?"
	}
	return strings.Join(names, ", ")
}

// column finds a column that the file names. If there is none, column adds the error
// and returns nil.
func (c *comparison) column(path string, t *Table, name string) *TableColumn {
	if t == nil || name == "" {
		return nil
	}
	column := t.Column(name)
	if column == nil {
		c.fault(path, fmt.Sprintf("table %s has no column %s", t.Name, cut(name)), orColumns(name, t))
	}
	return column
}

// orColumns names the nearest column, or the table's first ones.
func orColumns(name string, t *Table) string {
	if near := didYouMean(name, t.columnNames()); near != "" {
		return near
	}
	const most = 12
	names := t.columnNames()
	if len(names) > most {
		return fmt.Sprintf("it has %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "it has " + strings.Join(names, ", ")
}

// naming checks a column that names accounts or records.
func (c *comparison) naming(path string, t *Table, name string) *TableColumn {
	column := c.column(path, t, name)
	switch {
	case column == nil:
	case column.Unsent:
		c.fault(path, fmt.Sprintf("column %s of table %s is generated, and the server does not send such columns", name, t.Name), "name a column that it is computed from")
	case column.Equality == schemas.EqualUnknown:
		c.fault(path, fmt.Sprintf("column %s of table %s is of type %s, in which different texts are the same value: walhook cannot know the owner of a row", name, t.Name, column.Type),
			"name another column")
	}
	return column
}

func (c *comparison) account() {
	a := c.catalog.Account
	t := c.table("account.table", a.Table)
	c.naming("account.id", t, a.ID)
	if t != nil && t.Column(a.ID) != nil && !t.isUnique([]string{a.ID}) {
		c.warn("account.id", fmt.Sprintf("no primary key or unique index keeps two rows of %s from the same %s", t.Name, a.ID), "name the column that each account has for itself")
	}
	c.column("account.url", t, a.URL)
	c.column("account.secret", t, a.Secret)
	for _, part := range a.Brand.parts() {
		path := join("account.brand", part.key)
		if column := c.column(path, t, part.column); column != nil && column.Unsent {
			c.warn(path, fmt.Sprintf("column %s of table %s is generated, and the server does not send such columns: the portal does not show it", part.column, t.Name), "name a column that it is computed from")
		}
	}
	if parent := c.column("account.parent", t, a.Parent); parent != nil {
		if key := t.foreignKeyOf(a.Parent); key != nil && key.Table != a.Table {
			c.warn("account.parent", fmt.Sprintf("column %s refers to %s, which is not the account table", a.Parent, key.Table), "")
		}
	}
}

func (c *comparison) schema(s *Schema) {
	at := join("schemas", s.Name)
	t := c.table(join(at, "table"), s.Table)
	if t == nil {
		return
	}
	for i, field := range s.Fields {
		path := fmt.Sprintf("%s[%d]", join(at, "fields"), i)
		if c.nodes[path] == nil {
			path = join(at, "fields", field.Name)
		}
		if column := c.column(path, t, field.Column); column != nil && column.Unsent {
			c.warn(path, fmt.Sprintf("column %s of table %s is generated, and the server does not send such columns: the field is always absent", field.Column, t.Name), "")
		}
	}
	c.key(join(at, "key"), s, t)
	c.owner(join(at, "owner"), s, t)
}

func (c *comparison) key(path string, s *Schema, t *Table) {
	for i, name := range s.Key {
		c.naming(fmt.Sprintf("%s[%d]", path, i), t, name)
	}
	switch {
	case len(s.Key) == 0 && len(t.Key) == 0:
		fix := "name with key the columns that tell its rows apart"
		if len(t.Unique) > 0 {
			fix = fmt.Sprintf("key: [%s]", strings.Join(quotedNames(t.Unique[0]), ", "))
		}
		c.fault(path, fmt.Sprintf("table %s has no primary key, so that nothing tells its records apart", t.Name), fix)
	case len(s.Key) == 0:
		for _, name := range t.Key {
			if column := t.Column(name); column != nil && (column.Unsent || column.Equality == schemas.EqualUnknown) {
				c.naming(path, t, name)
			}
		}
	case !t.isUnique(s.Key) && !slices.ContainsFunc(s.Key, func(name string) bool { return t.Column(name) == nil }):
		c.warn(path, fmt.Sprintf("no primary key or unique index keeps two rows of %s from the same %s", t.Name, strings.Join(s.Key, ", ")), "name columns that tell every row apart")
	}
}

func (c *comparison) owner(path string, s *Schema, t *Table) {
	columnPath := path
	if s.Owner.Schema != "" {
		columnPath = join(path, "column")
	}
	column := c.naming(columnPath, t, s.Owner.Column)
	if column == nil {
		return
	}
	refersTo, name, what := c.catalog.Account.Table, c.catalog.Account.ID, "the account table"
	if s.Owner.Schema != "" {
		parent := c.catalog.byName[s.Owner.Schema]
		if parent == nil {
			return
		}
		parentTable := c.tables[parent.Table]
		key := parent.Key
		if len(key) == 0 && parentTable != nil {
			key = parentTable.Key
			if len(key) > 1 {
				c.fault(join(path, "schema"), fmt.Sprintf("table %s of schema %s has a primary key of several columns, which one column cannot refer to", parent.Table, parent.Name),
					fmt.Sprintf("give schema %s a key of one column, or name another parent", parent.Name))
			}
		}
		if len(key) != 1 {
			return
		}
		refersTo, name, what = parent.Table, key[0], "the table of schema "+parent.Name
	} else if s.Table == refersTo && s.Owner.Column == name {
		return
	}
	c.refers(columnPath, t, column, refersTo, name, what)
}

// refers warns of a column that refers elsewhere, or that can never be equal to what
// it should refer to.
func (c *comparison) refers(path string, t *Table, column *TableColumn, table schemas.TableName, name, what string) {
	target := c.tables[table]
	if target == nil {
		return
	}
	key := t.foreignKeyOf(column.Name)
	switch other := target.Column(name); {
	case key != nil && key.Table != table:
		c.warn(path, fmt.Sprintf("column %s of table %s refers to %s, and not to %s, %s", column.Name, t.Name, key.Table, table, what),
			c.ownerInstead(column.Name, key.Table))
	case key != nil && key.Refers[0] != name:
		c.warn(path, fmt.Sprintf("column %s of table %s refers to %s of %s, and not to %s", column.Name, t.Name, key.Refers[0], table, name), "")
	case other != nil && key == nil && family(column) != family(other) && family(column) != "" && family(other) != "":
		c.warn(path, fmt.Sprintf("column %s of table %s is %s, and %s of %s is %s: the two are never the same", column.Name, t.Name, column.Type, name, table, other.Type), "name another column")
	case other != nil && key == nil && (isText(column) && family(other) != "" || isText(other) && family(column) != ""):
		c.warn(path, fmt.Sprintf("column %s of table %s is %s, and %s of %s is %s: the two are the same only where the text is that value", column.Name, t.Name, column.Type, name, table, other.Type), "name another column, unless it is")
	}
}

// isText reports whether a column's values are texts.
func isText(c *TableColumn) bool {
	switch c.Equality {
	case schemas.EqualPadded, schemas.EqualFolded:
		return true
	}
	return c.Type == "text" || strings.HasPrefix(c.Type, "character varying")
}

// family is the kind of a column's values. A value of one family never equals one of
// another.
func family(c *TableColumn) string {
	switch c.Equality {
	case schemas.EqualNumber, schemas.EqualUUID:
		return string(c.Equality)
	}
	return ""
}

// ownerInstead is the owner through the table that a column refers to, where a
// schema has it.
func (c *comparison) ownerInstead(column string, table schemas.TableName) string {
	if s := c.catalog.byTable[table]; s != nil {
		return fmt.Sprintf("owner: {column: %s, schema: %s}", yamlText(column), yamlText(s.Name))
	}
	return ""
}

// items checks the table of results or of events.
func (c *comparison) items(part string, name schemas.TableName, columns ...string) {
	t := c.table(part+".table", name)
	for _, column := range columns {
		c.column(part+".table", t, column)
	}
}

func (c *comparison) rule(at string, d *Derivation) {
	s := c.catalog.byName[d.Schema]
	account := c.tables[c.catalog.Account.Table]
	var t *Table
	if s != nil {
		t = c.tables[s.Table]
	}
	tests := func(path string, list []ruleTest) {
		for _, test := range list {
			for _, name := range test.Columns {
				c.column(path, t, name)
			}
		}
	}
	tests(at+".where", d.where)
	for _, one := range d.cases {
		for _, condition := range one.When {
			tests(join(at+".when", one.Name), condition.Tests)
		}
	}
	for _, field := range d.fields {
		path := join(at+".fields", field.Name)
		switch field.Source {
		case fromColumn, fromOld, fromCount:
			c.column(path, t, field.Column)
		case fromAccount:
			c.column(path, account, field.Column)
		case fromChanged:
			for _, watched := range field.Watched {
				c.column(path, t, watched.Column)
			}
		}
	}
}

func quotedNames(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = yamlText(name)
	}
	return quoted
}
