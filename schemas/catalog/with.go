package catalog

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Parts are parts of a catalog.
type Parts struct {
	Account bool     // the account table and its columns
	Schemas []string // by their names
	Tables  []RowTable
}

// With returns c with some parts as other has them. It leaves out what other lacks. The
// error says that these parts do not go together.
func (c *Catalog) With(other *Catalog, parts Parts) (*Catalog, error) {
	// What both lack is no part, and a file that stays the same is the same catalog.
	tables := slices.DeleteFunc(slices.Clone(parts.Tables), func(of RowTable) bool { return c.RowTable(of) == other.RowTable(of) })
	if !parts.Account && len(parts.Schemas)+len(tables) == 0 {
		return c, nil
	}
	document, into, err := c.document()
	if err != nil {
		return nil, err
	}
	_, from, err := other.document()
	if err != nil {
		return nil, err
	}
	if parts.Account {
		take(into, from, "account")
	}
	if len(parts.Schemas) > 0 {
		_, list := member(into, "schemas")
		_, others := member(from, "schemas")
		if list == nil || list.Kind != yaml.MappingNode {
			return nil, errors.New("the schemas of the catalog in force are not a map of their own")
		}
		for _, name := range parts.Schemas {
			take(list, others, name)
		}
	}
	for _, of := range tables {
		take(into, from, tableKey(of))
	}
	text, err := yaml.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("write the catalog: %w", err)
	}
	return Parse(text)
}

// document returns the file as YAML, and its map.
func (c *Catalog) document() (document, root *yaml.Node, err error) {
	document = new(yaml.Node)
	if err := yaml.Unmarshal(c.YAML(), document); err != nil {
		return nil, nil, fmt.Errorf("read the catalog: %w", err)
	}
	return document, document.Content[0], nil
}

// tableKey is the file's key for a table of rows.
func tableKey(of RowTable) string {
	if of == ResultRows {
		return "results"
	}
	return "events"
}

// take makes a value of a map the one that another map has, or none.
func take(into, from *yaml.Node, key string) {
	_, value := member(from, key)
	for i := 0; i+1 < len(into.Content); i += 2 {
		switch {
		case into.Content[i].Value != key:
		case value == nil:
			into.Content = append(into.Content[:i], into.Content[i+2:]...)
			return
		default:
			into.Content[i+1] = value
			return
		}
	}
	if value != nil {
		into.Content = append(into.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key, Tag: "!!str"}, value)
	}
}
