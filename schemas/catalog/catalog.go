package catalog

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"walhook/schemas"
)

// Catalog says which tables are published, as what, and whose their rows are.
// It does not change while walhook runs.
type Catalog struct {
	Account AccountTable
	// Schemas are in order of name.
	Schemas []*Schema
	// Results is the table of asynchronous results; the zero name is none.
	Results schemas.TableName
	// Events is the table of events that are not rows; the zero name is none.
	Events schemas.TableName

	source   []byte // the file
	ownHooks bool   // it has hooks of its own, instead of the built-in ones

	byTable map[schemas.TableName]*Schema
	byName  map[string]*Schema

	hooks          []*Hook
	byHook         map[string]*Hook
	derived        []*Derivation
	accountColumns []string
}

// AccountTable is the table of accounts and the columns that walhook follows.
type AccountTable struct {
	Table  schemas.TableName
	ID     string
	URL    string
	Parent string // "" for none: the column of the account above
	Secret string // "" for none: the column of the account's own whsec_ secret
}

// Schema is one kind of record that accounts are told about.
type Schema struct {
	Name   string
	Table  schemas.TableName
	Key    []string // columns; empty means the table's primary key
	Owner  Owner
	Fields []Field // what data holds, in this order
}

// Field is one member of data and the column that it comes from.
type Field struct {
	Name   string
	Column string
}

// Owner says which account a row belongs to. Column holds the account's id,
// or, when Schema is set, the key of a record of that schema, which in turn
// belongs to an account.
type Owner struct {
	Column string
	Schema string
}

// Schema finds a schema by name; nil when there is none.
func (c *Catalog) Schema(name string) *Schema { return c.byName[name] }

// SchemaOf finds the schema of a table; nil when the table is not published.
func (c *Catalog) SchemaOf(table schemas.TableName) *Schema { return c.byTable[table] }

// Names says whether the catalog names a table, in whatever part.
func (c *Catalog) Names(table schemas.TableName) bool {
	return c.byTable[table] != nil || table == c.Account.Table || table == c.Results || table == c.Events
}

// Tables lists every table that the publication has to hold, in order of name.
func (c *Catalog) Tables() []schemas.TableName {
	tables := []schemas.TableName{c.Account.Table}
	for _, s := range c.Schemas {
		tables = append(tables, s.Table)
	}
	for _, table := range []schemas.TableName{c.Results, c.Events} {
		if table != (schemas.TableName{}) {
			tables = append(tables, table)
		}
	}
	slices.SortFunc(tables, func(a, b schemas.TableName) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return slices.Compact(tables)
}

// IsParent says whether another schema's records belong to an account through
// records of s.
func (c *Catalog) IsParent(s *Schema) bool {
	for _, other := range c.Schemas {
		if other.Owner.Schema == s.Name {
			return true
		}
	}
	return false
}

// Fingerprint changes whenever owners would be learnt differently: another
// account table, other schemas, tables, keys or owners, or other columns of the
// account that rules ask for. Fields do not count.
func (c *Catalog) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "account %q %q %q %q %q\n", c.Account.Table, c.Account.ID, c.Account.URL, c.Account.Parent, c.Account.Secret)
	for _, s := range c.Schemas {
		fmt.Fprintf(h, "schema %q %q %q %q %q\n", s.Name, s.Table, s.Key, s.Owner.Column, s.Owner.Schema)
	}
	if len(c.accountColumns) > 0 {
		fmt.Fprintf(h, "account columns %q\n", c.accountColumns)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// index builds the look-up tables and lists everything that is wrong.
func (c *Catalog) index() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if c.Account.Table == (schemas.TableName{}) {
		fault("account.table is missing")
	}
	if c.Account.ID == "" {
		fault("account.id is missing: the column of an account's id")
	}
	if c.Account.URL == "" {
		fault("account.url is missing: the column of an account's web hook URL")
	}
	slices.SortFunc(c.Schemas, func(a, b *Schema) int { return strings.Compare(a.Name, b.Name) })
	c.byTable, c.byName = map[schemas.TableName]*Schema{}, map[string]*Schema{}
	for _, s := range c.Schemas {
		if !isSchemaName(s.Name) {
			fault("schema %q: a name is made of a-z, A-Z, 0-9, _ . and -", s.Name)
		}
		if other := c.byTable[s.Table]; other != nil {
			fault("schemas %s and %s: both are table %s", other.Name, s.Name, s.Table)
		}
		if s.Table == c.Results {
			fault("schema %s: table %s is the table of results", s.Name, s.Table)
		}
		if s.Table == c.Events {
			fault("schema %s: table %s is the table of events", s.Name, s.Table)
		}
		c.byTable[s.Table], c.byName[s.Name] = s, s
		faults = append(faults, s.faults()...)
	}
	for name, table := range map[string]schemas.TableName{"results": c.Results, "events": c.Events} {
		if table != (schemas.TableName{}) && table == c.Account.Table {
			fault("%s: table %s is the account table", name, table)
		}
	}
	if c.Events != (schemas.TableName{}) && c.Events == c.Results {
		fault("events: table %s is the table of results", c.Events)
	}
	for _, s := range c.Schemas {
		if s.Owner.Schema == "" {
			continue
		}
		parent := c.byName[s.Owner.Schema]
		switch {
		case parent == nil:
			fault("schema %s: owner.schema %q is not in the catalog", s.Name, s.Owner.Schema)
		case len(parent.Key) > 1:
			fault("schema %s: owner.schema %s has a key of several columns, which one column cannot hold", s.Name, parent.Name)
		case c.ownerIsCircular(s):
			fault("schema %s: its owner leads back to itself", s.Name)
		}
	}
	c.accountColumns = accountColumnsOf(c.derived)
	faults = append(faults, c.indexHooks()...)
	return append(faults, c.derivationFaults()...)
}

func (c *Catalog) ownerIsCircular(s *Schema) bool {
	for next, steps := s, 0; next != nil && next.Owner.Schema != ""; steps++ {
		if steps > len(c.Schemas) {
			return true
		}
		next = c.byName[next.Owner.Schema]
	}
	return false
}

func (s *Schema) faults() []error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("schema %s: "+format, append([]any{s.Name}, args...)...))
	}
	if s.Owner.Column == "" {
		fault("owner is missing: the column of the account's id, or {column, schema}")
	}
	if len(s.Fields) == 0 {
		fault("fields is empty")
	}
	seen := map[string]bool{}
	for _, f := range s.Fields {
		if f.Name == "" || f.Column == "" {
			fault("a field has no name or no column")
		}
		if seen[f.Name] {
			fault("field %s is there twice", f.Name)
		}
		seen[f.Name] = true
	}
	return faults
}

func isSchemaName(name string) bool {
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return name != "" && len(name) <= 100
}
