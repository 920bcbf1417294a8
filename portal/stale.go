package portal

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// stored is what a field of a webhook has, where the form has something else.
type stored struct{ Field, Text string }

// replaces are the fields that saving the form would change, with what is stored in them.
func (f formPage) replaces(words *pages) (list []stored) {
	now := valuesOf(f.Webhook)
	for _, name := range formFields {
		if f.Own && !slices.Contains(ownFields, name) {
			continue
		}
		mine, theirs := f.Values[name], now[name]
		switch {
		case name == "custom_data":
			mine, theirs = []string{compact(f.Values.Get(name))}, []string{compact(now.Get(name))}
		case name != "schemas" && name != "types":
			mine, theirs = []string{strings.TrimSpace(f.Values.Get(name))}, []string{now.Get(name)}
		}
		if slices.Equal(slices.Sorted(slices.Values(mine)), slices.Sorted(slices.Values(theirs))) {
			continue
		}
		text := strings.Join(theirs, ", ")
		if text == "on" {
			text = words.text("yes")
		}
		list = append(list, stored{name, text})
	}
	if _, there := f.Values["header_name"]; there && !slices.Equal(headersIn(f.Values), headersIn(now)) {
		list = append(list, stored{"headers", strings.Join(headersIn(now), ", ")})
	}
	return list
}

// ownFields are those that the account's own webhook has in the form.
var ownFields = []string{"retries", "rate_limit", "initial_state"}

// headersIn are the headers of a form, sorted. A value that is not stored is not shown.
func headersIn(values map[string][]string) (list []string) {
	for i, name := range values["header_name"] {
		if name = strings.TrimSpace(name); name == "" || i >= len(values["header_value"]) {
			continue
		}
		list = append(list, name+": "+values["header_value"][i])
	}
	slices.Sort(list)
	return list
}

// compact writes JSON without white space, and other text as it is.
func compact(text string) string {
	var b bytes.Buffer
	if json.Compact(&b, []byte(text)) != nil {
		return strings.TrimSpace(text)
	}
	return b.String()
}
