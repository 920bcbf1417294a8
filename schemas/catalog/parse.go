package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

// MaxBytes bounds a catalog file; a reader of one may stop behind it.
const MaxBytes = 1 << 20

// Parse reads a catalog file. The file replaces the built-in catalog: walhook
// publishes only what it names. The error is all [Faults] of the file.
func Parse(text []byte) (*Catalog, error) {
	file := Read(text)
	if faults := file.Faults(); len(faults) > 0 {
		return nil, faults
	}
	return file.catalog, nil
}

// ParseStored is [Parse] for a catalog that an outbox holds: one that an older walhook took
// stays in force.
func ParseStored(text []byte) (*Catalog, error) {
	file := Read(text)
	faults := slices.DeleteFunc(file.Faults(), func(f Fault) bool { return f.Tolerated })
	if len(faults) > 0 {
		return nil, faults
	}
	return file.catalog, nil
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

// parser reads nodes of the catalog file and collects their faults.
type parser struct {
	places
	faults Faults
}

func (p *parser) fault(node *yaml.Node, format string, args ...any) {
	p.wrong(node, fmt.Sprintf(format, args...), "")
}

func (p *parser) wrong(node *yaml.Node, problem, fix string) {
	p.faults = append(p.faults, Fault{Line: node.Line, Column: node.Column, Path: p.paths[node], Problem: problem, Fix: fix})
}

// unknown names a key that is none of the known ones.
func (p *parser) unknown(key *yaml.Node, known ...string) {
	p.wrong(key, "unknown key "+cut(key.Value), orOneOf(key.Value, known))
}

// pairs returns the keys and values of a mapping, in order. What << merges into it
// comes last.
func (p *parser) pairs(node *yaml.Node, want string) [][2]*yaml.Node {
	if node.Kind != yaml.MappingNode {
		p.fault(node, "%s", want)
		return nil
	}
	var pairs [][2]*yaml.Node
	var merged []*yaml.Node
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := resolve(node.Content[i]), resolve(node.Content[i+1])
		switch {
		case key.Kind != yaml.ScalarNode:
			p.fault(node.Content[i], "a key is a list or a map: want a text")
		case key.Tag == "!!merge" && value.Kind == yaml.SequenceNode:
			merged = append(merged, value.Content...)
		case key.Tag == "!!merge":
			merged = append(merged, value)
		case seen[key.Value]:
			p.fault(key, "duplicate %s", cut(key.Value))
		default:
			seen[key.Value] = true
			pairs = append(pairs, [2]*yaml.Node{key, value})
		}
	}
	for _, from := range merged {
		from = resolve(from)
		if from.Kind != yaml.MappingNode {
			p.fault(from, "<<: want a map")
			continue
		}
		for i := 0; i+1 < len(from.Content); i += 2 {
			if key := from.Content[i]; key.Kind == yaml.ScalarNode && key.Tag != "!!merge" && !seen[key.Value] {
				seen[key.Value] = true
				pairs = append(pairs, [2]*yaml.Node{key, resolve(from.Content[i+1])})
			}
		}
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
