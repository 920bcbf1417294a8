package catalog

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

const wantField = "want a text, a number, true, false, null, or a map with one of column, old, account, owner, case, changed, count"

// derivedFields reads the body's members, whose order counts.
func (p *parser) derivedFields(node *yaml.Node) []DerivedField {
	var fields []DerivedField
	counts := 0
	for _, pair := range p.pairs(node, "fields: want a map of names to values") {
		f := p.derivedField(pair[0].Value, pair[1])
		if f.Source == FromCount {
			if counts++; counts == 2 {
				p.fault(pair[0], "fields: %s is a second count, and daily delivery adds up one", f.Name)
			}
		}
		fields = append(fields, f)
	}
	return fields
}

func (p *parser) derivedField(name string, node *yaml.Node) DerivedField {
	f := DerivedField{Name: name}
	if node.Kind == yaml.ScalarNode {
		f.Source, f.Default, f.HasDefault = FromLiteral, p.literal(node, name), true
		return f
	}
	for _, pair := range p.pairs(node, "fields: "+name+": "+wantField) {
		key, value := pair[0], pair[1]
		if key.Value == "default" {
			f.Default, f.HasDefault = p.literal(value, name), true
			continue
		}
		if f.Source != 0 {
			p.fault(key, "fields: %s: comes from one place only", name)
			continue
		}
		p.source(&f, key, value)
	}
	if f.Source == 0 {
		p.fault(node, "fields: %s: %s", name, wantField)
	}
	if f.HasDefault && f.Source != 0 && f.Source != FromColumn && f.Source != FromOld && f.Source != FromAccount {
		p.fault(node, "fields: %s: default is for column, old and account", name)
	}
	return f
}

func (p *parser) source(f *DerivedField, key, value *yaml.Node) {
	switch key.Value {
	case "column":
		f.Source, f.Column = FromColumn, p.text(value, f.Name)
	case "old":
		f.Source, f.Column = FromOld, p.text(value, f.Name)
	case "account":
		f.Source, f.Column = FromAccount, p.text(value, f.Name)
	case "owner":
		f.Source, f.Number = FromOwner, value.Value == "number"
		if value.Value != "number" && value.Value != "text" {
			p.fault(value, "fields: %s: owner: want number or text", f.Name)
		}
	case "case":
		if f.Source = FromCase; value.Value != "name" {
			p.fault(value, "fields: %s: case: want name", f.Name)
		}
	case "changed":
		f.Source, f.Watched = FromChanged, p.watched(value)
	case "count":
		f.Source = FromCount
		if strings.TrimSpace(value.Value) != "1" {
			f.Column = p.text(value, f.Name)
		}
	default:
		p.fault(key, "fields: %s: %s", f.Name, wantField)
	}
}

// watched reads what a list of changed fields names: the schema's fields, a
// list of columns, or a map of names to columns.
func (p *parser) watched(node *yaml.Node) []Field {
	if node.Kind == yaml.ScalarNode && node.Value == "fields" {
		return nil
	}
	var fields fieldsFile
	if err := fields.UnmarshalYAML(node); err != nil || len(fields) == 0 {
		p.fault(node, "changed: want fields, a list of columns, or a map of names to columns")
	}
	return fields
}
