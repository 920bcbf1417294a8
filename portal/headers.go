package portal

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// moreHeaders is how many rows the form has for further headers.
const moreHeaders = 3

// headerRow is a row of the form for one header.
type headerRow struct {
	N     int // from 1
	Name  string
	Value string // masked where it is stored; what was written is never shown again
	Fault string
}

// Headers are the rows of the form: those that are set or were sent, and some more.
func (f formPage) Headers() (rows []headerRow) {
	names, values := f.Values["header_name"], f.Values["header_value"]
	for i, name := range names {
		row := headerRow{N: i + 1, Name: name}
		if i < len(values) && values[i] == admin.Masked {
			row.Value = admin.Masked
		}
		row.Fault = f.Fault(rowField(i))
		for _, field := range fieldsOf(strings.TrimSpace(name)) {
			row.Fault = strings.TrimSpace(row.Fault + " " + f.Fault(field))
		}
		rows = append(rows, row)
	}
	blank := 0
	for _, row := range rows {
		if row.Name == "" {
			blank++
		}
	}
	for ; blank < moreHeaders && len(rows) < outbox.MaxHeaders; blank++ {
		rows = append(rows, headerRow{N: len(rows) + 1})
	}
	return rows
}

// HeadersFault is what is wrong with the headers, and not with a single row.
func (f formPage) HeadersFault() string {
	shown := map[string]bool{}
	for i, name := range f.Values["header_name"] {
		shown[rowField(i)] = true
		for _, field := range fieldsOf(strings.TrimSpace(name)) {
			shown[field] = true
		}
	}
	var texts []string
	for _, field := range slices.Sorted(maps.Keys(f.Faults)) {
		if isHeadersField(field) && !shown[field] {
			texts = append(texts, f.Fault(field))
		}
	}
	return strings.Join(texts, " ")
}

// rowField names a row among the fields with a fault.
func rowField(i int) string { return "headers[" + strconv.Itoa(i) + "]" }

// fieldsOf are the fields by which the API names a header.
func fieldsOf(name string) []string {
	return []string{"headers." + name, "headers." + strconv.Quote(name)}
}

func isHeadersField(field string) bool {
	return field == "headers" || strings.HasPrefix(field, "headers.") || strings.HasPrefix(field, "headers[")
}

// readHeaders makes the API's field of the rows. A row without a name and a new value is
// no header, so clearing the name removes one.
func (f *formPage) readHeaders(body map[string]any, words *pages) {
	names, there := f.Values["header_name"]
	if !there {
		return
	}
	values, headers := f.Values["header_value"], map[string]string{}
	for i, name := range names {
		value := ""
		if i < len(values) {
			value = values[i]
		}
		name = strings.TrimSpace(name)
		_, twice := headers[name]
		switch {
		case name == "" && (value == "" || value == admin.Masked):
		case name == "":
			f.Faults[rowField(i)] = []string{words.text("form.header_unnamed")}
		case twice:
			f.Faults[rowField(i)] = []string{words.text("form.header_twice")}
		default:
			headers[name] = value
		}
	}
	body["headers"] = headers
}

// setHeaders fills the rows from a webhook.
func setHeaders(values url.Values, headers map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		values.Add("header_name", name)
		values.Add("header_value", headers[name])
	}
}
