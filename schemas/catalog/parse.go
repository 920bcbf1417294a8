package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

// maxCatalogBytes bounds a catalog file.
const maxCatalogBytes = 1 << 20

// Parse reads a catalog file. The file replaces the built-in catalog: walhook
// publishes only what it names. Parse lists every error with its place in the file.
func Parse(text []byte) (*Catalog, error) {
	if len(text) > maxCatalogBytes {
		return nil, fmt.Errorf("catalog: %d bytes, want at most %d", len(text), maxCatalogBytes)
	}
	var file catalogFile
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c, faults := file.catalog()
	faults = append(faults, c.index()...)
	if len(faults) > 0 {
		return nil, fmt.Errorf("catalog: %w", errors.Join(faults...))
	}
	c.source, c.ownHooks = bytes.Clone(text), !file.Hooks.IsZero()
	return c, nil
}

// catalogFile is the file's form.
type catalogFile struct {
	Account struct {
		Table  string `yaml:"table"`
		ID     string `yaml:"id"`
		URL    string `yaml:"url"`
		Parent string `yaml:"parent"`
		Secret string `yaml:"secret"`
	} `yaml:"account"`
	Schemas map[string]schemaFile `yaml:"schemas"`
	Results struct {
		Table string `yaml:"table"`
	} `yaml:"results"`
	Events struct {
		Table string `yaml:"table"`
	} `yaml:"events"`
	Hooks  yaml.Node `yaml:"hooks"`
	Derive yaml.Node `yaml:"derive"`
}

type schemaFile struct {
	Table  string     `yaml:"table"`
	Key    []string   `yaml:"key"`
	Owner  ownerFile  `yaml:"owner"`
	Fields fieldsFile `yaml:"fields"`
}

func (f *catalogFile) catalog() (*Catalog, []error) {
	var faults []error
	table := func(where, name string) schemas.TableName {
		parsed, err := parseTableName(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", where, err))
		}
		return parsed
	}
	c := &Catalog{Account: AccountTable{ID: f.Account.ID, URL: f.Account.URL, Parent: f.Account.Parent, Secret: f.Account.Secret}}
	if f.Account.Table != "" {
		c.Account.Table = table("account.table", f.Account.Table)
	}
	if f.Results.Table != "" {
		c.Results = table("results.table", f.Results.Table)
	}
	if f.Events.Table != "" {
		c.Events = table("events.table", f.Events.Table)
	}
	for name, s := range f.Schemas {
		c.Schemas = append(c.Schemas, &Schema{
			Name:   name,
			Table:  table("schemas."+name+".table", s.Table),
			Key:    s.Key,
			Owner:  Owner(s.Owner),
			Fields: s.Fields,
		})
	}
	var p parser
	c.derived = p.derivations(&f.Derive)
	if f.Hooks.IsZero() {
		c.hooks = p.builtInHooks()
	} else {
		c.hooks = p.hooks(&f.Hooks)
	}
	return c, append(faults, p.faults...)
}

// ownerFile is a column's name, or {column, schema}.
type ownerFile Owner

func (o *ownerFile) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		o.Column = node.Value
		return nil
	}
	var full struct {
		Column string `yaml:"column"`
		Schema string `yaml:"schema"`
	}
	if err := node.Decode(&full); err != nil {
		return fmt.Errorf("line %d: owner: want a column, or {column, schema}", node.Line)
	}
	if full.Column == "" || full.Schema == "" {
		return fmt.Errorf("line %d: owner: want both column and schema", node.Line)
	}
	*o = ownerFile(full)
	return nil
}

// fieldsFile is a list of columns, or a map of field to column whose order matters.
type fieldsFile []Field

func (f *fieldsFile) UnmarshalYAML(node *yaml.Node) error {
	switch node.Kind {
	case yaml.SequenceNode:
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: fields: want the names of columns", item.Line)
			}
			*f = append(*f, Field{Name: item.Value, Column: item.Value})
		}
		return nil
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			name, column := node.Content[i], node.Content[i+1]
			if column.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: fields: want field: column", column.Line)
			}
			*f = append(*f, Field{Name: name.Value, Column: column.Value})
		}
		return nil
	}
	return fmt.Errorf("line %d: fields: want a list of columns, or a map of field to column", node.Line)
}

// parseTableName reads schema.table as SQL would: folded to lower case unless
// in double quotes. Without a schema it is public.
func parseTableName(s string) (schemas.TableName, error) {
	first, rest, err := parseIdent(s)
	if err != nil {
		return schemas.TableName{}, fmt.Errorf("table %q: %w", s, err)
	}
	if rest == "" {
		return schemas.TableName{Namespace: "public", Name: first}, nil
	}
	second, rest, err := parseIdent(strings.TrimPrefix(rest, "."))
	if err == nil && rest != "" {
		err = fmt.Errorf("want schema.table, found trailing text")
	}
	if err != nil {
		return schemas.TableName{}, fmt.Errorf("table %q: %w", s, err)
	}
	return schemas.TableName{Namespace: first, Name: second}, nil
}

func parseIdent(s string) (ident, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, `."`)
		if end < 0 {
			end = len(s)
		}
		ident, rest = strings.ToLower(s[:end]), s[end:]
		if ident == "" || strings.ContainsAny(ident, " \t\n") || strings.HasPrefix(rest, `"`) {
			return "", "", errors.New("want schema.table, with double quotes around names that need them")
		}
		return ident, rest, nil
	}
	var b strings.Builder
	for s = s[1:]; ; {
		end := strings.IndexByte(s, '"')
		if end < 0 {
			return "", "", errors.New("unclosed double quote")
		}
		b.WriteString(s[:end])
		s = s[end+1:]
		if !strings.HasPrefix(s, `"`) {
			break
		}
		b.WriteByte('"')
		s = s[1:]
	}
	if b.Len() == 0 {
		return "", "", errors.New("a name is empty")
	}
	if s != "" && s[0] != '.' {
		return "", "", errors.New("want schema.table")
	}
	return b.String(), s, nil
}

// parser reads nodes of the catalog file and collects their errors, each with its
// line.
type parser struct{ faults []error }

func (p *parser) fault(node *yaml.Node, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("line %d: "+format, append([]any{node.Line}, args...)...))
}

// pairs returns the keys and values of a mapping, in order.
func (p *parser) pairs(node *yaml.Node, want string) [][2]*yaml.Node {
	if node.Kind != yaml.MappingNode {
		p.fault(node, "%s", want)
		return nil
	}
	var pairs [][2]*yaml.Node
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if seen[key.Value] {
			p.fault(key, "duplicate %s", key.Value)
			continue
		}
		seen[key.Value] = true
		pairs = append(pairs, [2]*yaml.Node{key, resolve(node.Content[i+1])})
	}
	return pairs
}

// resolve returns the node that an alias stands for.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func (p *parser) text(node *yaml.Node, what string) string {
	if node.Kind != yaml.ScalarNode || node.Value == "" {
		p.fault(node, "%s: want a text", what)
		return ""
	}
	return node.Value
}

// texts reads one text or a list of them.
func (p *parser) texts(node *yaml.Node, what string) []string {
	if node.Kind != yaml.SequenceNode {
		return []string{p.text(node, what)}
	}
	var list []string
	for _, item := range node.Content {
		list = append(list, p.text(resolve(item), what))
	}
	return list
}

func (p *parser) literal(node *yaml.Node, what string) literal {
	if node.Kind == yaml.ScalarNode {
		switch node.Tag {
		case "!!null":
			return literal{}
		case "!!str":
			return literal{literalString, node.Value}
		case "!!bool":
			return literal{literalBool, strings.ToLower(node.Value)}
		case "!!int", "!!float":
			if json.Valid([]byte(node.Value)) {
				return literal{literalNumber, node.Value}
			}
			p.fault(node, "%s: %s is not a JSON number; put text into quotes", what, node.Value)
			return literal{}
		}
	}
	p.fault(node, "%s: want a text, a number, true, false or null", what)
	return literal{}
}

func (p *parser) literals(node *yaml.Node, what string) []literal {
	if node.Kind != yaml.SequenceNode {
		return []literal{p.literal(node, what)}
	}
	var list []literal
	for _, item := range node.Content {
		list = append(list, p.literal(resolve(item), what))
	}
	if len(list) == 0 {
		p.fault(node, "%s: the list is empty", what)
	}
	return list
}
