package catalog

import (
	"slices"
)

// Description describes one event type for people and programs.
type Description struct {
	Name   string
	Groups []string // the hooks, besides its name, that include it
	About  string
	Format string // json or form; "" for records, which are sent in the envelope
	// Record says that Forms[0].Fields are those of an envelope's data.
	Record  bool
	Targets []string // the kinds of object that a webhook for it can be bound to
	// Counted says that a webhook with daily delivery gets the counts of a day.
	Counted bool
	// Extra says that a body may have members besides the fields.
	Extra bool
	Forms []Form // one, or several that Form.If distinguishes
}

// Form is one form of a body.
type Form struct {
	If     string // the value of the member Key that selects this form; "" for the only one
	Key    string
	Fields []FieldDescription
}

// FieldDescription is one member of a body.
type FieldDescription struct {
	Name  string
	About string
	// Type is a type of JSON Schema; "" where it depends on the data.
	Type string
	// Values lists every possible value; empty when the data decides.
	Values []literal
	// Optional says that a body may lack it.
	Optional bool
}

// Describe lists every event of the catalog: records in order of name, then
// hooks and derived events in the order of the file.
func (c *Catalog) Describe() []Description {
	var all []Description
	for _, s := range c.Schemas {
		all = append(all, s.describe())
	}
	for _, h := range c.hooks {
		all = append(all, h.describe())
	}
	for _, d := range c.derived {
		// Rules that share a hook are forms of one event.
		if i := slices.IndexFunc(all, func(o Description) bool { return !o.Record && o.Name == d.Hook }); i >= 0 {
			all[i].Forms = append(all[i].Forms, d.form())
			continue
		}
		all = append(all, d.describe())
	}
	return all
}

func (s *Schema) describe() Description {
	form := Form{}
	for _, f := range s.Fields {
		form.Fields = append(form.Fields, FieldDescription{Name: f.Name, Optional: true})
	}
	return Description{Name: s.Name, Record: true, Forms: []Form{form}}
}

func (h *Hook) describe() Description {
	d := Description{Name: h.Name, Groups: h.Groups, About: h.Description, Format: h.Format, Extra: h.Extra}
	add := func(form Form, fields []HookField, targets []hookTarget) {
		for _, f := range fields {
			form.Fields = append(form.Fields, f.describe(h))
		}
		for _, t := range targets {
			d.Targets = append(d.Targets, t.Kind)
		}
		d.Forms = append(d.Forms, form)
	}
	if h.Variants == nil {
		add(Form{}, h.Fields, h.targets)
	} else {
		for _, v := range h.Variants.Of {
			add(Form{If: v.Value, Key: h.Variants.Key}, v.Fields, v.Targets)
		}
	}
	slices.Sort(d.Targets)
	d.Targets = slices.Compact(d.Targets)
	return d
}

func (f HookField) describe(h *Hook) FieldDescription {
	d := FieldDescription{Name: f.Name, About: f.About}
	switch f.Source {
	case FromPayload:
		d.Optional = !h.Empty
	case FromHook:
		d.Type, d.Values = "string", []literal{{literalString, h.Name}}
	case FromAccountID:
		d.Type = "string"
	case FromGregorian:
		d.Type = "integer"
	case FromValue:
		d.Type, d.Values = f.Value.Kind.schemaType(), []literal{f.Value}
	}
	if h.Format == "form" {
		d.Type = "string"
	}
	return d
}

func (d *Derivation) describe() Description {
	return Description{Name: d.Hook, Groups: d.Groups, About: d.description, Format: d.Format, Counted: d.HasCount(), Forms: []Form{d.form()}}
}

func (d *Derivation) form() Form {
	form := Form{}
	for _, f := range d.fields {
		form.Fields = append(form.Fields, f.describe(d))
	}
	return form
}

func (f derivedField) describe(d *Derivation) FieldDescription {
	one := FieldDescription{Name: f.Name}
	switch f.Source {
	case fromLiteral:
		one.Type, one.Values = f.Default.Kind.schemaType(), []literal{f.Default}
	case fromOwner:
		one.About = "the account"
		if one.Type = "string"; f.Number {
			one.Type = "" // a number only if the id is a whole number
		}
	case fromCase:
		one.Type = "string"
		for _, c := range d.cases {
			one.Values = append(one.Values, literal{literalString, c.Name})
		}
	case fromChanged:
		one.Type, one.About = "array", "the names of the fields that changed"
	case fromCount:
		one.Type, one.About = "integer", "the count"
	default:
		one.Optional = !f.HasDefault
	}
	if d.Format == "form" {
		one.Type = "string"
	}
	return one
}

func (k literalKind) schemaType() string {
	switch k {
	case literalString:
		return "string"
	case literalNumber:
		return "number"
	case literalBool:
		return "boolean"
	}
	return "null"
}
