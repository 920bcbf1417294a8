package schemas

import "slices"

// AppendSchema appends the JSON Schema of the rule's events (JSON Schema
// 2020-12): an object of its fields, in their order. What a column holds is not
// told: its type is the database's.
func (d *Derivation) AppendSchema(dst []byte) []byte {
	dst = append(dst, `{"$schema":"https://json-schema.org/draft/2020-12/schema","title":`...)
	dst = AppendString(dst, []byte(d.Hook))
	dst = append(dst, `,"description":`...)
	dst = AppendString(dst, []byte(d.Description))
	dst = append(dst, `,"type":"object","properties":{`...)
	for i, f := range d.Fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, []byte(f.Name)), ':')
		dst = d.appendFieldSchema(dst, f)
	}
	dst = append(dst, `},"required":[`...)
	first := true
	for _, f := range d.Fields {
		if !f.always() {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = AppendString(dst, []byte(f.Name))
	}
	return append(dst, `]}`...)
}

// always says that a field is in every body, whatever a change carries.
func (f DerivedField) always() bool {
	switch f.Source {
	case FromColumn, FromOld:
		return f.HasDefault
	case FromCount:
		return f.Column == ""
	}
	return true
}

func (d *Derivation) appendFieldSchema(dst []byte, f DerivedField) []byte {
	switch f.Source {
	case FromLiteral:
		return append(f.Default.AppendJSON(append(dst, `{"const":`...)), '}')
	case FromCase:
		return append(appendTexts(append(dst, `{"enum":`...), d.caseNames()), '}')
	case FromCount:
		return append(dst, `{"type":"integer"}`...)
	case FromOwner:
		if f.Number {
			return append(dst, `{"type":["integer","string"]}`...)
		}
		return append(dst, `{"type":"string"}`...)
	case FromChanged:
		var names []string
		for _, w := range f.Watched {
			names = append(names, w.Name)
		}
		if len(names) == 0 {
			return append(dst, `{"type":"array","items":{"type":"string"}}`...)
		}
		return append(appendTexts(append(dst, `{"type":"array","items":{"enum":`...), names), `}}`...)
	}
	return append(dst, `{}`...)
}

func (d *Derivation) caseNames() []string {
	var names []string
	for _, c := range d.Cases {
		if !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

func appendTexts(dst []byte, texts []string) []byte {
	dst = append(dst, '[')
	for i, text := range texts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, []byte(text))
	}
	return append(dst, ']')
}
