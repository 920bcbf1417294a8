package catalog

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

// parser reads nodes of the catalog file and gathers what is wrong with them,
// each with its line.
type parser struct{ faults []error }

func (p *parser) fault(node *yaml.Node, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("line %d: "+format, append([]any{node.Line}, args...)...))
}

// pairs gives the keys and values of a mapping, in order.
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
			p.fault(key, "%s is there twice", key.Value)
			continue
		}
		seen[key.Value] = true
		pairs = append(pairs, [2]*yaml.Node{key, resolve(node.Content[i+1])})
	}
	return pairs
}

// resolve follows an alias to what it stands for.
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

func (p *parser) literal(node *yaml.Node, what string) Literal {
	if node.Kind == yaml.ScalarNode {
		switch node.Tag {
		case "!!null":
			return Literal{}
		case "!!str":
			return Literal{LiteralString, node.Value}
		case "!!bool":
			return Literal{LiteralBool, strings.ToLower(node.Value)}
		case "!!int", "!!float":
			if json.Valid([]byte(node.Value)) {
				return Literal{LiteralNumber, node.Value}
			}
			p.fault(node, "%s: %s is no number of JSON; put a text into quotes", what, node.Value)
			return Literal{}
		}
	}
	p.fault(node, "%s: want a text, a number, true, false or null", what)
	return Literal{}
}

func (p *parser) literals(node *yaml.Node, what string) []Literal {
	if node.Kind != yaml.SequenceNode {
		return []Literal{p.literal(node, what)}
	}
	var list []Literal
	for _, item := range node.Content {
		list = append(list, p.literal(resolve(item), what))
	}
	if len(list) == 0 {
		p.fault(node, "%s: the list is empty", what)
	}
	return list
}

// derivations reads the rules.
func (p *parser) derivations(node *yaml.Node) []*Derivation {
	if node.Kind == 0 {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		p.fault(node, "derive: want a list of rules")
		return nil
	}
	var list []*Derivation
	for _, item := range node.Content {
		list = append(list, p.derivation(resolve(item)))
	}
	return list
}

func (p *parser) derivation(node *yaml.Node) *Derivation {
	d := &Derivation{Format: "json", line: node.Line}
	for _, pair := range p.pairs(node, "derive: want a rule with hook, schema, when and fields") {
		key, value := pair[0], pair[1]
		switch key.Value {
		case "hook":
			d.Hook = p.text(value, "hook")
		case "groups":
			d.Groups = p.texts(value, "groups")
		case "description":
			d.Description = strings.TrimSpace(p.text(value, "description"))
		case "format":
			if d.Format = p.text(value, "format"); d.Format != "json" && d.Format != "form" {
				p.fault(value, "format: want json or form")
			}
		case "schema":
			d.Schema = p.text(value, "schema")
		case "where":
			d.Where = p.where(value)
		case "when":
			d.Cases = p.cases(value)
		case "fields":
			d.Fields = p.derivedFields(value)
		default:
			p.fault(key, "derive: %s is not known: want hook, groups, description, format, schema, where, when, fields", key.Value)
		}
	}
	for _, part := range []struct {
		missing bool
		name    string
	}{{d.Hook == "", "hook"}, {d.Schema == "", "schema"}, {len(d.Cases) == 0, "when"}, {len(d.Fields) == 0, "fields"}} {
		if part.missing {
			p.fault(node, "derive: a rule has no %s", part.name)
		}
	}
	return d
}

// cases reads a map of names to conditions.
func (p *parser) cases(node *yaml.Node) []Case {
	var cases []Case
	for _, pair := range p.pairs(node, "when: want a map of names to conditions, such as {added: insert}") {
		c := Case{Name: pair[0].Value}
		if value := pair[1]; value.Kind == yaml.SequenceNode {
			for _, item := range value.Content {
				c.When = append(c.When, p.condition(resolve(item)))
			}
		} else {
			c.When = []Condition{p.condition(value)}
		}
		if len(c.When) == 0 {
			p.fault(pair[1], "when: %s has no condition", c.Name)
		}
		cases = append(cases, c)
	}
	return cases
}

const wantCondition = "when: want insert, update, delete, changed, or a map of on, changed, becomes_true, " +
	"becomes_false, becomes_set, becomes_unset, becomes, rises, falls, where"

func (p *parser) condition(node *yaml.Node) Condition {
	if node.Kind == yaml.ScalarNode {
		if node.Value == "changed" {
			return Condition{Tests: []Test{{Op: OpChanged}}}
		}
		return Condition{On: p.kind(node)}
	}
	var c Condition
	pairs := p.pairs(node, wantCondition)
	for _, pair := range pairs {
		key, value := pair[0], pair[1]
		switch key.Value {
		case "on":
			c.On = p.kind(value)
		case "changed":
			c.Tests = append(c.Tests, Test{Op: OpChanged, Columns: p.texts(value, "changed")})
		case "where":
			c.Tests = append(c.Tests, p.where(value)...)
		case "becomes":
			c.Tests = append(c.Tests, p.tests(value, OpBecomes)...)
		default:
			op, known := columnTests[key.Value]
			if !known {
				p.fault(key, "%s", wantCondition)
				continue
			}
			c.Tests = append(c.Tests, Test{Op: op, Columns: []string{p.text(value, key.Value)}})
		}
	}
	if len(pairs) == 0 && node.Kind == yaml.MappingNode {
		p.fault(node, "%s", wantCondition)
	}
	return c
}

var columnTests = map[string]TestOp{
	"becomes_true": OpBecomesTrue, "becomes_false": OpBecomesFalse,
	"becomes_set": OpBecomesSet, "becomes_unset": OpBecomesUnset,
	"rises": OpRises, "falls": OpFalls,
}

func (p *parser) kind(node *yaml.Node) schemas.Kind {
	for _, kind := range []schemas.Kind{schemas.Insert, schemas.Update, schemas.Delete} {
		if node.Kind == yaml.ScalarNode && node.Value == kind.String() {
			return kind
		}
	}
	p.fault(node, "%s", wantCondition)
	return 0
}

// where reads a map of columns to the value, or the values, that they have.
func (p *parser) where(node *yaml.Node) []Test { return p.tests(node, OpIs) }

func (p *parser) tests(node *yaml.Node, op TestOp) []Test {
	var tests []Test
	for _, pair := range p.pairs(node, "want a map of columns to values") {
		tests = append(tests, Test{Op: op, Columns: []string{pair[0].Value}, Values: p.literals(pair[1], pair[0].Value)})
	}
	return tests
}

// derivationFaults lists what is wrong with the rules among the other parts of
// the catalog.
func (c *Catalog) derivationFaults() []error {
	var faults []error
	hooks := map[string]bool{}
	for _, d := range c.derived {
		hooks[d.Hook] = true
	}
	for _, d := range c.derived {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("line %d: derive: hook %s: "+format, append([]any{d.line, d.Hook}, args...)...))
		}
		if d.Hook != "" && c.hookTaken(d.Hook) {
			fault("the name is taken")
		}
		for _, group := range d.Groups {
			if hooks[group] || c.hookTaken(group) {
				fault("group %s: the name is taken", group)
			}
		}
		if d.Schema != "" && c.byName[d.Schema] == nil {
			fault("schema %q is not in the catalog", d.Schema)
		}
	}
	return faults
}

// hookTaken says whether a name means another hook, or cannot be one.
func (c *Catalog) hookTaken(name string) bool {
	switch name {
	case "records", "all", "object":
		return true
	}
	return !isSchemaName(name)
}
