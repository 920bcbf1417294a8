package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

// File is a catalog file, as far as it could be read, and all that is wrong with it.
type File struct {
	catalog *Catalog
	places  places
	faults  Faults // and warnings
}

// Read reads a catalog file. After an error it continues with the rest.
func Read(text []byte) *File {
	f := &File{catalog: &Catalog{}}
	if len(text) > MaxBytes {
		f.faults = Faults{{Line: 1, Column: 1, Problem: fmt.Sprintf("the file has more than %d bytes", MaxBytes)}}
		return f
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(&document)
	switch {
	case errors.Is(err, io.EOF) || err == nil && document.Content[0].Tag == "!!null":
		f.faults = Faults{{Line: 1, Column: 1, Problem: "the file is empty", Fix: "want account and schemas; 'walhook catalog draft' writes a start"}}
		return f
	case err != nil:
		f.faults = Faults{syntaxFault(err)}
		return f
	}
	p := parser{places: placesOf(&document)}
	f.catalog, f.places = p.catalog(document.Content[0]), p.places
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		p.faults = append(p.faults, Fault{Line: 1, Column: 1, Problem: "the file holds a second document (after a line ---), which walhook ignores", Fix: "write one", Warning: true})
	}
	if len(f.catalog.Schemas) == 0 && p.nodes["schemas"] == nil {
		warning := p.at("schemas", "schemas is missing: no record is sent to anybody", "name tables under schemas")
		warning.Warning = true
		p.faults = append(p.faults, warning)
	}
	f.faults = append(p.faults, f.catalog.index(p.places)...).sorted()
	f.catalog.source = bytes.Clone(text)
	return f
}

// syntaxFault turns an error of the YAML parser into a fault.
func syntaxFault(err error) Fault {
	f := Fault{Line: 1, Column: 1, Fix: "look at this line and the one above it: indentation (spaces, no tabs), colons, quotes and brackets"}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if n, _ := fmt.Sscanf(text, "line %d:", &f.Line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
	}
	f.Problem = "this is not YAML: " + text
	return f
}

// Faults are those for which the file is refused.
func (f *File) Faults() Faults { return f.only(false) }

// Warnings are those with which walhook works nevertheless.
func (f *File) Warnings() Faults { return f.only(true) }

func (f *File) only(warnings bool) Faults {
	var faults Faults
	for _, one := range f.faults {
		if one.Warning == warnings {
			faults = append(faults, one)
		}
	}
	return faults
}

// Schemas is how many schemas the file names.
func (f *File) Schemas() int { return len(f.catalog.Schemas) }

// members gives the pairs of a map whose keys are known, and names those that are
// not. A null is an empty map.
func (p *parser) members(node *yaml.Node, want string, known ...string) [][2]*yaml.Node {
	if isNull(node) {
		return nil
	}
	pairs := p.pairs(node, want)
	for _, pair := range pairs {
		if !slices.Contains(known, pair[0].Value) {
			p.unknown(pair[0], known...)
		}
	}
	return pairs
}

// part is a key that a map has to have.
type part struct{ key, fix string }

// required names the keys that a map lacks. A misspelt one was named already.
func (p *parser) required(at *yaml.Node, path string, pairs [][2]*yaml.Node, parts ...part) {
	for _, one := range parts {
		if !slices.ContainsFunc(pairs, func(pair [2]*yaml.Node) bool {
			return pair[0].Value == one.key || schemas.Nearest(pair[0].Value, []string{one.key}) != ""
		}) {
			f := Fault{Line: at.Line, Column: at.Column, Path: path, Problem: one.key + " is missing", Fix: one.fix}
			p.faults = append(p.faults, f)
		}
	}
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

// catalog reads the file's form.
func (p *parser) catalog(root *yaml.Node) *Catalog {
	c := &Catalog{}
	var hooks *yaml.Node
	root = resolve(root)
	pairs := p.members(root, "want a map with account and schemas", "account", "schemas", "results", "events", "hooks", "derive")
	if root.Kind == yaml.MappingNode {
		p.required(root, "", pairs, part{"account", "want a map with table, id and url"})
	}
	for _, member := range pairs {
		value := member[1]
		switch member[0].Value {
		case "account":
			p.account(c, member[0], value)
		case "schemas":
			p.schemas(c, value)
		case "results":
			c.Results = p.tableOf(value)
		case "events":
			c.Events = p.tableOf(value)
		case "hooks":
			hooks = value
		case "derive":
			c.derived = p.derivations(value)
		}
	}
	if c.ownHooks = hooks != nil; c.ownHooks {
		c.hooks = p.hooks(hooks)
	} else {
		c.hooks = (&parser{}).builtInHooks()
	}
	return c
}

func (p *parser) account(c *Catalog, key, node *yaml.Node) {
	pairs := p.members(node, "want a map with table, id and url", "table", "id", "url", "parent", "secret", "brand")
	if node.Kind == yaml.MappingNode || isNull(node) {
		p.required(key, "account", pairs, accountParts...)
	}
	for _, member := range pairs {
		switch member[0].Value {
		case "table":
			c.Account.Table = p.table(member[1])
		case "id":
			c.Account.ID = p.filled(member[1])
		case "url":
			c.Account.URL = p.filled(member[1])
		case "parent":
			c.Account.Parent = p.name(member[1])
		case "secret":
			c.Account.Secret = p.name(member[1])
		case "brand":
			c.Account.Brand = p.brand(member[1])
		}
	}
}

// brand is a map of what the portal shows to columns of the account table.
func (p *parser) brand(node *yaml.Node) (b BrandColumns) {
	for _, member := range p.members(node, "want a map of name, accent and support to columns of the account table", "name", "accent", "support") {
		switch column := p.name(member[1]); member[0].Value {
		case "name":
			b.Name = column
		case "accent":
			b.Accent = column
		case "support":
			b.Support = column
		}
	}
	return b
}

// name is a scalar, whatever type YAML takes it for; "" for null.
func (p *parser) name(node *yaml.Node) string {
	if node.Kind != yaml.ScalarNode {
		p.fault(node, "want one name, not a %s", kindOf(node))
		return ""
	}
	if isNull(node) {
		return ""
	}
	return node.Value
}

// filled is a scalar that is not empty.
func (p *parser) filled(node *yaml.Node) string {
	name := p.name(node)
	if name == "" && node.Kind == yaml.ScalarNode {
		p.fault(node, "want the name of a column")
	}
	return name
}

var accountParts = []part{
	{"table", "want the table of accounts, such as public.users"},
	{"id", "want the column of an account's id"},
	{"url", "want the column of an account's webhook URL"},
}

func kindOf(node *yaml.Node) string {
	switch node.Kind {
	case yaml.SequenceNode:
		return "list"
	case yaml.MappingNode:
		return "map"
	}
	return "text"
}

// table is a table's name; the zero name where there is none.
func (p *parser) table(node *yaml.Node) schemas.TableName {
	if node.Kind != yaml.ScalarNode || node.Value == "" || isNull(node) {
		p.fault(node, "want the name of a table, such as public.users")
		return schemas.TableName{}
	}
	name, err := parseTableName(node.Value)
	if err != nil {
		p.fault(node, "%v", err)
		return schemas.TableName{}
	}
	return name
}

// tableOf reads a map with nothing but a table.
func (p *parser) tableOf(node *yaml.Node) (name schemas.TableName) {
	for _, member := range p.members(node, "want a map with table, such as {table: public.events}", "table") {
		if member[0].Value == "table" && !isNull(member[1]) {
			name = p.table(member[1])
		}
	}
	return name
}

func (p *parser) schemas(c *Catalog, node *yaml.Node) {
	if isNull(node) {
		return
	}
	for _, pair := range p.pairs(node, "want a map of schemas by name") {
		c.Schemas = append(c.Schemas, p.schema(pair[0], pair[1]))
	}
}

func (p *parser) schema(key, node *yaml.Node) *Schema {
	s := &Schema{Name: key.Value}
	const want = "want a map with table, owner and fields"
	if isNull(node) {
		p.wrong(key, "the schema is empty", want+", or remove the schema")
		return s
	}
	pairs := p.members(node, want, "table", "key", "owner", "fields", "ledger")
	for _, member := range pairs {
		switch value := member[1]; member[0].Value {
		case "table":
			s.Table = p.table(value)
		case "key":
			s.Key = p.key(value)
		case "owner":
			s.Owner = p.owner(value)
		case "fields":
			s.Fields = p.fieldsOf(value)
		case "ledger":
			s.NoLedger = !p.flag(value)
		}
	}
	if node.Kind == yaml.MappingNode {
		p.required(key, join("schemas", s.Name), pairs, schemaParts...)
	}
	return s
}

var schemaParts = []part{
	{"table", "want the table's name, such as public.orders"},
	{"owner", "want the column of the account's id, or {column, schema}"},
	{"fields", "want the columns to send, such as [id, name]"},
}

func (p *parser) key(node *yaml.Node) []string {
	if isNull(node) {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		p.fault(node, "want a list of columns, such as [id], not a %s", kindOf(node))
		return nil
	}
	if len(node.Content) == 0 {
		f := Fault{Line: node.Line, Column: node.Column, Path: p.paths[node], Problem: "the key names no column", Fix: "name the columns, such as [id], or remove key for the table's primary key", Tolerated: true}
		p.faults = append(p.faults, f)
		return nil
	}
	var key []string
	for _, item := range node.Content {
		item = resolve(item)
		name := p.name(item)
		switch {
		case item.Kind == yaml.ScalarNode && name == "":
			p.fault(item, "want the name of a column")
		case slices.Contains(key, name):
			p.fault(item, "duplicate column %s", cut(name))
		case name != "":
			key = append(key, name)
		}
	}
	return key
}

// flag is true or false; true for null.
func (p *parser) flag(node *yaml.Node) bool {
	if isNull(node) {
		return true
	}
	if node.Kind != yaml.ScalarNode || node.Tag != "!!bool" {
		p.fault(node, "want true or false")
		return true
	}
	return strings.EqualFold(node.Value, "true")
}

// owner is a column's name, or {column, schema}.
func (p *parser) owner(node *yaml.Node) (o Owner) {
	const fix = "want the column of the account's id, or {column, schema}"
	if node.Kind == yaml.ScalarNode {
		if o.Column = p.name(node); o.Column == "" {
			p.wrong(node, "owner is missing", fix)
		}
		return o
	}
	if node.Kind != yaml.MappingNode {
		p.wrong(node, "owner is a "+kindOf(node), fix)
		return o
	}
	for _, member := range p.members(node, fix, "column", "schema") {
		switch member[0].Value {
		case "column":
			o.Column = p.name(member[1])
		case "schema":
			o.Schema = p.name(member[1])
		}
	}
	if o.Column == "" || o.Schema == "" {
		p.wrong(node, "owner: want both column and schema", "the column that holds the parent's key, and the parent's schema")
	}
	return o
}

// fieldsOf are a schema's fields.
func (p *parser) fieldsOf(node *yaml.Node) []Field {
	if isNull(node) {
		p.wrong(node, "fields is empty", "want the columns to send, such as [id, name]")
		return nil
	}
	fields := p.fieldList(node, "want a list of columns, or a map of field to column")
	if len(fields) == 0 && len(node.Content) == 0 && node.Kind != yaml.ScalarNode {
		p.wrong(node, "fields is empty", "want the columns to send, such as [id, name]")
	}
	return fields
}

// fieldList is a list of columns, or a map of field to column whose order
// counts.
func (p *parser) fieldList(node *yaml.Node, want string) (fields []Field) {
	seen := map[string]bool{}
	add := func(node *yaml.Node, name, column string) {
		switch {
		case name == "" || column == "":
			p.fault(node, "a field has no name or no column")
		case seen[name]:
			p.fault(node, "duplicate field %s", cut(name))
		default:
			seen[name] = true
			fields = append(fields, Field{Name: name, Column: column})
		}
	}
	switch node.Kind {
	case yaml.SequenceNode:
		for _, item := range node.Content {
			item = resolve(item)
			if item.Kind != yaml.ScalarNode {
				p.wrong(item, "want the name of a column, not a "+kindOf(item), "to send a column under another name, write all fields as a map of field to column")
				continue
			}
			add(item, p.name(item), p.name(item))
		}
	case yaml.MappingNode:
		for _, pair := range p.pairs(node, want) {
			if pair[1].Kind != yaml.ScalarNode {
				p.fault(pair[1], "want the name of a column, not a %s", kindOf(pair[1]))
				continue
			}
			add(pair[0], pair[0].Value, p.name(pair[1]))
		}
	default:
		p.fault(node, "%s", want)
	}
	return fields
}
