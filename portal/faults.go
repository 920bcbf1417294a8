package portal

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// faultLink leads from the top of a form to a field that is wrong.
type faultLink struct {
	To    string // the id of an element
	Field string // the key of its name, without "field."
	Below bool   // the words below To say what is wrong, and To is no element
}

// Wrong are the fields that are wrong, in the order of the form: a person who sent a long
// form sees its top first.
func (f formPage) Wrong() (list []faultLink) {
	for _, name := range formFields {
		if f.Fault(name) != "" {
			list = append(list, faultLink{name, name, isGroup(name)})
		}
	}
	if f.HeadersFault() != "" {
		return append(list, faultLink{"headers", "headers", true})
	}
	for _, row := range f.Headers() {
		if row.Fault != "" {
			return append(list, faultLink{"header_" + strconv.Itoa(row.N), "headers", true})
		}
	}
	return list
}

// isGroup reports whether a field is several elements, of which none has its name as id.
func isGroup(name string) bool {
	switch name {
	case "schemas", "types", "include_subaccounts", "include_internal_legs", "initial_state":
		return true
	}
	return false
}

// inFormWords replaces what the API says to programs: a number in words for people, and an
// element of a list, types[1], by the field that has the list.
func (p *pages) inFormWords(faults map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		if field, _, element := strings.Cut(name, "["); element && slices.Contains(formFields, field) {
			faults[field] = append(faults[field], faults[name]...)
			delete(faults, name)
		}
	}
	for _, name := range []string{"retries", "rate_limit", "batch"} {
		if text := strings.Join(faults[name], ""); strings.HasPrefix(text, "expected ") {
			faults[name] = []string{p.text("form.number")}
		}
	}
}
