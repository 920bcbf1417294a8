package portal

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// eventType is an event of the catalog, as the API shows it.
type eventType struct {
	Name          string          `json:"name"`
	Kind          string          `json:"kind"` // record, result, event
	Description   string          `json:"description"`
	Groups        []string        `json:"groups"`
	DefaultFormat string          `json:"default_format"`
	Daily         bool            `json:"daily"`
	Extra         bool            `json:"extra"`
	Forms         []eventTypeForm `json:"forms"`
	JSONSchema    json.RawMessage `json:"json_schema"`
}

// eventTypeForm is one form of its body, and how it looks in each format.
type eventTypeForm struct {
	Field   string           `json:"field"`
	Value   string           `json:"value"`
	Fields  []eventTypeField `json:"fields"`
	Example struct {
		Envelope    json.RawMessage `json:"envelope"`
		JSON        json.RawMessage `json:"json"`
		Form        string          `json:"form"`
		CloudEvents json.RawMessage `json:"cloudevents"`
	} `json:"example"`
}

// Plain reports whether the names of its fields are all that is known of them.
func (f eventTypeForm) Plain() bool {
	for _, field := range f.Fields {
		if field.Type != "" || field.Description != "" || len(field.Values) > 0 {
			return false
		}
	}
	return len(f.Fields) > 0
}

type eventTypeField struct {
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Type        string            `json:"type"`
	Values      []json.RawMessage `json:"values"`
	Optional    bool              `json:"optional"`
}

// Choices are the possible values, for people.
func (f eventTypeField) Choices() string {
	var list []string
	for _, v := range f.Values {
		list = append(list, strings.Trim(string(v), `"`))
	}
	return strings.Join(list, ", ")
}

// eventTypes returns the whole catalog in force.
func (v *visit) eventTypes() (all []eventType, ok bool) {
	query := url.Values{"page_size": {"500"}}
	for {
		var list []eventType
		r, ok := v.got("/event-types", query, &list)
		if !ok {
			return nil, false
		}
		all = append(all, list...)
		if r.Next == "" {
			return all, true
		}
		query.Set("start_key", r.Next)
	}
}

// alike reports whether several descriptions differ only in the names of what they describe:
// then the names alone say as much.
func alike(list []eventType) bool {
	for _, one := range list {
		if strings.ReplaceAll(one.Description, one.Name, "") != strings.ReplaceAll(list[0].Description, list[0].Name, "") {
			return false
		}
	}
	return len(list) > 1
}

// types lists the events that there are, by kind.
func (p *Portal) types(v *visit) {
	all, ok := v.eventTypes()
	if !ok {
		return
	}
	kinds := map[string][]eventType{}
	for _, one := range all {
		kinds[one.Kind] = append(kinds[one.Kind], one)
	}
	v.show(http.StatusOK, "types", kinds)
}

// eventType shows one of them: what its body holds, and examples.
func (p *Portal) eventType(v *visit) {
	all, ok := v.eventTypes()
	if !ok {
		return
	}
	for _, one := range all {
		if one.Name == v.r.PathValue("type") {
			v.show(http.StatusOK, "type", one)
			return
		}
	}
	v.fail(http.StatusNotFound, "error.nothing_here")
}
