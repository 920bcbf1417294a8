package catalog

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// Derivation is a rule of the catalog: which changes of one schema's records make a
// derived event, and what its body holds. A change yields at most one event of a
// rule.
type Derivation struct {
	// Hook is the event's name, to which webhooks subscribe. Several rules may share
	// it.
	Hook string
	// Groups are names by which a webhook subscribes to several hooks at once.
	Groups []string
	// Description is for account users.
	description string
	// Format is the body's form unless the webhook sets one: json or form.
	Format string
	// Schema is the schema to whose records the rule applies.
	Schema string
	// where must hold in every case, of the new row or, after a delete, of the old
	// row.
	where []ruleTest
	// cases are evaluated in this order; the first that holds gives the event.
	cases []ruleCase
	// fields are the members of the body, in this order.
	fields []derivedField
}

// ruleCase is one of the alternatives of a rule, with its name.
type ruleCase struct {
	Name string
	// When lists alternatives: one of them must hold.
	When []ruleCondition
}

// ruleCondition holds when all its tests hold.
type ruleCondition struct {
	// On is the kind of change; zero is any.
	On    schemas.Kind
	Tests []ruleTest
}

// ruleTest is one test of a change's rows. There is no row before an insert and
// after a delete; its columns count as null.
type ruleTest struct {
	Op testOp
	// Columns holds one column. For opChanged it may hold several, any of which
	// counts; when it is empty, any column that the schema publishes counts.
	Columns []string
	// Values are the alternatives of opIs and opBecomes.
	Values []literal
}

// testOp is the kind of a test.
type testOp byte

// The kinds of test. The values t, true, y, yes, on and every number except zero
// are true. A value is set when it is neither null nor empty.
const (
	opIs           testOp = iota + 1 // the row has one of the values
	opChanged                        // of an update: a value differs
	opBecomesTrue                    // true after, and not before
	opBecomesFalse                   // true before, and not after
	opBecomesSet                     // set after, and not before
	opBecomesUnset                   // set before, and not after
	opBecomes                        // one of the values after, and none before
	opRises                          // a number larger than before, null being 0
	opFalls                          // a number smaller than before, null being 0
)

// literalKind is the type of a value in the catalog file.
type literalKind byte

// The kinds of literal.
const (
	literalNull literalKind = iota
	literalString
	literalNumber
	literalBool
)

// literal is a value as the catalog file gives it.
type literal struct {
	Kind literalKind
	Text string // true or false for literalBool
}

// AppendJSON appends the literal as JSON.
func (l literal) AppendJSON(dst []byte) []byte {
	switch l.Kind {
	case literalString:
		return pgjson.AppendString(dst, []byte(l.Text))
	case literalNull:
		return append(dst, "null"...)
	}
	return append(dst, l.Text...)
}

// fieldSource says where a field of a derived event comes from.
type fieldSource byte

// The sources.
const (
	fromLiteral fieldSource = iota + 1 // Default
	fromColumn                         // the row's column: the new row's, or of a delete the old one's
	fromOld                            // the old row's column
	fromOwner                          // the account of the record
	fromAccount                        // a column of that account's row
	fromCase                           // the name of the case
	fromChanged                        // a list of the names of the fields that an update changed
	fromCount                          // a number: 1, or a column; daily delivery adds these up
)

// derivedField is one member of a derived event's body.
type derivedField struct {
	Name   string
	Source fieldSource
	Column string // fromColumn, fromOld, fromAccount; fromCount: "" is 1
	// Number makes fromOwner write the id as a number.
	Number bool
	// Default replaces null if HasDefault is set; for fromLiteral it is the value.
	Default    literal
	HasDefault bool
	// Watched holds the names of fromChanged and their columns; empty stands for the
	// schema's fields.
	Watched []Field
}

// HasCount reports whether the rule's events contain a count.
func (d *Derivation) HasCount() bool {
	return slices.ContainsFunc(d.fields, func(f derivedField) bool { return f.Source == fromCount })
}

// Derivations lists the rules, in the order of the file.
func (c *Catalog) Derivations() []*Derivation { return c.derived }

// AccountColumns lists the columns of the account table that the outbox keeps, since rules
// or the portal use them, in order.
func (c *Catalog) AccountColumns() []string { return c.accountColumns }

// RulesNeedAccounts reports whether rules use columns of the account table.
func (c *Catalog) RulesNeedAccounts() bool { return c.rulesNeedThem }

func (c *Catalog) keptColumns() (columns []string, rulesNeedThem bool) {
	for _, d := range c.derived {
		for _, f := range d.fields {
			if f.Source == fromAccount {
				columns, rulesNeedThem = append(columns, f.Column), true
			}
		}
	}
	for _, part := range c.Account.Brand.parts() {
		if part.column != "" {
			columns = append(columns, part.column)
		}
	}
	slices.Sort(columns)
	return slices.Compact(columns), rulesNeedThem
}

// derivations reads the rules.
func (p *parser) derivations(node *yaml.Node) []*Derivation {
	if node.Kind == 0 {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		p.fault(node, "want a list of rules")
		return nil
	}
	var list []*Derivation
	for _, item := range node.Content {
		list = append(list, p.derivation(resolve(item)))
	}
	return list
}

func (p *parser) derivation(node *yaml.Node) *Derivation {
	d := &Derivation{Format: "json"}
	seen := map[string]bool{}
	for _, pair := range p.pairs(node, "want a rule with hook, schema, when and fields") {
		key, value := pair[0], pair[1]
		seen[key.Value] = true
		switch key.Value {
		case "hook":
			d.Hook = p.text(value, "hook")
		case "groups":
			d.Groups = p.texts(value, "groups")
		case "description":
			d.description = strings.TrimSpace(p.text(value, "description"))
		case "format":
			if d.Format = p.text(value, "format"); d.Format != "" && d.Format != "json" && d.Format != "form" {
				p.fault(value, "want json or form")
			}
		case "schema":
			d.Schema = p.text(value, "schema")
		case "where":
			d.where = p.where(value)
		case "when":
			d.cases = p.cases(value)
		case "fields":
			d.fields = p.derivedFields(value)
		default:
			p.unknown(key, "hook", "groups", "description", "format", "schema", "where", "when", "fields")
		}
	}
	for _, part := range []string{"hook", "schema", "when", "fields"} {
		if node.Kind == yaml.MappingNode && !seen[part] {
			p.fault(node, "the rule has no %s", part)
		}
	}
	return d
}

// cases reads a map of names to conditions.
func (p *parser) cases(node *yaml.Node) []ruleCase {
	var cases []ruleCase
	for _, pair := range p.pairs(node, "want a map of names to conditions, such as {added: insert}") {
		c := ruleCase{Name: pair[0].Value}
		if value := pair[1]; value.Kind == yaml.SequenceNode {
			for _, item := range value.Content {
				c.When = append(c.When, p.condition(resolve(item)))
			}
		} else {
			c.When = []ruleCondition{p.condition(value)}
		}
		if len(c.When) == 0 {
			p.fault(pair[1], "%s has no condition", c.Name)
		}
		cases = append(cases, c)
	}
	if len(cases) == 0 && node.Kind == yaml.MappingNode {
		p.fault(node, "when is empty: want a map of names to conditions, such as {added: insert}")
	}
	return cases
}

const wantCondition = "want insert, update, delete, changed, or a map of on, changed, becomes_true, " +
	"becomes_false, becomes_set, becomes_unset, becomes, rises, falls, where"

func (p *parser) condition(node *yaml.Node) ruleCondition {
	if node.Kind == yaml.ScalarNode {
		if node.Value == "changed" {
			return ruleCondition{Tests: []ruleTest{{Op: opChanged}}}
		}
		return ruleCondition{On: p.kind(node)}
	}
	var c ruleCondition
	pairs := p.pairs(node, wantCondition)
	for _, pair := range pairs {
		key, value := pair[0], pair[1]
		switch key.Value {
		case "on":
			c.On = p.kind(value)
		case "changed":
			c.Tests = append(c.Tests, ruleTest{Op: opChanged, Columns: p.texts(value, "changed")})
		case "where":
			c.Tests = append(c.Tests, p.where(value)...)
		case "becomes":
			c.Tests = append(c.Tests, p.tests(value, opBecomes)...)
		default:
			op, known := columnTests[key.Value]
			if !known {
				p.unknown(key, conditionKeys...)
				continue
			}
			c.Tests = append(c.Tests, ruleTest{Op: op, Columns: []string{p.text(value, key.Value)}})
		}
	}
	if len(pairs) == 0 && node.Kind == yaml.MappingNode {
		p.fault(node, "%s", wantCondition)
	}
	return c
}

var conditionKeys = []string{"on", "changed", "becomes_true", "becomes_false", "becomes_set", "becomes_unset", "becomes", "rises", "falls", "where"}

var columnTests = map[string]testOp{
	"becomes_true": opBecomesTrue, "becomes_false": opBecomesFalse,
	"becomes_set": opBecomesSet, "becomes_unset": opBecomesUnset,
	"rises": opRises, "falls": opFalls,
}

func (p *parser) kind(node *yaml.Node) schemas.Kind {
	for _, kind := range []schemas.Kind{schemas.Insert, schemas.Update, schemas.Delete} {
		if node.Kind == yaml.ScalarNode && node.Value == kind.String() {
			return kind
		}
	}
	p.wrong(node, wantCondition, didYouMean(node.Value, []string{"insert", "update", "delete", "changed"}))
	return 0
}

// where reads a map of columns to the value, or the values, that they must have.
func (p *parser) where(node *yaml.Node) []ruleTest { return p.tests(node, opIs) }

func (p *parser) tests(node *yaml.Node, op testOp) []ruleTest {
	var tests []ruleTest
	for _, pair := range p.pairs(node, "want a map of columns to values") {
		tests = append(tests, ruleTest{Op: op, Columns: []string{pair[0].Value}, Values: p.literals(pair[1], pair[0].Value)})
	}
	return tests
}

// derivationFaults lists the errors of the rules with respect to the other parts of
// the catalog.
func (c *Catalog) derivationFaults(p places) Faults {
	var faults Faults
	hooks := map[string]bool{}
	for _, d := range c.derived {
		hooks[d.Hook] = true
	}
	name := func(path, what, name string, taken bool) {
		switch {
		case !isSchemaName(name):
			faults = append(faults, p.at(path, fmt.Sprintf("%s %q: a name may contain a-z, A-Z, 0-9, _ . and -, and at most 100 of them", what, cut(name)), ""))
		case taken || c.hookTaken(name):
			faults = append(faults, p.at(path, fmt.Sprintf("%s %s: the name is taken", what, name), "choose another name"))
		}
	}
	for i, d := range c.derived {
		at := fmt.Sprintf("derive[%d]", i)
		if d.Hook != "" {
			name(at+".hook", "hook", d.Hook, false)
		}
		for j, group := range d.Groups {
			if group != "" {
				name(fmt.Sprintf("%s.groups[%d]", at, j), "group", group, hooks[group])
			}
		}
		if d.Schema != "" && c.byName[d.Schema] == nil {
			faults = append(faults, p.at(at+".schema", fmt.Sprintf("schema %q is not in the catalog", cut(d.Schema)), orOneOf(d.Schema, c.schemaNames())))
		}
	}
	return faults
}

// hookTaken says whether a name means a hook of walhook's own.
func (c *Catalog) hookTaken(name string) bool {
	switch name {
	case "records", "all", "object":
		return true
	}
	return false
}

const wantField = "want a text, a number, true, false, null, or a map with one of column, old, account, owner, case, changed, count"

// derivedFields reads the body's members, whose order matters.
func (p *parser) derivedFields(node *yaml.Node) []derivedField {
	var fields []derivedField
	counts := 0
	for _, pair := range p.pairs(node, "want a map of names to values") {
		f := p.derivedField(pair[0].Value, pair[1])
		if f.Source == fromCount {
			if counts++; counts == 2 {
				p.fault(pair[0], "%s is a second count, and daily delivery adds up only one", f.Name)
			}
		}
		fields = append(fields, f)
	}
	if len(fields) == 0 && node.Kind == yaml.MappingNode {
		p.fault(node, "fields is empty: want a map of names to values")
	}
	return fields
}

func (p *parser) derivedField(name string, node *yaml.Node) derivedField {
	f := derivedField{Name: name}
	if node.Kind == yaml.ScalarNode {
		f.Source, f.Default, f.HasDefault = fromLiteral, p.literal(node, name), true
		return f
	}
	before := len(p.faults)
	for _, pair := range p.pairs(node, wantField) {
		key, value := pair[0], pair[1]
		if key.Value == "default" {
			f.Default, f.HasDefault = p.literal(value, name), true
			continue
		}
		if f.Source != 0 {
			p.fault(key, "want exactly one source")
			continue
		}
		p.source(&f, key, value)
	}
	if f.Source == 0 && len(p.faults) == before {
		p.fault(node, "%s", wantField)
	}
	if f.HasDefault && f.Source != 0 && f.Source != fromColumn && f.Source != fromOld && f.Source != fromAccount {
		p.fault(node, "default applies only to column, old and account")
	}
	return f
}

func (p *parser) source(f *derivedField, key, value *yaml.Node) {
	switch key.Value {
	case "column":
		f.Source, f.Column = fromColumn, p.text(value, f.Name)
	case "old":
		f.Source, f.Column = fromOld, p.text(value, f.Name)
	case "account":
		f.Source, f.Column = fromAccount, p.text(value, f.Name)
	case "owner":
		f.Source, f.Number = fromOwner, value.Value == "number"
		if value.Value != "number" && value.Value != "text" {
			p.fault(value, "want number or text")
		}
	case "case":
		if f.Source = fromCase; value.Value != "name" {
			p.fault(value, "want name")
		}
	case "changed":
		f.Source, f.Watched = fromChanged, p.watched(value)
	case "count":
		f.Source = fromCount
		if strings.TrimSpace(value.Value) != "1" {
			f.Column = p.text(value, f.Name)
		}
	default:
		p.unknown(key, "column", "old", "account", "owner", "case", "changed", "count", "default")
	}
}

// watched reads the fields of a list of changes: the schema's fields, a list of
// columns, or a map of names to columns.
func (p *parser) watched(node *yaml.Node) []Field {
	if node.Kind == yaml.ScalarNode && node.Value == "fields" {
		return nil
	}
	const want = "want fields, a list of columns, or a map of names to columns"
	fields := p.fieldList(node, want)
	if len(fields) == 0 && node.Kind != yaml.ScalarNode {
		p.fault(node, want)
	}
	return fields
}
