package catalog

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"walhook/schemas"
)

// Catalog says which tables are published, as which schemas, and who owns their
// rows. It does not change while walhook runs.
type Catalog struct {
	Account AccountTable
	// Schemas are sorted by name.
	Schemas []*Schema
	// Results is the table of async results; the zero name stands for none.
	Results schemas.TableName
	// Events is the table of emitted events; the zero name stands for none.
	Events schemas.TableName

	source   []byte // the file
	ownHooks bool   // the file defines hooks, which replace the built-in ones

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
	Parent string // the column of the parent account; "" for none
	Secret string // the column of the account's own whsec_ secret; "" for none
}

// Schema is one kind of record of the record feed.
type Schema struct {
	Name   string
	Table  schemas.TableName
	Key    []string // columns; empty means the table's primary key
	Owner  Owner
	Fields []Field // the members of data, in this order
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

// Names reports whether any part of the catalog names a table.
func (c *Catalog) Names(table schemas.TableName) bool {
	return c.byTable[table] != nil || table == c.Account.Table || table == c.Results || table == c.Events
}

// Tables lists every table that the publication must contain, sorted by name.
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

// IsParent reports whether records of another schema belong to an account through
// records of s.
func (c *Catalog) IsParent(s *Schema) bool {
	for _, other := range c.Schemas {
		if other.Owner.Schema == s.Name {
			return true
		}
	}
	return false
}

// Fingerprint changes whenever a snapshot would read other owners: with another
// account table, other schemas, tables, keys or owners, or other account columns
// that rules use. Fields do not change it.
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

// index builds the look-up tables and lists every error of the catalog.
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
		fault("account.url is missing: the column of an account's webhook URL")
	}
	slices.SortFunc(c.Schemas, func(a, b *Schema) int { return strings.Compare(a.Name, b.Name) })
	c.byTable, c.byName = map[schemas.TableName]*Schema{}, map[string]*Schema{}
	for _, s := range c.Schemas {
		if !isSchemaName(s.Name) {
			fault("schema %q: a name may contain a-z, A-Z, 0-9, _ . and -", s.Name)
		}
		if other := c.byTable[s.Table]; other != nil {
			fault("schemas %s and %s have the same table %s", other.Name, s.Name, s.Table)
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
			fault("schema %s: owner.schema %s has a key of several columns, which one column cannot refer to", s.Name, parent.Name)
		case c.ownerIsCircular(s):
			fault("schema %s: its owner is circular", s.Name)
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
			fault("duplicate field %s", f.Name)
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

//go:embed carrier.yaml
var carrierYAML []byte

//go:embed platform.yaml
var platformYAML []byte

// Carrier is the built-in catalog that walhook uses by default.
func Carrier() *Catalog { return builtIn(carrierYAML) }

// Platform is the built-in catalog of a platform for carrier services.
func Platform() *Catalog { return builtIn(platformYAML) }

// BuiltIn returns a built-in catalog by its name, carrier or platform; nil for any
// other name.
func BuiltIn(name string) *Catalog {
	switch name {
	case "carrier":
		return Carrier()
	case "platform":
		return Platform()
	}
	return nil
}

func builtIn(text []byte) *Catalog {
	c, err := Parse(text)
	if err != nil {
		panic("built-in catalog: " + err.Error()) // a test parses it
	}
	return c
}

// YAML returns an equivalent catalog file: the one that Parse read, followed by the
// built-in hooks where the file defines none.
func (c *Catalog) YAML() []byte {
	out := bytes.TrimRight(c.source, "\n")
	out = append(out[:len(out):len(out)], '\n')
	if c.ownHooks {
		return out
	}
	out = append(out, "\nhooks:\n"...)
	for line := range bytes.Lines(hooksYAML) {
		if len(bytes.TrimSpace(line)) > 0 {
			out = append(out, "  "...)
		}
		out = append(out, line...)
	}
	return out
}

// ownNames are the schemas and hooks of walhook's own events, and the prefixes of
// their ids.
var ownNames = []string{hookRecords, hookAll, "object", "resync", "test", "webhook", "notice", "day", "gap", "sync"}

// groupName is the hook that groups several events, which it distinguishes by their
// type. An async result cannot have it.
const groupName = "notifications"

// ownNamespace is the prefix of the names of walhook's own notices.
const ownNamespace = "webhook."

// Reserved reports whether walhook refuses a name from outside as the hook of an
// event: the name is walhook's own, or that of a schema or rule of the catalog. Case
// does not matter, so that a receiver that ignores case is not misled.
func (c *Catalog) Reserved(name string) bool {
	is := func(own string) bool { return strings.EqualFold(own, name) }
	return slices.ContainsFunc(ownNames, is) ||
		len(name) >= len(ownNamespace) && strings.EqualFold(name[:len(ownNamespace)], ownNamespace) ||
		slices.ContainsFunc(c.Schemas, func(s *Schema) bool { return is(s.Name) }) ||
		slices.ContainsFunc(c.derived, func(d *Derivation) bool { return is(d.Hook) })
}

// ReservedSchema is [Catalog.Reserved] for the schema of an async result.
func (c *Catalog) ReservedSchema(name string) bool {
	return c.Reserved(name) || strings.EqualFold(name, groupName)
}
