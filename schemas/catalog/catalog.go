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
	accountColumns []string // sorted
	rulesNeedThem  bool     // rules use some of accountColumns
}

// AccountTable is the table of accounts and the columns that walhook follows.
type AccountTable struct {
	Table  schemas.TableName
	ID     string
	URL    string
	Parent string // the column of the parent account; "" for none
	Secret string // the column of the account's own whsec_ secret; "" for none
	Brand  BrandColumns
}

// BrandColumns are the columns by which the portal looks like an account's own, or like
// that of an account above it; "" for none.
type BrandColumns struct {
	Name, Accent, Support string
}

// brandPart is a key of account.brand, and the column that it names.
type brandPart struct{ key, column string }

func (b BrandColumns) parts() []brandPart {
	return []brandPart{{"name", b.Name}, {"accent", b.Accent}, {"support", b.Support}}
}

// Schema is one kind of record of the record feed.
type Schema struct {
	Name   string
	Table  schemas.TableName
	Key    []string // columns; empty means the table's primary key
	Owner  Owner
	Fields []Field // the members of data, in this order
	// NoLedger asks that the outbox does not keep key and account of its records
	// ([Catalog.InLedger]).
	NoLedger bool
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

// InLedger reports whether the outbox keeps key and account of each record of s. It keeps
// those of parents whatever the file says: records of other schemas are found through them.
func (c *Catalog) InLedger(s *Schema) bool { return !s.NoLedger || c.IsParent(s) }

// Ledgers are the schemas whose records the outbox keeps.
func (c *Catalog) Ledgers() (names []string) {
	for _, s := range c.Schemas {
		if c.InLedger(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Fingerprint changes whenever a snapshot would read other owners: with another
// account table, other schemas, tables, keys or owners, or other account columns
// that are kept. Fields do not change it.
func (c *Catalog) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "account %q %q %q %q %q\n", c.Account.Table, c.Account.ID, c.Account.URL, c.Account.Parent, c.Account.Secret)
	for _, s := range c.Schemas {
		fmt.Fprintf(h, "schema %q %q %q %q %q\n", s.Name, s.Table, s.Key, s.Owner.Column, s.Owner.Schema)
		if !c.InLedger(s) {
			fmt.Fprintf(h, "no ledger\n")
		}
	}
	if len(c.accountColumns) > 0 {
		fmt.Fprintf(h, "account columns %q\n", c.accountColumns)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// index builds the look-up tables and lists the faults between the parts of the
// file.
func (c *Catalog) index(p places) Faults {
	var faults Faults
	fault := func(path, problem, fix string) { faults = append(faults, p.at(path, problem, fix)) }

	slices.SortFunc(c.Schemas, func(a, b *Schema) int { return strings.Compare(a.Name, b.Name) })
	c.byTable, c.byName = map[schemas.TableName]*Schema{}, map[string]*Schema{}
	for _, s := range c.Schemas {
		at := join("schemas", s.Name)
		c.byName[s.Name] = s
		if !isSchemaName(s.Name) {
			fault(at, fmt.Sprintf("schema %q: a name may contain a-z, A-Z, 0-9, _ . and -, and at most 100 of them", cut(s.Name)), "")
		}
		if s.Table == (schemas.TableName{}) {
			continue
		}
		switch other := c.byTable[s.Table]; {
		case other != nil:
			fault(join(at, "table"), fmt.Sprintf("schemas %s and %s have the same table %s", other.Name, s.Name, s.Table), "a table is one schema: remove one of them")
		case s.Table == c.Results:
			fault(join(at, "table"), fmt.Sprintf("table %s is the table of results", s.Table), "name another table, or remove results")
		case s.Table == c.Events:
			fault(join(at, "table"), fmt.Sprintf("table %s is the table of events", s.Table), "name another table, or remove events")
		}
		c.byTable[s.Table] = s
	}
	for _, part := range []struct {
		name  string
		table schemas.TableName
	}{{"results", c.Results}, {"events", c.Events}} {
		if part.table != (schemas.TableName{}) && part.table == c.Account.Table {
			fault(part.name+".table", fmt.Sprintf("table %s is the account table", part.table), "name the table of "+part.name+", or remove "+part.name)
		}
	}
	if c.Events != (schemas.TableName{}) && c.Events == c.Results {
		fault("events.table", fmt.Sprintf("table %s is the table of results", c.Events), "name the table of events, or remove events")
	}
	faults = append(faults, c.ownerFaults(p)...)
	faults = append(faults, c.nameFaults(p)...)
	for _, s := range c.Schemas {
		if s.NoLedger && c.IsParent(s) {
			warning := p.at(join("schemas", s.Name, "ledger"), "ledger: false has no effect: records of other schemas are owned through records of "+s.Name, "remove it")
			warning.Warning = true
			faults = append(faults, warning)
		}
	}
	c.accountColumns, c.rulesNeedThem = c.keptColumns()
	faults = append(faults, c.indexHooks(p)...)
	return append(faults, c.derivationFaults(p)...)
}

// ownerFaults lists the owners that lead to no account.
func (c *Catalog) ownerFaults(p places) Faults {
	var faults Faults
	inLoop := map[string]bool{}
	for _, s := range c.Schemas {
		if s.Owner.Schema == "" {
			continue
		}
		at := join("schemas", s.Name, "owner", "schema")
		parent := c.byName[s.Owner.Schema]
		switch {
		case parent == nil:
			faults = append(faults, p.at(at, fmt.Sprintf("schema %q is not in the catalog", cut(s.Owner.Schema)), orOneOf(s.Owner.Schema, c.schemaNames())))
			continue
		case len(parent.Key) > 1:
			faults = append(faults, p.at(at, fmt.Sprintf("schema %s has a key of several columns, which one column cannot refer to", parent.Name),
				"name a parent with a key of one column, or the column of the account's id"))
		}
		if chain := c.ownerLoop(s); len(chain) > 0 && !inLoop[s.Name] {
			for _, name := range chain {
				inLoop[name] = true
			}
			faults = append(faults, p.at(at, "its owner is circular: "+strings.Join(append(chain, s.Name), " → "),
				"give one of them the column of the account's id as its owner"))
		}
	}
	return faults
}

func (c *Catalog) schemaNames() []string {
	names := make([]string, len(c.Schemas))
	for i, s := range c.Schemas {
		names[i] = s.Name
	}
	return names
}

// ownerLoop names the schemas between s and itself, beginning with s, where its
// owners lead back to it; none where they do not.
func (c *Catalog) ownerLoop(s *Schema) []string {
	chain := []string{s.Name}
	for next := c.byName[s.Owner.Schema]; next != nil && len(chain) <= len(c.Schemas); next = c.byName[next.Owner.Schema] {
		if next == s {
			return chain
		}
		chain = append(chain, next.Name)
	}
	return nil
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
